"""ROC figures: each model on each sequence (Fig. 5), and each model beside the readers (Figs 6 to 8)."""

from typing import Any

import numpy as np

from lesion import metrics
from lesion.report import figures, paper, read, results, words
from lesion.report.canvas import Drawing
from lesion.report.resample import columns

_PUBLISHED = "Hollow: the paper's radiologists on other patients, a guess from accuracy and F1 of its Table 6."
_HERE = "Filled: this cohort's readers."
_POOLED = "all test folds pooled; beside each name its AUC with 95 % interval."


def _curve(summary: dict[str, Any], level: str, label: str, style: int) -> figures.Roc | None:
    """One curve with its AUC beside its name, None with one class only."""
    truth, probability, _ = columns(summary["run"], level)
    if np.unique(truth).size < 2:
        return None
    auc = summary["scores"][level]["auc"]
    text = f"{label} {words.number('auc', auc['value'])}"
    if auc["low"] < auc["high"]:
        text += f" ({words.interval('auc', auc['low'], auc['high'])})"
    return figures.Roc(text, *metrics.roc_points(truth, probability), style)


def reader_point(reader: read.Reader, run: read.Run) -> figures.Point | None:
    """A reader's rates on the patients that both judged; None where a class is not among them."""
    truth, _, patients = columns(run, "patient")
    _, ours, theirs = np.intersect1d(patients, reader.patient, return_indices=True)
    truth, calls = truth[ours], reader.call[theirs]
    if np.unique(truth).size < 2:
        return None
    return figures.Point(reader.name, float(calls[truth == 0].mean()), float(calls[truth == 1].mean()), False)


def _points(folder: read.Folder, run: read.Run) -> tuple[figures.Point, ...]:
    ours = [p for reader in folder.readers if (p := reader_point(reader, run)) is not None]
    theirs = [
        figures.Point(f"{one['name']} of the paper", 1 - specificity / 100, sensitivity / 100, True)
        for one in paper.readers_implied()
        for sensitivity, specificity in one["implied"][-1:]
    ]
    return (*ours, *theirs)


def by_sequence(summaries: list[dict[str, Any]], styles: dict[str, int]) -> list[Drawing]:
    """Fig. 5: one figure a sequence and level, a curve a model; none where there is one model only."""
    result = []
    if len({s["run"].model for s in summaries}) < 2:
        return []
    for sequence in dict.fromkeys(s["sequence"] for s in summaries):
        for level in results.LEVELS:
            own = [s for s in summaries if s["sequence"] == sequence]
            found = [_curve(s, level, s["model"], styles[s["run"].model]) for s in own]
            curves = [curve for curve in found if curve]
            if curves:
                caption = f"{results.title(sequence)}: ROC curves of {level}s, {_POOLED}"
                result.append(figures.roc(results.slug("figure-5", sequence, level), caption, curves))
    return result


def by_model(folder: read.Folder, summaries: list[dict[str, Any]]) -> list[Drawing]:
    """Figs 6 to 8: one figure a model and level, a curve a sequence, readers as points where patients are judged."""
    result = []
    for model in dict.fromkeys(s["run"].model for s in summaries):
        own = [s for s in summaries if s["run"].model == model]
        for level in results.LEVELS:
            found = [_curve(s, level, s["title"], min(s["style"], 4)) for s in own]
            curves = [curve for curve in found if curve]
            if not curves:
                continue
            points = _points(folder, own[0]["run"]) if level == "patient" else ()
            caption = f"{own[0]['model'] or 'The network'}: ROC curves of {level}s, {_POOLED}"
            if points:
                caption += f" {_HERE} {_PUBLISHED}" if folder.readers else f" {_PUBLISHED}"
            name = results.slug("figure-6", model or "network", level)
            result.append(figures.roc(name, caption, curves, points))
    return result
