"""The leakage panel: folds by patient or by slice, true or shuffled labels, and how much leaky folds flatter."""

import math
from typing import Any

from lesion import metrics
from lesion.report import figures, paper, recipe, tables, words
from lesion.report.records import LEAKAGE_TITLES, RANDOM, Folder, Predictions, has_random_weights
from lesion.report.tables import FAILED, FIRST, Table, triple

_SHOWN = {"accuracy": "Accuracy of slices, %", "auc": "AUC of slices"}
_ONCE = (
    "The labels were shuffled once, which is one draw of many; and as folds by patient are stratified by the true "
    "labels, a test fold that got more of one class leaves less of it to train on, which pushes the pooled AUC of "
    "shuffled labels below one half."
)


def flattery(low: float, high: float) -> str:
    """Returns the verdict of the interval of leaky minus honest accuracy."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "nothing can be shown"
    if low <= 0 <= high:
        return "no flattery shown, the interval includes 0"
    return "it flatters" if low > 0 else "it does not flatter here"


def on_shuffled_labels(low: float, high: float, *, leaky: bool) -> str:
    """Returns the verdict of the interval of an AUC on shuffled labels, in `leaky` folds or in folds by patient."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "cannot be told"
    if low > 0.5 and leaky:
        return "there is nothing to learn but whose slice it is, so this much is memorised"
    if low > 0.5:
        return "more than chance: something leaks here too"
    text = "below chance" if high < 0.5 else "not told from chance"
    return f"{text}: no memorising shown" if leaky else text


def _texts(title: str, runs: dict[str, Predictions], scores: dict[str, Any]) -> list[str]:
    """Returns the conclusions from the four cells, in words; the first names their training."""
    texts = []
    if {"leaky_true", "patient_true"} <= runs.keys():
        leaky, honest = (runs[cell].columns("slice") for cell in ("leaky_true", "patient_true"))
        try:
            change = triple(metrics.differences(leaky, honest)["slice"]["accuracy"])
            points, text = words.change("accuracy", *change), flattery(*change[1:])
            texts.append(f"on this cohort a leaky split changes the accuracy of slices by {points}: {text}.")
        except ValueError:  # no patient in common, or one with another label in each
            pass
    aucs = {cell: triple(entry["auc"]) for cell, entry in scores.items()}
    shown = {c: f"AUC {words.number('auc', a[0])} ({words.interval('auc', *a[1:])})" for c, a in aucs.items()}
    if "leaky_shuffled" in aucs:
        accuracy = words.number("accuracy", scores["leaky_shuffled"]["accuracy"]["value"])
        text = on_shuffled_labels(*aucs["leaky_shuffled"][1:], leaky=True)
        texts.append(f"labels dealt at random, leaky folds: accuracy {accuracy} %, {shown['leaky_shuffled']}: {text}.")
    if "patient_shuffled" in aucs:
        text = on_shuffled_labels(*aucs["patient_shuffled"][1:], leaky=False)
        texts.append(f"the same labels, folds by patient: {shown['patient_shuffled']}: {text}.")
    training = recipe.describe(runs.values())
    names = [f"{title} ({training})" if training else title] + [title] * len(texts)
    texts = [f"{name}: {text}" for name, text in zip(names, texts, strict=False)]
    return texts + [_ONCE] * ("patient_shuffled" in aucs)


def _panel(folder: Folder, sequence: str) -> dict[str, Any]:
    """Returns the values that leakage.html.j2 prints for one sequence."""
    runs = {run.model: run for run in folder.leakage if run.sequence == sequence}
    failed = {run.name: run.error for run in folder.failed}
    scores = {cell: metrics.mean_scores([run.columns("slice")]) for cell, run in runs.items()}
    rows, dots, name = [], [], paper.sequence_title(sequence)
    for cell, title in LEAKAGE_TITLES.items():
        if cell in runs:
            random, leaky = RANDOM if has_random_weights(runs[cell].config) else "", cell.startswith("leaky")
            cells = {heading: tables.score(score, scores[cell][score]) for score, heading in _SHOWN.items()}
            rows.append({FIRST: title + random} | cells)
            dots.append(figures.Dots(title, [figures.Mark(*triple(scores[cell]["auc"]), int(leaky), leaky)]))
        elif f"leakage/{sequence}/{cell}" in failed:
            rows.append({FIRST: title, FAILED: f"FAILED: {failed[f'leakage/{sequence}/{cell}']}"})
    options: dict[str, Any] = {"reference": ("chance", 0.5), "solid": "by patient", "hollow": "leaky"}
    caption = f"{name}: AUC of slices with 95 % interval over patients."
    figure = words.identifier("figure-leakage", sequence)
    return {
        "title": name,
        "table": Table(words.identifier("leakage", sequence), name, rows, [FIRST, *_SHOWN.values()]),
        "figure": figures.dots(figure, caption, "AUC of slices", dots, **options),
        "texts": _texts(name, runs, scores),
    }


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that leakage.html.j2 prints, or None if there are none."""
    known = [run.sequence for run in folder.leakage] + [run.levels[1] for run in folder.failed_of("leakage")]
    order = dict.fromkeys([*(s for s in paper.TITLES if s in known), *known])
    return {"sequences": [_panel(folder, sequence) for sequence in order]} if order else None
