"""Baselines (Table 7): other networks beside the backbones."""

from typing import Any

from lesion.report import figures, paper, words
from lesion.report.records import Folder
from lesion.report.sections import transfer
from lesion.report.tables import FIRST, Cell, Table

_SEQUENCE = "ce_t1wi"  # the sequence of the paper's Table 7


def _table(folder: Folder, sequence: str) -> Table | None:
    """Returns our Table 7: the baselines and then the backbones on one sequence; None without a baseline."""
    rows = [transfer.score_row(run.title, run.scores) for run in folder.baselines if run.sequence == sequence]
    rows += transfer.failed_rows(folder, "baselines", sequence)
    if not rows:
        return None
    ours = [run for run in folder.transfer if run.sequence == sequence]
    rows += [transfer.score_row(Cell(run.title, style="strong"), run.scores) for run in ours]
    main = sequence == _SEQUENCE
    name = "table-7" if main else words.identifier("baselines", sequence)
    caption = f"{'Table 7, this cohort' if main else 'Baselines'}: {paper.sequence_title(sequence)}; bold: transfer"
    return Table(name, caption, rows, transfer.COLUMNS, notes=[words.INTERVALS, transfer.WEIGHTED])


def _assumptions(folder: Folder) -> Table | None:
    """Returns the table of assumptions about baselines; a run's own record overrides the registry."""
    specs = [
        {"title": run.title} | folder.baseline_specs.get(run.model, {}) | run.config.get("baseline", {})
        for run in {run.model: run for run in folder.baselines}.values()
    ]
    rows = [
        {
            FIRST: spec["title"],
            "Stands for": spec.get("paper_row") or words.MISSING,
            "Parameters": f"{spec['num_params']:,}" if "num_params" in spec else words.MISSING,
            "Assumed where its paper is silent": spec.get("guesses") or "nothing recorded",
        }
        for spec in specs
    ]
    left = ["Stands for", "Assumed where its paper is silent"]
    return Table("baselines-guesses", "What had to be assumed", rows, left=left) if rows else None


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that baselines.html.j2 prints, or None if there are none."""
    if not transfer.has_baselines(folder):
        return None
    by_sequence = {sequence: _table(folder, sequence) for sequence in paper.TITLES}
    runs, styles = [*folder.baselines, *folder.transfer], transfer.model_styles(folder)
    rows = [
        figures.Dots(run.title, transfer.auc_marks(run, styles[run.model]), bold=run in folder.transfer)
        for run in runs
        if run.sequence == _SEQUENCE and by_sequence[_SEQUENCE]
    ]
    caption = f"AUC on {paper.sequence_title(_SEQUENCE)} with 95 % interval over patients; bold: transfer."
    return {
        "main": by_sequence[_SEQUENCE],
        "published": transfer.published_baselines(folder),
        "figure": figures.dots("figure-table-7", caption, "AUC", rows, solid="slices", hollow="patients"),
        "assumptions": _assumptions(folder),
        "others": [table for sequence, table in by_sequence.items() if table and sequence != _SEQUENCE],
    }
