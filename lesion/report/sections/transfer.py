"""Transfer (Tables 3 to 6): every backbone on every sequence, and the means over the sequences."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lesion import metrics
from lesion.report import figures, paper, tables, words
from lesion.report.canvas import LINE, Drawing
from lesion.report.records import LEVELS, Folder, Predictions
from lesion.report.tables import FAILED, FIRST, Cell, Table

SHOWN = {"accuracy": "Accuracy, %", "auc": "AUC", "f1_weighted": "F1, %"}
COLUMNS = [FIRST, *((f"{level}s", heading) for level in LEVELS for heading in SHOWN.values())]
WEIGHTED = "F1 is that of both classes, weighted by their size."
FOLDS = "First line: the test folds pooled, with 95 % interval; second: each fold scored alone, mean ± SD over folds."
DEALS = "Of several deals of folds: the mean over all their folds, with the interval of Nadeau and Bengio (2003)."
NO_INTERVAL = f"{words.MISSING}: no interval, there are too few patients for it to hold, see How to read this."


def sequence_style(sequence: str) -> int:
    """Returns the line style of a sequence, which is the same in every figure."""
    known = list(paper.TITLES)
    return known.index(sequence) if sequence in known else len(known)


def model_styles(folder: Folder) -> dict[str, int]:
    """Returns {model: line style}, which is the same in every figure."""
    models = dict.fromkeys(run.model for run in (*folder.transfer, *folder.baselines))
    return {model: i % len(LINE) for i, model in enumerate(models)}


def score_row(title: str | Cell, scores: dict[str, Any]) -> dict[Any, Any]:
    """Returns a row of a table with `COLUMNS`; `scores` are {level: {score: entry}}."""
    cells = [tables.score(name, scores[level][name]) for level in LEVELS for name in SHOWN]
    return dict(zip(COLUMNS, [title, *cells], strict=True))


def folds_row(run: Predictions) -> dict[Any, Any]:
    """Returns the row of a table with `COLUMNS` of the means and standard deviations of a run's folds."""
    cells = []
    for level in LEVELS:
        for name in SHOWN:
            values = np.array([scores[level][name]["value"] for scores in run.fold_scores.values()])
            known = values[np.isfinite(values)]
            spread = f" ± {words.number(name, float(known.std(ddof=1)))}" if known.size > 1 else ""
            text = f"{words.number(name, float(known.mean()))}{spread}" if known.size else words.MISSING
            cells.append(text + (f", {known.size} folds" if 0 < known.size < values.size else ""))
    return dict(zip(COLUMNS, ["– mean ± SD over folds", *cells], strict=True))


def deals_row(run: Predictions) -> dict[Any, Any]:
    """Returns the row of a table with `COLUMNS` of the means over the folds of all deals, with corrected intervals."""
    found = [run.fold_scores, *(deal.fold_scores for deal in run.deals)]
    cells = []
    for level in LEVELS:
        for name in SHOWN:
            values = np.array([scores[level][name]["value"] for folds in found for scores in folds.values()])
            mean = float(np.nanmean(values)) if np.isfinite(values).any() else np.nan
            cells.append(tables.score(name, (mean, *metrics.corrected_interval(values, len(run.fold_scores)))))
    return dict(zip(COLUMNS, [f"– mean over the folds of {len(found)} deals", *cells], strict=True))


def auc_marks(run: Predictions, style: int) -> list[figures.Mark]:
    """Returns the marks of the AUCs of slices and, hollow, of patients."""
    return [figures.Mark(*tables.triple(run.scores[level]["auc"]), style, level == "patient") for level in LEVELS]


def failed_rows(folder: Folder, kind: str, sequence: str) -> list[dict[Any, Any]]:
    """Returns a row for every run of `kind` on `sequence` that failed or cannot be shown."""
    reasons = [(failed.name, f"FAILED: {failed.error}") for failed in folder.failed]
    reasons += [(name, f"NOT SHOWN: {reason}") for name, reason in folder.missing]
    split = [(name.split("/"), reason) for name, reason in reasons]
    return [
        {FIRST: folder.titles.get(levels[1], levels[1]), FAILED: reason}
        for levels, reason in split
        if len(levels) == 3 and (levels[0], levels[2]) == (kind, sequence)
    ]


def majority(run: Predictions, level: str) -> float:
    """Returns the accuracy of always naming the commoner disease."""
    share = float(run.columns(level)[0].mean())
    return max(share, 1 - share)


def _sequence_table(folder: Folder, sequence: str, runs: Sequence[Predictions]) -> Table:
    """Returns our Table 3, 4 or 5, with a row for each backbone, failed ones included."""
    rows = []
    for run in runs:
        rows += [score_row(run.title, run.scores), folds_row(run), *([deals_row(run)] if run.deals else [])]
    rows += failed_rows(folder, "transfer", sequence)
    notes = []
    if runs:
        accuracies = {
            (f"{level}s", SHOWN["accuracy"]): words.number("accuracy", majority(runs[0], level)) for level in LEVELS
        }
        rows.append({FIRST: "always the commoner disease"} | accuracies)
        counts = dict.fromkeys((run.scores["num_slices"], run.scores["num_patients"]) for run in runs)
        sizes = (f"{words.plural(slices, 'slice')} of {words.plural(n, 'patient')}" for slices, n in counts)
        notes = [", or ".join(sizes) + ".", WEIGHTED, FOLDS]
        notes += [DEALS] * any(run.deals for run in runs)
    notes += [words.INTERVALS] if runs else []
    if any(
        np.isnan(cell["low"])
        for run in runs
        for level in LEVELS
        for name in SHOWN
        for cell in [run.scores[level][name]]
    ):
        notes.append(NO_INTERVAL)
    number = paper.TABLE_NUMBER.get(sequence)
    name = words.identifier(f"table-{number}" if number else "transfer", sequence)
    caption = f"{f'Table {number}, this cohort: ' if number else ''}{paper.sequence_title(sequence)}"
    return Table(name, caption, rows, COLUMNS, notes=notes)


