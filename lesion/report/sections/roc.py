"""ROC curves: each model on each sequence (Fig. 5), and each model beside the readers (Figs 6 to 8)."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from lesion import metrics
from lesion.report import figures, paper, words
from lesion.report.canvas import Drawing
from lesion.report.records import LEVELS, Folder, Predictions
from lesion.report.sections import transfer
from lesion.report.tables import triple

_PUBLISHED = "Hollow: the paper's radiologists on other patients, a guess from accuracy and F1 of its Table 6."
_HERE = "Filled: this cohort's readers, with 95 % intervals as crosses."
_POOLED = "all test folds pooled; beside each name its AUC with 95 % interval."


def reader_point(name: str, scores: dict[str, Any], short: str = "") -> list[figures.Point]:
    """Returns [the point] of a reader with these `metrics.reader_scores`; [] if a class was not judged."""
    sensitivity, specificity = triple(scores["sensitivity"]), triple(scores["specificity"])
    known = np.isfinite([sensitivity[0], specificity[0]]).all()
    return [figures.Point(name, sensitivity, specificity, short=short)] if known else []


def curves(runs: Iterable[tuple[Predictions, str, int]], level: str) -> list[figures.Roc]:
    """Returns the curve of each (run, name, style), labelled with name and AUC; runs with one class have none."""
    result = []
    for run, name, style in runs:
        label, probability, _ = run.columns(level)
        if np.unique(label).size == 2:
            value, low, high = triple(run.scores[level]["auc"])
            ends = f" ({words.interval('auc', low, high)})" if low < high else ""
            text = f"{name} {words.number('auc', value)}{ends}"
            result.append(figures.Roc(text, *metrics.roc_points(label, probability), style))
    return result


def _of_sequence(folder: Folder, sequence: str, level: str) -> Drawing | None:
    """Draws Fig. 5 of one sequence, with a curve for each model; None without a curve."""
    styles = transfer.model_styles(folder)
    lines = curves(((r, r.title, styles[r.model]) for r in folder.transfer if r.sequence == sequence), level)
    caption = f"{paper.sequence_title(sequence)}: ROC curves of {level}s, {_POOLED}"
    name = words.identifier("figure-5", sequence, level)
    return figures.roc(name, caption, lines, [], folder.classes) if lines else None


def _of_model(folder: Folder, model: str, level: str) -> Drawing | None:
    """Draws Fig. 6, 7 or 8, with a curve for each sequence, and at patient level a point for each reader."""
    runs = [run for run in folder.transfer if run.model == model]
    lines = curves(((r, r.sequence_title, transfer.sequence_style(r.sequence)) for r in runs), level)
    if not lines:
        return None
    caption, points = f"{runs[0].title or 'The network'}: ROC curves of {level}s, {_POOLED}", []
    if level == "patient":
        for reader in folder.readers:
            columns = reader.columns(runs[:1])
            points += reader_point(reader.name, metrics.reader_scores(*columns)) if columns[0].size else []
        for row in paper.readers_implied() if folder.classes.are_of_paper else ():
            sensitivity, specificity = ((share / 100, np.nan, np.nan) for share in row["implied"][-1])
            points.append(figures.Point(f"{row['name']} of the paper", sensitivity, specificity, published=True))
        caption += f" {_HERE}" * bool(folder.readers) + f" {_PUBLISHED}" * folder.classes.are_of_paper
    return figures.roc(words.identifier("figure-6", model or "network", level), caption, lines, points, folder.classes)


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that roc.html.j2 prints, or None if there are none."""
    models, sequences = (dict.fromkeys(getattr(run, name) for run in folder.transfer) for name in ("model", "sequence"))
    by_sequence = [_of_sequence(folder, s, level) for s in sequences for level in LEVELS] if len(models) > 1 else []
    by_model = [_of_model(folder, model, level) for model in models for level in LEVELS]
    if not any((*by_sequence, *by_model)):
        return None
    return {"by_sequence": list(filter(None, by_sequence)), "by_model": list(filter(None, by_model))}
