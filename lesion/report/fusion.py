"""Fusion, the paper's future work: does knowing all three sequences of a patient beat knowing the best one?"""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np

from lesion import metrics
from lesion.report import comparison, figures, read, recipe, results, words
from lesion.report.canvas import Drawing
from lesion.report.read.files import called, part
from lesion.report.tables import Cell, Column, Table, change, instead, score, text, triple

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


def _comparable(run: read.Run, first: read.Run) -> bool:
    """Whether they share a patient and call none of them differently."""
    truth = dict(zip(first.patient, first.label, strict=True))
    pairs = [(truth[p], y) for p, y in zip(run.patient, run.label, strict=True) if p in truth]
    return bool(pairs) and all(theirs == ours for theirs, ours in pairs)


def _differences(runs: list[read.Run], against: int, why: str) -> tuple[Table | None, list[str]]:
    """Each way of fusing minus the best single sequence, and the same in words."""
    first, name = runs[against], _title(runs[against])
    fused = [run for run in runs if not run.model.startswith(_ALONE) and run is not first and _comparable(run, first)]
    found = comparison.against(first._replace(model=name), [run._replace(model=_title(run)) for run in fused])
    rows = [
        (
            Cell(row["model"]),
            change("auc", triple(row["auc"])),
            text(row["cells"]["p"]["auc"]),
            change("accuracy", triple(row["accuracy"])),
            text(f"{row['mcnemar'].first_only} : {row['mcnemar'].second_only}"),
            text(row["cells"]["p"]["accuracy"]),
        )
        for row in found
    ]
    headings = ("AUC", "p, DeLong", "accuracy, points", "right alone", "p, McNemar")
    notes = (
        f"{name[:1].upper()}{name[1:]}: {why}.",
        f"Both p columns are corrected for the {2 * len(found)} tests of this table (Holm), the intervals are not.",
    )
    caption = f"Fused minus {name}, the same patients"
    table = Table("fusion-differences", caption, (results.FIRST, *map(Column, headings)), rows, notes=notes)
    told = [f"{r['model']}: AUC {words.change('auc', triple(r['auc']))}: {r['says']['auc']}" for r in found]
    return (table if rows else None), told


def _lack(run: read.Run) -> str:
    """How many patients a single sequence could say nothing of."""
    count = run.metrics.get("fell_back" if run.model == _BEST else "lack_the_sequence")
    return str(count) if isinstance(count, int) else words.MISSING


def _lacking(runs: list[read.Run]) -> tuple[str, ...]:
    """What became of the patients who lack a sequence, where any do."""
    told = []
    if any(run.model.startswith(_ALONE) and run.metrics.get("lack_the_sequence") for run in runs):
        told.append(
            "Lack it: patients without this sequence. Alone it tells nothing of them, so they got the share of gliomas "
            "among those trained on, which draws its AUC towards one half."
        )
    if any(run.model == _BEST and run.metrics.get("fell_back") for run in runs):
        told.append("Of the best single sequence: who lacks the one chosen got the next best that they have.")
    return tuple(told)


def _chosen(metrics_: Mapping[str, Any]) -> list[str]:
    """Which sequence was the best single one in each fold, and by which scores."""
    chosen, inner = metrics_.get("chosen"), metrics_.get("inner")
    if not isinstance(chosen, list) or not chosen:
        return []
    counts = collections.Counter(map(str, chosen)).most_common()
    folds = ", ".join(f"{results.title(name)} in {words.plural(count, 'fold')}" for name, count in counts)
    told = f"The best single sequence, chosen from the training patients of each fold: {folds}"
    if isinstance(inner, list) and inner:
        means = {name: np.mean([scores[name]["auc"] for scores in inner]) for name in inner[0]}
        aucs = ", ".join(f"{results.title(name)} {words.number('auc', auc)}" for name, auc in means.items())
        told += f"; AUC within them, mean over folds: {aucs}"
    return [f"{told}."]


def _attended(metrics_: Mapping[str, Any]) -> list[str]:
    """How much of the attention each sequence got, beside its share of the slices."""
    attention, slices = part(dict(metrics_), "attention"), part(dict(metrics_), "slices")
    if not attention or attention.keys() != slices.keys():
        return []
    shares = ", ".join(
        f"{results.title(name)} {100 * share:.0f} % of it ({100 * slices[name]:.0f} % of the slices)"
        for name, share in attention.items()
    )
    return [f"Attention, mean over patients: {shares}. A share says where the network looked, not what helped."]


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
        A dict: table, figure, differences (a Table or None), told (verdicts), parts (sentences on what was chosen and
        attended to), recipe, patients (how many); None where it was not run.
    """
    runs = list(folder.fusion)
    lost = [one for one in folder.failed if one.name.partition("/")[0] == "fusion"]
    if not runs and not lost:
        return None
    scores = [metrics.evaluate(run.label, run.probability, run.patient) for run in runs]
    names = words.SCORE_NAMES
    rows = [
        (Cell(_title(run)), *(score(name, found["patient"][name]) for name in names), text(_lack(run)))
        for run, found in zip(runs, scores, strict=True)
    ]
    rows += [
        instead(_TITLES.get(one.name.rpartition("/")[2], one.name), f"FAILED: {one.error}", 2 + len(names))
        for one in lost
    ]
    columns = (results.FIRST, *map(Column, names.values()), Column("Lack it"))
    table = Table("fusion", "Patients, by what the network knows of them", columns, rows, notes=_lacking(runs))
    found = rival(runs, scores)
    differences, told = _differences(runs, *found) if found else (None, [])
    return {
        "table": table,
        "figure": _forest(runs, scores),
        "differences": differences,
        "told": told,
        "parts": [said for run in runs for said in (*_chosen(run.metrics), *_attended(run.metrics))],
        "recipe": recipe.told(runs),
        "patients": max((s["num_patients"] for s in scores), default=0),
    }
