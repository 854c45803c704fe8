"""The section on calibration: whether a probability can be taken at its word."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lesion import metrics
from lesion.report import canvas, paper, plots, scored, tables, words

BINS = 10


def section(runs: Sequence[scored.Scored], *, num_resamples: int = 2000) -> dict[str, Any]:
    """Everything that the report says about calibration.

    Args:
        runs: scored runs; a row each.
        num_resamples: bootstrap draws.

    Returns:
        {"groups": one a sequence: {"sequence", "title", "rows": one a run, see `_row`, "verdicts"
        [(verdict, models)], "figures": one a run, "table"},
        "num_bins", "num_rows"}; no groups where there are no runs.
    """
    groups = []
    for sequence, some in scored.by_sequence(runs).items():
        rows = [_row(run, num_resamples) for run in some]
        groups.append(
            {
                "sequence": sequence,
                "title": paper.TITLES.get(sequence, sequence),
                "rows": rows,
                "verdicts": scored.verdicts((row["says"], row["model"]) for row in rows),
                "figures": [_figure(run, f"calibration-{sequence}-{i}") for i, run in enumerate(some)],
                "table": _table(sequence, rows),
            }
        )
    return {"groups": groups, "num_bins": BINS, "num_rows": sum(len(group["rows"]) for group in groups)}


def _table(sequence: str, rows: Sequence[dict[str, Any]]) -> tables.Table:
    headings = (
        "ECE, patients",
        "ECE by chance, up to",
        "Brier, patients",
        "Brier of the share alone",
        "Said / true glioma, %",
        "ECE, slices",
        "Brier, slices",
    )
    body = [(tables.text(row["model"]), *(tables.Cell(*pair) for pair in row["cells"].values())) for row in rows]
    caption = f"Calibration, {paper.TITLES.get(sequence, sequence)}; small print: 95 % interval over patients"
    columns = (tables.Column("Model", words=True), *map(tables.Column, headings))
    return tables.Table(scored.identifier("calibration", sequence), caption, columns, body)


def _row(run: scored.Scored, num_resamples: int) -> dict[str, Any]:
    """model, scores (`metrics.calibration_scores`), surer (mean confidence minus accuracy), cells as printed, says."""
    scores = metrics.calibration_scores(*scored.columns(run), bins=BINS, num_resamples=num_resamples)
    label, probability, _ = metrics.patient_means(*scored.columns(run))
    called = probability > metrics.THRESHOLD
    surer = float(np.maximum(probability, 1 - probability).mean() - (called == label).mean())
    patient = scores["patient"]
    cells = {
        "ece": number(patient["ece"]),
        "chance": (f"{scores['chance']['high']:.3f}", ""),
        "brier": number(patient["brier"]),
        "share": (f"{patient['brier_share']:.3f}", ""),
        "means": (f"{100 * patient['predicted']:.0f} / {100 * patient['observed']:.0f}", ""),
        "slice_ece": number(scores["slice"]["ece"]),
        "slice_brier": number(scores["slice"]["brier"]),
    }
    return {"model": run.model, "scores": scores, "surer": surer, "cells": cells, "says": verdict(scores, surer)}


def verdict(scores: dict[str, Any], surer: float) -> str:
    """What a reader should conclude of the patients' probabilities, and no more."""
    ece, chance, brier = (scores[k] if k == "chance" else scores["patient"][k] for k in ("ece", "chance", "brier"))
    if not np.isfinite(chance["high"]):
        return "cannot be told"
    if ece["value"] <= chance["high"]:
        text = "no miscalibration shown"
    else:
        text = "too sure of itself" if surer > 0 else "right more often than it says"
    if brier["low"] > scores["patient"]["brier_share"]:
        text += "; its probabilities are worse than always saying the share of glioma"
    return text


def number(entry: dict[str, float]) -> tuple[str, str]:
    """A score with three digits and its interval, as printed; an interval without a width is left out."""
    ends = f"{entry['low']:.3f} to {entry['high']:.3f}" if entry["low"] < entry["high"] else ""
    return (f"{entry['value']:.3f}" if np.isfinite(entry["value"]) else words.MISSING), ends


def _figure(run: scored.Scored, name: str) -> canvas.Drawing:
    by_patient = metrics.patient_means(*scored.columns(run))
    title = paper.TITLES.get(run.sequence, run.sequence)
    return plots.reliability(
        scored.identifier("figure", name),
        f"{run.model}, {title}. Bars: 95 % interval; above the dotted line there was more glioma than said.",
        metrics.reliability(*by_patient, bins=BINS),
        metrics.reliability(*scored.columns(run), bins=BINS),
        BINS,
    )
