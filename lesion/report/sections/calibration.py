"""Calibration: whether predicted probabilities agree with observed shares."""

from typing import Any

import numpy as np

from lesion import metrics
from lesion.report import figures, paper, tables, words
from lesion.report.canvas import Drawing
from lesion.report.records import Folder, Predictions
from lesion.report.sections.comparison import by_sequence, group_verdicts
from lesion.report.tables import Cell, Table

BINS = 10
_INTERVALS = "Intervals: Brier score by Wilson's formula with its own variance, slope and intercept by Wald."


def overconfidence(run: Predictions) -> float:
    """Returns the mean confidence in the predicted class minus the accuracy, over patients."""
    label, probability, _ = run.columns("patient")
    called = probability > metrics.THRESHOLD
    return float(np.maximum(probability, 1 - probability).mean() - (called == label).mean())


def verdict(scores: dict[str, Any], overconfident: float, positive: str) -> str:
    """Returns the conclusion that the patients' probabilities support, in words.

    Args:
        scores: result of `metrics.calibration_scores`.
        overconfident: result of `overconfidence`.
        positive: name of the positive class.
    """
    patient, chance = scores["patient"], scores["chance"]["high"]
    if not np.isfinite(chance):
        return "cannot be told"
    if patient["ece"] <= chance:
        text = "no miscalibration shown"
    else:
        text = "overconfident" if overconfident > 0 else "right more often than predicted"
    if patient["brier"]["low"] > patient["brier_share"]:
        text += f"; its probabilities are worse than always predicting the share of {positive}"
    return text


def cell(entry: dict[str, float]) -> Cell:
    """Returns a score's cell, with three digits and the interval, which is left out if there is none."""
    value, low, high = tables.triple(entry)
    text = f"{value:.3f}" if np.isfinite(value) else words.MISSING
    ends = f"{low:.3f} to {high:.3f}" if low <= high else ""
    return Cell(text.replace("-", "−"), ends.replace("-", "−"), (value, low, high))


def _row(run: Predictions, scores: dict[str, Any]) -> dict[str, Any]:
    """Returns a run's row of the table of calibration scores."""
    patient, slices, positive = scores["patient"], scores["slice"], run.classes.positive
    parts = [patient["brier_parts"][name] for name in ("reliability", "resolution", "uncertainty")]
    return {
        "Model": run.title,
        "ECE, patients": f"{patient['ece']:.3f}",
        "ECE by chance, up to": f"{scores['chance']['high']:.3f}",
        "Brier, patients": cell(patient["brier"]),
        "Reliability − resolution + uncertainty": f"{parts[0]:.3f} − {parts[1]:.3f} + {parts[2]:.3f}",
        "Slope": cell(patient["slope"]),
        "Intercept": cell(patient["intercept"]),
        f"Predicted / true {positive}, %": f"{100 * patient['predicted']:.0f} / {100 * patient['observed']:.0f}",
        "ECE, slices": f"{slices['ece']:.3f}",
        "Brier, slices": cell(slices["brier"]),
    }


def figure(run: Predictions, name: str) -> Drawing:
    """Draws the reliability diagram of a run."""
    key = f"Bars: 95 % interval; above the dotted line there was more {run.classes.positive} than predicted."
    patients, slices = (metrics.reliability(*run.columns(level), bins=BINS) for level in ("patient", "slice"))
    return figures.reliability(name, f"{run.title}, {run.sequence_title}. {key}", patients, slices, BINS, run.classes)


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that calibration.html.j2 prints, or None if there are none."""
    groups = []
    for sequence, runs in by_sequence((*folder.transfer, *folder.baselines)).items():
        scored = [(run, metrics.calibration_scores(*run.columns("slice"), bins=BINS)) for run in runs]
        caption = f"Calibration, {paper.sequence_title(sequence)}; small print: 95 % interval over patients"
        rows = [_row(run, scores) for run, scores in scored]
        groups.append(
            {
                "title": paper.sequence_title(sequence),
                "verdicts": group_verdicts(
                    (verdict(scores, overconfidence(run), run.classes.positive), run.title) for run, scores in scored
                ),
                "table": Table(words.identifier("calibration", sequence), caption, rows, notes=[_INTERVALS]),
                "figures": [figure(r, words.identifier("figure-calibration", sequence, i)) for i, r in enumerate(runs)],
            }
        )
    return {"groups": groups, "num_bins": BINS} if groups else None
