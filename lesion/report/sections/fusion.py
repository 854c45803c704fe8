"""Fusion, the paper's future work: all three sequences of a patient against the best single one."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lesion.report import figures, paper, recipe, tables, words
from lesion.report.records import ALONE, BEST_SINGLE, FUSION_TITLES, RANDOM, Folder, Predictions, has_random_weights
from lesion.report.sections import comparison
from lesion.report.tables import FAILED, FIRST, Table, triple


def is_single(run: Predictions) -> bool:
    """Returns whether a run uses only one sequence of each patient."""
    return run.model.startswith(ALONE) or run.model == BEST_SINGLE


def _title(run: Predictions) -> str:
    """Returns the printed name of a way to fuse, or of a sequence alone."""
    alone = f"{run.sequence_title} alone" if run.sequence else ""
    title = alone or FUSION_TITLES.get(run.model, run.model.replace("_", " "))
    return title + (RANDOM if has_random_weights(run.config) else "")


def comparator(runs: Sequence[Predictions]) -> tuple[Predictions, str] | None:
    """Returns the run that fusion must beat and how it was chosen; None without a run on a single sequence."""
    for run in runs:
        if run.model == BEST_SINGLE:
            return run, "the sequence is chosen anew in every fold, from its training patients alone"
    alone = [run for run in runs if is_single(run)]
    best = max(alone, key=lambda run: run.scores["patient"]["auc"]["value"], default=None)
    return (best, "chosen by these very scores, which flatters it") if best else None


def _agree(run: Predictions, other: Predictions) -> bool:
    """Returns whether two runs share patients and agree on the labels of all of these."""
    truth = dict(zip(other.patient, other.label, strict=True))
    pairs = [(truth[p], y) for p, y in zip(run.patient, run.label, strict=True) if p in truth]
    return bool(pairs) and all(theirs == ours for theirs, ours in pairs)


def _differences(runs: Sequence[Predictions], first: Predictions, choice: str) -> tuple[Table | None, list[str]]:
    """Returns each way to fuse minus the best single sequence `first`, as a table (None if empty) and in words."""
    compared = comparison.compare(first, [run for run in runs if not is_single(run) and _agree(run, first)])
    rows = [
        {
            FIRST: title,
            "AUC": tables.difference("auc", found.patient["auc"]),
            "p, DeLong": words.p_value(found.adjusted["auc"]),
            "accuracy, points": tables.difference("accuracy", found.patient["accuracy"]),
            "discordant pairs": comparison.discordant_pairs(found.mcnemar),
            "p, McNemar": words.p_value(found.adjusted["accuracy"]),
        }
        for title, found, _ in compared
    ]
    notes = [
        f"{words.capital(first.title)}: {choice}.",
        words.DIFFERENCES,
        f"Both p columns are corrected for the {2 * len(compared)} tests of this table (Holm), the intervals are not.",
    ]
    table = Table("fusion-differences", f"Fused minus {first.title}, the same patients", rows, notes=notes)
    changes = [words.change("auc", *triple(row.found.patient["auc"])) for row in compared]
    texts = [f"{r.title}: AUC {change}: {r.verdicts['auc']}" for r, change in zip(compared, changes, strict=True)]
    return table if rows else None, texts


def _choice_text(metrics: Mapping[str, Any]) -> str:
    """Returns which sequence was the best single one in how many folds, and the AUCs that decided it, in words."""
    counts = collections.Counter(metrics["chosen"]).most_common()
    folds = ", ".join(f"{paper.sequence_title(name)} in {words.plural(count, 'fold')}" for name, count in counts)
    means = {name: np.mean([scores[name]["auc"] for scores in metrics["inner"]]) for name in metrics["inner"][0]}
    aucs = ", ".join(f"{paper.sequence_title(name)} {words.number('auc', auc)}" for name, auc in means.items())
    text = f"The best single sequence, chosen from the training patients of each fold: {folds}"
    return f"{text}; AUC within them, mean over folds: {aucs}."


def _attention_text(metrics: Mapping[str, Any]) -> str:
    """Returns each sequence's share of the attention beside its share of the slices, in words."""
    shares = ", ".join(
        f"{paper.sequence_title(name)} {100 * share:.0f} % of it ({100 * metrics['slices'][name]:.0f} % of the slices)"
        for name, share in metrics["attention"].items()
    )
    return f"Attention, mean over patients: {shares}. A share says where the network looked, not what helped."


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that fusion.html.j2 prints, or None if there are none."""
    failed = folder.failed_of("fusion")
    if not folder.fusion and not failed:
        return None
    runs = [dataclasses.replace(run, title=_title(run)) for run in folder.fusion]
    rows: list[dict[str, Any]] = []
    headings = words.score_names(folder.classes)
    dots, notes = [], [words.INTERVALS]
    for run in runs:
        # Number of patients without the sequence.
        lack = run.metrics.get("fell_back", run.metrics.get("lack_the_sequence", words.MISSING))
        scores = {heading: tables.score(n, run.scores["patient"][n]) for n, heading in headings.items()}
        rows.append({FIRST: run.title} | scores | {"Lack it": lack})
        auc, single = triple(run.scores["patient"]["auc"]), is_single(run)
        dots.append(figures.Dots(run.title, [figures.Mark(*auc, int(single), single)]))
    rows += [{FIRST: run.name, FAILED: f"FAILED: {run.error}"} for run in failed]
    if any(run.metrics.get("lack_the_sequence") for run in runs):
        notes.append(
            "Lack it: patients without this sequence. Alone it tells nothing of them, so they got the share of "
            f"{folder.classes.positive} among those trained on, which draws its AUC towards one half."
        )
    if any(run.metrics.get("fell_back") for run in runs):
        notes.append("Of the best single sequence: who lacks the one chosen got the next best that they have.")
    columns = [FIRST, *headings.values(), "Lack it"]
    best = comparator(runs)
    differences, verdicts = _differences(runs, *best) if best else (None, [])
    x_label = "AUC of patients"
    caption = f"{x_label} with 95 % interval."
    return {
        "table": Table("fusion", "Patients, by what the network knows of them", rows, columns, notes=notes),
        "figure": figures.dots("figure-fusion", caption, x_label, dots, solid="fused", hollow="single"),
        "differences": differences,
        "verdicts": verdicts,
        "texts": [_choice_text(run.metrics) for run in runs if "chosen" in run.metrics]
        + [_attention_text(run.metrics) for run in runs if "attention" in run.metrics],
        "training": recipe.describe(runs),
        "patients": max((run.scores["num_patients"] for run in runs), default=0),
    }
