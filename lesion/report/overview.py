"""Over all sequences (Table 6) and beside other networks (Table 7)."""

from typing import Any

from lesion.report import figures, paper, read, resample, results, words
from lesion.report.canvas import Drawing
from lesion.report.tables import Cell, Column, Table, instead, text

_SEQUENCE = "ce_t1wi"  # the paper's Table 7 is on this one


def means_table(summaries: list[dict[str, Any]]) -> Table | None:
    """Our Table 6: the mean over the three sequences; None where no model has a sequence of the paper's."""
    rows: list[tuple[Cell, ...]] = []
    for model in dict.fromkeys(s["run"].model for s in summaries):
        own = {s["sequence"]: s for s in summaries if s["run"].model == model}
        head, absent = next(iter(own.values()))["model"], [s for s in paper.TITLES if s not in own]
        if absent:
            lacks = ", ".join(map(results.title, absent))
            rows.append((Cell(head), Cell(f"none: no result on {lacks}", span=len(results.COLUMNS), look="failed")))
            continue
        scores = {level: resample.means([own[s]["run"] for s in paper.TITLES], level) for level in results.LEVELS}
        rows.append((Cell(head), *results.cells(scores)))
    if not any(len(row) > 2 for row in rows):
        return None
    note = "Intervals: patients are drawn once for all three sequences."
    caption = "Table 6, this cohort: means over the three sequences"
    return Table("table-6", caption, (results.FIRST, *results.COLUMNS), rows, notes=(note, results.WEIGHTED))


def baselines_table(
    folder: read.Folder, sequence: str, baselines: list[dict[str, Any]], transfer: list[dict[str, Any]]
) -> Table | None:
    """Our Table 7: the baselines, then our backbones, on one sequence; None where there is no baseline."""
    theirs, ours = ([s for s in group if s["sequence"] == sequence] for group in (baselines, transfer))
    lost = results.gaps(folder, "baselines", sequence)
    if not theirs and not lost:
        return None
    rows = [(Cell(s["model"]), *results.cells(s["scores"])) for s in theirs]
    rows += [instead(model, what, 1 + len(results.COLUMNS)) for model, what in lost]
    rows += [(Cell(s["model"], look="strong"), *results.cells(s["scores"])) for s in ours]
    main = sequence == _SEQUENCE
    caption = f"{'Table 7, this cohort' if main else 'Baselines'}: {results.title(sequence)}; bold: transfer"
    name = "table-7" if main else results.slug("baselines", sequence)
    return Table(name, caption, (results.FIRST, *results.COLUMNS), rows, notes=(results.WEIGHTED,))


def _guesses(folder: read.Folder, run: read.Run) -> list[str]:
    """What had to be guessed of a baseline: the run's own record says it, or where it tells nothing the registry."""
    own = [run.config.get("baseline"), run.config, run.config.get("weights")]
    for place in (*own, folder.specs.get(run.model), folder.models.get(run.model)):
        told = place.get("guesses") if isinstance(place, dict) else None
        if told:
            return [told] if isinstance(told, str) else [str(guess) for guess in told]
    return []


def _facts(folder: read.Folder, baselines: list[dict[str, Any]]) -> Table | None:
    rows = []
    for run in {s["run"].model: s["run"] for s in baselines}.values():
        spec = folder.specs.get(run.model) or folder.models.get(run.model)
        spec = spec if isinstance(spec, dict) else {}
        count, stands_for = spec.get("num_params"), str(spec.get("paper_row") or words.MISSING)
        told = "; ".join(_guesses(folder, run)) or "none told"
        count = f"{count:,}" if isinstance(count, int) else words.MISSING
        rows.append((text(run.title), text(stands_for), text(count), text(told)))
    columns = (
        results.FIRST,
        Column("Stands for", words=True),
        Column("Parameters"),
        Column("Guessed where its paper is silent", words=True),
    )
    return Table("baselines-guesses", "What had to be guessed", columns, rows) if rows else None


def _forest(
    folder: read.Folder, baselines: list[dict[str, Any]], transfer: list[dict[str, Any]], styles: dict[str, int]
) -> Drawing | None:
    rows = []
    for summary in (*baselines, *transfer):
        marks = []
        for level in results.LEVELS:
            auc = summary["scores"][level]["auc"]
            if summary["sequence"] == _SEQUENCE and auc["value"] == auc["value"]:
                style = styles[summary["run"].model]
                marks.append(figures.Mark(auc["value"], auc["low"], auc["high"], style, hollow=level == "patient"))
        if marks:
            rows.append(figures.Dots(summary["model"], tuple(marks), bold=summary in transfer))
    caption = f"AUC on {results.title(_SEQUENCE)} with 95 % interval over patients; bold: transfer."
    return figures.dots("figure-table-7", caption, "AUC", rows, solid="slices", hollow="patients") if rows else None


def section(
    folder: read.Folder,
    baselines: list[dict[str, Any]],
    transfer: list[dict[str, Any]],
    styles: dict[str, int],
) -> dict[str, Any] | None:
    """What the page shows of the baselines.

    Returns:
        A dict: main (our Table 7 or None), others (tables of other sequences), facts, figure; None where none was run.
    """
    order = [_SEQUENCE, *(s for s in paper.TITLES if s != _SEQUENCE)]
    found = {s: baselines_table(folder, s, baselines, transfer) for s in order}
    tables = [table for table in found.values() if table]
    if not tables:
        return None
    return {
        "main": found[_SEQUENCE],
        "others": [table for s, table in found.items() if table and s != _SEQUENCE],
        "facts": _facts(folder, baselines),
        "figure": _forest(folder, baselines, transfer, styles) if found[_SEQUENCE] else None,
    }
