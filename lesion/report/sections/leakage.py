"""The leakage panel: folds by patient or by slice, how much leaky folds flatter, and a permutation test of labels."""

import math
from collections.abc import Mapping
from typing import Any

from lesion import metrics
from lesion.report import figures, paper, recipe, tables, words
from lesion.report.records import LEAKAGE_TITLES, LEVELS, RANDOM, Experiment, Folder, Predictions, has_random_weights
from lesion.report.tables import FAILED, FIRST, Table, triple

_SHOWN = {"accuracy": "Accuracy of slices, %", "auc": "AUC of slices"}


def flattery(low: float, high: float) -> str:
    """Returns the verdict of the interval of leaky minus honest accuracy."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "nothing can be shown"
    if low <= 0 <= high:
        return "no flattery shown, the interval includes 0"
    return "it flatters" if low > 0 else "it does not flatter here"


def on_shuffled_labels(low: float, high: float) -> str:
    """Returns the verdict of the interval of an AUC on shuffled labels in leaky folds."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "cannot be told"
    if low > 0.5:
        return "there is nothing to learn but whose slice it is, so this much is memorised"
    return f"{'below chance' if high < 0.5 else 'not told from chance'}: no memorising shown"


def on_permutations(level: Mapping[str, float]) -> str:
    """Returns the verdict of one level of a permutation test, see `transfer.permutation.run_permutation`."""
    if level["mean"] - 3 * level["error"] > 0.5:
        return "shuffled labels are told better than by chance: something leaks"
    if level["p"] < 1 - metrics.LEVEL:
        return "the true labels are told better than shuffled ones"
    return "the true labels are not told better than shuffled ones"


def _permutation_text(title: str, run: Experiment) -> str:
    """Returns the conclusion from a permutation test, in words."""
    found = run.metrics["patient"]
    aucs = [words.number("auc", found[name]) for name in ("true", "low", "high", "mean")]
    return (
        f"{title}: the patients' labels shuffled {run.metrics['num_shuffles']} times, folds by patient dealt anew each "
        f"time; {run.metrics['head']}, not the network above: AUC of patients with the true labels {aucs[0]}, 95 % of "
        f"the shuffles {aucs[1]} to {aucs[2]}, mean {aucs[3]}, p = {words.p_value(found['p'])}: "
        f"{on_permutations(found)}."
    )


def _permutation_table(title: str, sequence: str, run: Experiment) -> Table:
    """Returns the table of a permutation test."""
    rows = [
        {
            FIRST: f"AUC of {level}s",
            "True labels": words.number("auc", found["true"]),
            "Shuffled labels, mean": words.number("auc", found["mean"]),
            "95 % of the shuffles": words.interval("auc", found["low"], found["high"]),
            "p": words.p_value(found["p"]),
        }
        for level, found in ((level, run.metrics[level]) for level in LEVELS)
    ]
    caption = f"{title}: permutation test, {run.metrics['head']}"
    return Table(words.identifier("permutation", sequence), caption, rows)


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
        text = on_shuffled_labels(*aucs["leaky_shuffled"][1:])
        texts.append(f"labels dealt at random, leaky folds: accuracy {accuracy} %, {shown['leaky_shuffled']}: {text}.")
    training = recipe.describe(runs.values())
    names = [f"{title} ({training})" if training else title] + [title] * len(texts)
    return [f"{name}: {text}" for name, text in zip(names, texts, strict=False)]


def _panel(folder: Folder, sequence: str) -> dict[str, Any]:
    """Returns the values that leakage.html.j2 prints for one sequence."""
    runs = {run.model: run for run in folder.leakage if run.sequence == sequence}
    tests = [run for run in folder.permutation if run.sequence == sequence]
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
    if f"permutation/{sequence}" in failed:
        rows.append({FIRST: "permutation test", FAILED: f"FAILED: {failed[f'permutation/{sequence}']}"})
    caption = f"{name}: AUC of slices with 95 % interval over patients."
    figure, table = (words.identifier(name, sequence) for name in ("figure-leakage", "leakage"))
    return {
        "title": name,
        "table": Table(table, name, rows, [FIRST, *_SHOWN.values()], notes=[words.INTERVALS]) if rows else None,
        "permutations": [_permutation_table(name, sequence, run) for run in tests],
        "figure": figures.dots(figure, caption, "AUC of slices", dots, **options),
        "texts": _texts(name, runs, scores) + [_permutation_text(name, run) for run in tests],
    }


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that leakage.html.j2 prints, or None if there are none."""
    failed = [*folder.failed_of("leakage"), *folder.failed_of("permutation")]
    known = [run.sequence for run in (*folder.leakage, *folder.permutation)] + [run.levels[1] for run in failed]
    order = dict.fromkeys([*(s for s in paper.TITLES if s in known), *known])
    return {"sequences": [_panel(folder, sequence) for sequence in order]} if order else None
