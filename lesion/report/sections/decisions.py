"""What a threshold buys: operating points, predictive values at a prevalence, decision curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lesion import metrics
from lesion.report import figures, paper, tables, words
from lesion.report.canvas import Drawing
from lesion.report.records import Folder, Predictions
from lesion.report.sections.comparison import MOST_CURVES, by_sequence
from lesion.report.tables import Table

THRESHOLDS = np.arange(1, 100) / 100
_LOWEST = -0.05  # net benefit, lower end of the figures
_OTHER = {"specificity": "sensitivity", "sensitivity": "specificity"}


def fold_of_patients(run: Predictions) -> np.ndarray:
    """Returns the fold that tested each patient, in the order of `run.columns("patient")`."""
    names, first = np.unique(run.patient, return_index=True)
    assert (names == run.columns("patient")[2]).all(), names.size
    return run.fold[first]


def _prevalence(folder: Folder, run: Predictions) -> float:
    """Returns the prevalence asked for, else the cohort's own."""
    return float(run.columns("patient")[0].mean()) if folder.prevalence is None else folder.prevalence


def _row(folder: Folder, run: Predictions) -> dict[Any, Any]:
    """Returns a run's row: the points at a fixed specificity and at a fixed sensitivity, each with what follows."""
    label, probability, _ = run.columns("patient")
    row: dict[Any, Any] = {"Model": run.title}
    for fixed, other in _OTHER.items():
        point = metrics.operating_point(label, probability, fold_of_patients(run), fixed)
        sensitivity, specificity = (point[score]["value"] for score in ("sensitivity", "specificity"))
        predictive = metrics.predictive_values(sensitivity, specificity, _prevalence(folder, run))
        group = f"threshold for a {fixed} of {100 * metrics.AIM:.0f} %"
        row |= {(group, f"{words.capital(score)}, %"): tables.score(score, point[score]) for score in (other, fixed)}
        names = zip(("PPV, %", "NPV, %"), predictive, strict=True)
        row |= {(group, name): words.number("accuracy", value) for name, value in names}
    return row


def _line(label: str, height: np.ndarray, style: int) -> figures.Line:
    """Returns a line over `THRESHOLDS`, in per cent, without a band."""
    return figures.Line(label, 100 * THRESHOLDS, height, height, height, style)


def _curves(folder: Folder, sequence: str, runs: Sequence[Predictions]) -> Drawing:
    """Draws the decision curves of patients of the first runs, and that of calling all positive."""
    lines, every = [], np.zeros_like(THRESHOLDS)
    for style, run in enumerate(runs[:MOST_CURVES]):
        label, probability, _ = run.columns("patient")
        model, every = metrics.net_benefit(label, probability, THRESHOLDS, _prevalence(folder, run))
        lines.append(_line(run.title, model, style))
    lines.append(_line(f"all {runs[0].classes.positive}", every, len(lines)))
    highest = max(float(line.mean.max()) for line in lines)
    return figures.lines(
        words.identifier("decision-curves", sequence),
        f"{paper.sequence_title(sequence)}: net benefit of patients; without intervals.",
        f"threshold of the probability of {runs[0].classes.positive}, %",
        "net benefit",
        lines,
        limits=(_LOWEST, 1.08 * highest),
        reference=("none", 0.0),
    )


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that decisions.html.j2 prints, or None if there are none."""
    groups = []
    for sequence, runs in by_sequence((*folder.transfer, *folder.baselines)).items():
        known = [run for run in runs if _can_be_judged(run)]
        if known:
            title, name = paper.sequence_title(sequence), words.identifier("operating-points", sequence)
            rows = [_row(folder, run) for run in known]
            share = words.number("accuracy", _prevalence(folder, known[0]))
            caption = f"{title}: patients, PPV and NPV at a prevalence of {share} % {known[0].classes.positive}"
            table = Table(name, caption, rows, notes=[words.INTERVALS])
            groups.append({"title": title, "table": table, "figure": _curves(folder, sequence, known)})
    return {"groups": groups, "given": folder.prevalence is not None} if groups else None


def _can_be_judged(run: Predictions) -> bool:
    """Returns whether patients are in one fold each, and every fold's others have both classes."""
    if run.splits_patients:
        return False
    label, fold = run.columns("patient")[0], fold_of_patients(run)
    return all(np.unique(label[fold != own]).size == 2 for own in np.unique(fold))
