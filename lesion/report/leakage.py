"""The leakage panel: folds by patient or by slice, true or shuffled labels, and how much the leaky ones flatter."""

from typing import Any

from lesion.report import figures, paper, read, recipe, resample, results, words
from lesion.report.canvas import Drawing
from lesion.report.read.files import called
from lesion.report.tables import Cell, Column, Table, instead, score, triple

CELLS = {
    "patient_true": "folds by patient, true labels",
    "patient_shuffled": "folds by patient, shuffled labels",
    "leaky_true": "leaky folds, true labels",
    "leaky_shuffled": "leaky folds, shuffled labels",
}
_SHOWN = {"accuracy": "Accuracy of slices, %", "auc": "AUC of slices"}


_ONCE = (
    "The labels were shuffled once, which is one draw of many; and as folds by patient are stratified by the true "
    "labels, a test fold that got more of one class leaves less of it to train on, which pushes the pooled AUC of "
    "shuffled labels below one half."
)


def _told(title: str, first: dict[str, read.Run], scores: dict[str, resample.Scores]) -> list[str]:
    """What the four cells say, in words; the first sentence says how they were trained."""
    result: list[str] = []
    how = recipe.told(first.values())
    name = f"{title} ({how})" if how else title
    if {"leaky_true", "patient_true"} <= first.keys():
        change = resample.difference(first["leaky_true"], first["patient_true"], "slice")
        if change is not None:
            ends = triple(change["accuracy"])
            result.append(
                f"{name}: on this cohort a leaky split changes the accuracy of slices by "
                f"{words.change('accuracy', ends)}: "
                f"{words.flatters(*ends[1:])}."
            )
            name = title
    if "leaky_shuffled" in first:
        auc = scores["leaky_shuffled"]["auc"]
        said = words.memorised(auc["low"], auc["high"])
        result.append(
            f"{name}: labels dealt at random, leaky folds: accuracy "
            f"{words.number('accuracy', scores['leaky_shuffled']['accuracy']['value'])} %, AUC "
            f"{words.number('auc', auc['value'])} ({words.interval('auc', auc['low'], auc['high'])}): {said}."
        )
        name = title
    if "patient_shuffled" in first:
        auc = scores["patient_shuffled"]["auc"]
        result.append(
            f"{name}: the same labels, folds by patient: AUC {words.number('auc', auc['value'])} "
            f"({words.interval('auc', auc['low'], auc['high'])}): "
            f"{words.unlearnable(auc['low'], auc['high'])}."
        )
        result.append(_ONCE)
    return result


def _figure(sequence: str, scores: dict[str, resample.Scores]) -> Drawing:
    rows = []
    for cell, title in CELLS.items():
        if cell in scores:
            auc, leaky = scores[cell]["auc"], cell.startswith("leaky")
            mark = figures.Mark(auc["value"], auc["low"], auc["high"], 1 if leaky else 0, hollow=leaky)
            rows.append(figures.Dots(title, (mark,)))
    caption = f"{results.title(sequence)}: AUC of slices with 95 % interval over patients."
    return figures.dots(
        results.slug("figure-leakage", sequence), caption, "AUC of slices", rows,
        reference=("guessing", 0.5), solid="by patient", hollow="leaky",
    )  # fmt: skip


def _sequence(folder: read.Folder, sequence: str) -> dict[str, Any]:
    runs = {run.model: run for run in folder.leakage if run.sequence == sequence}
    scores = {cell: resample.means([run], "slice") for cell, run in runs.items()}
    rows: list[tuple[Cell, ...]] = []
    for cell in dict.fromkeys((*CELLS, *runs)):
        title = CELLS.get(cell, cell.replace("_", " "))
        if cell in runs:
            rows.append((Cell(called(title, runs[cell].config)), *(score(name, scores[cell][name]) for name in _SHOWN)))
        rows += [
            instead(title, f"FAILED: {one.error}", 1 + len(_SHOWN))
            for one in folder.failed
            if one.name == f"leakage/{sequence}/{cell}"
        ]
    name = results.title(sequence)
    return {
        "title": name,
        "table": Table(results.slug("leakage", sequence), name, (results.FIRST, *map(Column, _SHOWN.values())), rows),
        "figure": _figure(sequence, scores) if scores else None,
        "told": _told(name, runs, scores),
    }


def section(folder: read.Folder) -> dict[str, Any] | None:
    """What the page shows of leakage.

    Returns:
        A dict: sequences (a list of {title, table, figure, told}), published (sentences of others' results); None
        where it was not run.
    """
    lost = [one.name.split("/")[1] for one in folder.failed if one.name.startswith("leakage/")]
    found = list(dict.fromkeys([*(run.sequence for run in folder.leakage), *lost]))
    if not found:
        return None
    order = [s for s in paper.TITLES if s in found] + [s for s in found if s not in paper.TITLES]
    return {"sequences": [_sequence(folder, s) for s in order], "published": paper.LEAKAGE_NOTE}