def _means_table(runs: Sequence[Predictions]) -> Table | None:
    """Returns our Table 6, the means over the three sequences; None if no model has all three."""
    rows = []
    for model in dict.fromkeys(run.model for run in runs):
        own = {run.sequence: run for run in runs if run.model == model}
        title = next(iter(own.values())).title
        absent = [paper.sequence_title(sequence) for sequence in paper.TITLES if sequence not in own]
        if absent:
            rows.append({FIRST: title, FAILED: f"none: no result on {', '.join(absent)}"})
        else:
            means = {level: metrics.mean_scores([own[s].columns(level) for s in paper.TITLES]) for level in LEVELS}
            rows.append(score_row(title, means))
    note = "Intervals know that the three sequences are of the same patients."
    caption = "Table 6, this cohort: means over the three sequences"
    has_means = any(FAILED not in row for row in rows)
    return Table("table-6", caption, rows, COLUMNS, notes=[note, words.INTERVALS, WEIGHTED]) if has_means else None


def published(name: str, caption: str, rows: Sequence[paper.Row]) -> Table:
    """Returns a table of the paper's accuracies, AUCs and F1s."""
    cells = [
        {FIRST: row.name + (" *" if row.note else ""), "Acc., %": row.accuracy, "AUC": row.auc, "F1, %": row.f1}
        for row in rows
    ]
    notes = [f"* {note}" for note in dict.fromkeys(row.note for row in rows) if note]
    return Table(name, caption, cells, notes=notes, published=tables.PUBLISHED)


def published_baselines(folder: Folder) -> Table | None:
    """Returns the paper's Table 7; None beside other classes."""
    table = published("table-7-published", "Table 7 of the paper", paper.BASELINES)
    return table if folder.classes.are_of_paper else None


def has_baselines(folder: Folder) -> bool:
    """Returns whether the page has a section on baselines; without one, transfer shows the paper's Table 7."""
    return bool(folder.baselines) or any(failed_rows(folder, "baselines", sequence) for sequence in paper.TITLES)


def _details(run: Predictions) -> list[Table]:
    """Returns the table of all scores of one run and that of its folds."""
    name = words.identifier("scores", run.model or "network", run.sequence)
    title = f"{run.title}, {run.sequence_title}"
    rows = [
        {FIRST: heading}
        | {f"{level}s ({run.scores[f'num_{level}s']})": tables.score(n, run.scores[level][n]) for level in LEVELS}
        for n, heading in words.score_names(run.classes).items()
    ]
    folds = [
        {
            "fold": fold,
            "patients": scores["num_patients"],
            "slices": scores["num_slices"],
            "slice accuracy, %": words.number("accuracy", scores["slice"]["accuracy"]["value"]),
        }
        | {f"{level} AUC": words.number("auc", scores[level]["auc"]["value"]) for level in LEVELS}
        for fold, scores in run.fold_scores.items()
    ]
    return [
        Table(name, f"All scores: {title}", rows, notes=[words.INTERVALS]),
        Table(f"{name}-folds", f"By fold: {title}", folds),
    ]


def _spread_figure(level: str, runs: Sequence[Predictions], several: bool) -> Drawing | None:
    """Draws the pooled AUC with its interval and each fold's AUC, by backbone and sequence; None without AUCs."""
    rows = []
    for run in runs:
        label = f"{run.title}, {run.sequence_title}" if several else run.sequence_title
        mark = figures.Mark(*tables.triple(run.scores[level]["auc"]), sequence_style(run.sequence))
        ticks = [scores[level]["auc"]["value"] for scores in run.fold_scores.values()]
        rows.append(figures.Dots(label, [mark], [tick for tick in ticks if np.isfinite(tick)]))
    caption = (
        f"Spread of {level}s over folds. Dot and bar: all folds pooled, with 95 % interval over patients; ticks above "
        "it: each fold alone."
    )
    return figures.dots(f"spread-{level}", caption, f"AUC of {level}s", rows)


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that transfer.html.j2 prints, or None if there are none."""
    runs = folder.transfer
    known = [s for s in paper.TITLES if failed_rows(folder, "transfer", s) or any(run.sequence == s for run in runs)]
    several, beside_paper = len({run.title for run in runs}) > 1, folder.classes.are_of_paper
    sequences = []
    for sequence in dict.fromkeys([*known, *(run.sequence for run in runs)]):
        own, number = [run for run in runs if run.sequence == sequence], paper.TABLE_NUMBER.get(sequence)
        theirs = f"table-{number}-published", f"Table {number} of the paper", paper.TRANSFER.get(sequence, ())
        sequences.append(
            {
                "title": paper.sequence_title(sequence),
                "ours": _sequence_table(folder, sequence, own),
                "theirs": published(*theirs) if number and beside_paper else None,
                "details": [(run.title, _details(run)) for run in own],
            }
        )
    if not sequences:
        return None
    means = published("table-6-published", "Table 6 of the paper", paper.MEANS)
    return {
        "sequences": sequences,
        "patients_apart": not any(run.splits_patients for run in runs),
        "several": several,
        "spread": [_spread_figure(level, runs, several) for level in LEVELS],
        "means": _means_table(runs) if len(runs) > 1 else None,
        "published_means": means if beside_paper else None,
        "published_baselines": None if has_baselines(folder) else published_baselines(folder),
    }
