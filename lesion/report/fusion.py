"""Fusion, the paper's future work: does knowing all three sequences of a patient beat knowing the best one?"""

from typing import Any

from lesion import metrics
from lesion.report import figures, read, resample, results, words
from lesion.report.canvas import Drawing
from lesion.report.read.files import called
from lesion.report.tables import Cell, Column, Table, change, instead, score, triple

_TITLES = {
    "early": "early: means of features side by side",
    "late": "late: what each sequence says, averaged",
    "attention": "attention over all slices",
    "best_single": "best single sequence",
}
_BEST, _ALONE = "best_single", "only_"


def _title(run: read.Run) -> str:
    alone = f"{results.title(run.sequence)} alone" if run.model.startswith(_ALONE) else ""
    return called(alone or _TITLES.get(run.model, run.model.replace("_", " ")), run.config)


def rival(runs: list[read.Run], scores: list[dict[str, Any]]) -> tuple[int, str] | None:
    """Which run fusion must beat, and how it was chosen; None where no sequence stands alone."""
    names = [run.model for run in runs]
    if _BEST in names:
        return names.index(_BEST), "the sequence is chosen anew in every fold, from its training patients alone"
    alone = [i for i, name in enumerate(names) if name.startswith("only_")]
    if not alone:
        return None
    best = max(alone, key=lambda i: scores[i]["patient"]["auc"]["value"])
    return best, "chosen by these very scores, which flatters it"


def _differences(runs: list[read.Run], against: int, why: str) -> tuple[Table | None, list[str]]:
    """Each way of fusing minus the best single sequence, and the same in words."""
    rows, told = [], []
    for run in runs:
        if run.model.startswith("only_") or run is runs[against]:
            continue
        found = resample.difference(run, runs[against], "patient")
        if found is None:
            continue
        triples = {s: triple(found[s]) for s in ("auc", "accuracy")}
        _, low, high = triples["auc"]
        verdict = words.versus_single(low, high)
        rows.append((Cell(_title(run)), *(change(s, triples[s]) for s in triples), Cell(verdict)))
        told.append(f"{_title(run)}: AUC {words.change('auc', triples['auc'])}: {verdict}")
    columns = (
        results.FIRST,
        Column("AUC"),
        Column("accuracy, points"),
        Column("by the interval of AUC", words=True),
    )
    caption = f"Fused minus {_title(runs[against])}, the same patients"
    note = f"{_title(runs[against])[0].upper()}{_title(runs[against])[1:]}: {why}."
    return (Table("fusion-differences", caption, columns, rows, notes=(note,)) if rows else None), told


def _forest(runs: list[read.Run], scores: list[dict[str, Any]]) -> Drawing | None:
    rows = []
    for run, found in zip(runs, scores, strict=True):
        auc, alone = found["patient"]["auc"], run.model.startswith("only_") or run.model == _BEST
        if auc["value"] == auc["value"]:
            mark = figures.Mark(auc["value"], auc["low"], auc["high"], 1 if alone else 0, hollow=alone)
            rows.append(figures.Dots(_title(run), (mark,)))
    caption = "AUC of patients with 95 % interval."
    if not rows:
        return None
    return figures.dots("figure-fusion", caption, "AUC of patients", rows, solid="fused", hollow="single")


def section(folder: read.Folder) -> dict[str, Any] | None:
    """What the page shows of fusion.

    Returns:
        A dict: table, figure, differences (a Table or None), told (sentences), patients (how many); None where it was
        not run.
    """
    runs = list(folder.fusion)
    lost = [one for one in folder.failed if one.name.partition("/")[0] == "fusion"]
    if not runs and not lost:
        return None
    scores = [metrics.evaluate(run.label, run.probability, run.patient) for run in runs]
    names = words.SCORE_NAMES
    rows = [
        (Cell(_title(run)), *(score(name, found["patient"][name]) for name in names))
        for run, found in zip(runs, scores, strict=True)
    ]
    rows += [
        instead(_TITLES.get(one.name.rpartition("/")[2], one.name), f"FAILED: {one.error}", 1 + len(names))
        for one in lost
    ]
    table = Table(
        "fusion", "Patients, by what the network knows of them", (results.FIRST, *map(Column, names.values())), rows
    )
    found = rival(runs, scores)
    differences, told = _differences(runs, *found) if found else (None, [])
    return {
        "table": table,
        "figure": _forest(runs, scores),
        "differences": differences,
        "told": told,
        "patients": max((s["num_patients"] for s in scores), default=0),
    }
