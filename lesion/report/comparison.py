"""The section on comparisons: models of one sequence against one of them, and against readers, on the same patients."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lesion import metrics
from lesion.report import canvas, comparison_tables, figures, paper, plots, read, scored, words

ALPHA = 1 - metrics.LEVEL
SHARES = ("sensitivity", "specificity", "accuracy", "f1_glioma")


def section(
    runs: Sequence[scored.Scored],
    readers: Sequence[read.Reader] = (),
    *,
    reference: str | None = None,
    num_resamples: int = 2000,
) -> dict[str, Any]:
    """Everything that the report says about which model or reader is better.

    Args:
        runs: scored runs, one a model and sequence.
        readers: of readers.csv.
        reference: title of the model that the others are compared with, said before looking; None, or where a
            sequence does not have it: the first run of the sequence.
        num_resamples: bootstrap draws.

    Returns:
        {"groups": one a sequence with several models or with readers, see `_group`; "simulated" whether readers
        are made up by a phantom, "paper_readers" see `paper.readers_implied`}.

    Raises:
        ValueError: a patient has another label in two runs.
    """
    groups = [
        _group(sequence, some, readers, reference, num_resamples)
        for sequence, some in scored.by_sequence(runs).items()
        if len(some) > 1 or readers
    ]
    return {"groups": groups, "simulated": is_simulated(readers), "paper_readers": paper.readers_implied()}


def _group(
    sequence: str,
    runs: Sequence[scored.Scored],
    readers: Sequence[read.Reader],
    reference: str | None,
    num_resamples: int,
) -> dict[str, Any]:
    """One sequence.

    Returns:
        {"sequence", "title", "reference", "rows" (`against`), "verdicts" {what: [(verdict, models)]}, "num_tests",
        "apart" (models without a patient in common with the reference), "one_split", "forests" and "rocs" (drawings,
        the latter where there are readers), "readers" (`_reader_rows`), "duels" (`_duels`), "duel_verdicts" {reader:
        [(verdict, models)]}, "tables" {"models", "readers", "duels"}}.
    """
    first = next((run for run in runs if run.model == reference), runs[0])
    others = [run for run in runs if run is not first]
    paired = [run for run in others if np.isin(run.patient, first.patient).any()]
    rows = against(first, paired, num_resamples=num_resamples)
    splits = {run.config.get("split_hash") for run in runs} - {None}
    truth = {p: int(y) for run in runs for p, y in zip(run.patient, run.label, strict=True)}
    reader_rows = _reader_rows(readers, truth, num_resamples)
    duels = _duels([first, *others], reader_rows, num_resamples)
    return {
        "sequence": sequence,
        "title": paper.TITLES.get(sequence, sequence),
        "reference": first.model,
        "rows": rows,
        "verdicts": {
            title: scored.verdicts((row["says"][score], row["model"]) for row in rows)
            for score, title in (("auc", "AUC of patients"), ("accuracy", "Accuracy of patients"))
        },
        "num_tests": sum(bool(np.isfinite(p)) for row in rows for p in row["p"].values()),
        "apart": [run.model for run in others if not any(run is one for one in paired)],
        "one_split": len(splits) <= 1,
        "forests": _forests(sequence, first.model, rows),
        "rocs": _rocs(sequence, [first, *others], reader_rows) if reader_rows else [],
        "readers": reader_rows,
        "duels": duels,
        "duel_verdicts": {
            reader["name"]: scored.verdicts((d["says"], d["model"]) for d in duels if d["reader"] == reader["name"])
            for reader in reader_rows
        },
        "tables": {
            "models": comparison_tables.models(sequence, first.model, rows),
            "readers": comparison_tables.readers(sequence, reader_rows, simulated=is_simulated(readers)),
            "duels": comparison_tables.duels(sequence, duels),
        },
    }


def is_simulated(readers: Sequence[read.Reader]) -> bool:
    """Whether a phantom made the readers up."""
    return any(reader.name.startswith("simulated") for reader in readers)


def against(
    first: scored.Scored, others: Sequence[scored.Scored], *, num_resamples: int = 2000
) -> list[dict[str, Any]]:
    """Each other run minus `first`, on the patients that both scored; p corrected over all tests of the list (Holm).

    The runs need not be of one sequence: a fusion of sequences may be compared with the best single one.

    Returns:
        A row a run: {"model", "num_patients", "num_left_out", "auc", "accuracy": entries of `metrics.differences` at
        patient level, "slice_auc", "delong", "mcnemar", "p": {"auc" (DeLong), "accuracy" (McNemar)}, "adjusted":
        likewise, "cells" and "says" {"auc", "accuracy"} as printed, "shown" {"auc", "accuracy"}}.

    Raises:
        ValueError: no patient in common, or one with another label in each.
    """
    rows = []
    for run in others:
        found = metrics.differences(scored.columns(run), scored.columns(first), num_resamples=num_resamples)
        ours, theirs, _ = metrics.common(scored.columns(run), scored.columns(first))
        (label, ours_p, _), (_, theirs_p, _) = metrics.patient_means(*ours), metrics.patient_means(*theirs)
        delong = metrics.delong(label, ours_p, theirs_p)
        right = [(p > metrics.THRESHOLD) == label for p in (ours_p, theirs_p)]
        mcnemar = metrics.mcnemar(*right)
        rows.append(
            {
                "model": run.model,
                "num_patients": found["num_patients"],
                "num_left_out": found["num_left_out"],
                "auc": found["patient"]["auc"],
                "accuracy": found["patient"]["accuracy"],
                "slice_auc": found["slice"]["auc"],
                "delong": delong,
                "mcnemar": mcnemar,
                "p": {"auc": delong.p, "accuracy": mcnemar.p},
            }
        )
    adjusted = metrics.holm(np.array([row["p"][score] for row in rows for score in ("auc", "accuracy")])).reshape(-1, 2)
    for row, (auc, accuracy) in zip(rows, adjusted, strict=True):
        row["adjusted"] = {"auc": float(auc), "accuracy": float(accuracy)}
        row["cells"] = {score: difference(score, row[score]) for score in ("auc", "accuracy")}
        row["cells"]["slice_auc"] = difference("auc", row["slice_auc"])
        row["cells"]["p"] = {score: p_value(row["adjusted"][score]) for score in row["p"]}
        row["says"] = {score: verdict(row[score], row["adjusted"][score], first.model) for score in row["p"]}
        row["shown"] = {score: is_shown(row[score], row["adjusted"][score]) for score in row["p"]}
    return rows


def is_shown(entry: dict[str, float], adjusted: float) -> bool:
    """Whether a difference is shown: its interval leaves 0 out and its p, corrected for all tests, is below 5 %."""
    return bool((entry["low"] > 0 or entry["high"] < 0) and adjusted < ALPHA)


def verdict(entry: dict[str, float], adjusted: float, other: str) -> str:
    """What a reader should conclude of one difference, in words."""
    if not np.isfinite([entry["value"], entry["low"], entry["high"]]).all():
        return "cannot be told: too few patients or one class"
    if entry["low"] == entry["high"] == 0:
        return "the same in every draw"
    if entry["low"] <= 0 <= entry["high"]:
        return "no difference shown"
    if not np.isfinite(adjusted):
        return "no difference shown: the test has no answer"
    if adjusted >= ALPHA:
        return "no difference shown once all tests are counted"
    return ("better than " if entry["value"] > 0 else "worse than ") + other


def difference(score: str, entry: dict[str, float]) -> tuple[str, str]:
    """A difference and its interval as printed, which is empty where there is none."""
    kind = "auc" if score == "auc" else "accuracy"
    value, low, high = (words.signed(kind, entry[end]) for end in ("value", "low", "high"))
    return value, "" if words.MISSING in (low, high) else f"{low} to {high}"


def p_value(p: float) -> str:
    """Three digits, a dash where a test has no answer."""
    if not np.isfinite(p):
        return words.MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _reader_rows(readers: Sequence[read.Reader], truth: dict[str, int], num_resamples: int) -> list[dict[str, Any]]:
    """{"name", "short", "scores" (`metrics.reader_scores`), "cells", "columns"} of each reader of a scored patient."""
    rows = []
    for number, reader in enumerate(readers, start=1):
        known = np.isin(reader.patient, list(truth))
        if not known.any():
            continue
        label = np.array([truth[p] for p in reader.patient[known]])
        columns = label, reader.call[known], reader.patient[known]
        scores = metrics.reader_scores(*columns, num_resamples=num_resamples)
        cells = {
            name: (words.number(name, scores[name]["value"]), words.interval(name, *list(scores[name].values())[1:]))
            for name in SHARES
        }
        rows.append({"name": reader.name, "short": f"R{number}", "scores": scores, "cells": cells, "columns": columns})
    return rows


def _duels(runs: Sequence[scored.Scored], readers: list[dict[str, Any]], num_resamples: int) -> list[dict[str, Any]]:
    """Each model against each reader: {"model", "reader", "result", "adjusted" p, "cells" as printed, "says"}.

    "result" is of `metrics.against_reader`. The p of McNemar's tests are corrected over all of them (Holm).
    """
    rows: list[dict[str, Any]] = []
    for run in runs:
        for reader in readers:
            if not np.isin(reader["columns"][2], run.patient).any():
                continue
            found = metrics.against_reader(scored.columns(run), reader["columns"], num_resamples=num_resamples)
            rows.append({"model": run.model, "reader": reader["name"], "result": found})
    adjusted = metrics.holm(np.array([row["result"]["mcnemar"].p for row in rows]))
    for row, p in zip(rows, adjusted, strict=True):
        accuracy = row["result"]["accuracy"]
        row["adjusted"] = float(p)
        row["cells"] = {name: difference(name, row["result"][name]) for name in SHARES[:3]} | {"p": p_value(p)}
        row["says"] = verdict(accuracy, float(p), row["reader"])
    return rows


def _forests(sequence: str, reference: str, rows: list[dict[str, Any]]) -> list[canvas.Drawing]:
    result = []
    for score, (text, scale) in {"auc": ("AUC", 1), "accuracy": ("accuracy, points", 100)}.items():
        effects = []
        for row in rows:
            value, low, high = (scale * row[score][end] for end in ("value", "low", "high"))
            effects.append(plots.Effect(row["model"], value, low, high, row["shown"][score]))
        if any(np.isfinite(effect.value) for effect in effects):
            name = scored.identifier("forest", sequence, score)
            title = "AUC" if score == "auc" else "Accuracy"
            caption = f"{title} of patients minus that of {reference}, 95 % interval; filled: a difference is shown."
            sides = (f"{reference} better", "better")
            result.append(plots.forest(name, caption, f"difference in {text}", effects, sides))
    return result


def _rocs(sequence: str, runs: Sequence[scored.Scored], readers: list[dict[str, Any]]) -> list[canvas.Drawing]:
    """ROC curves of patients, the first run in every figure, readers in every one: Figs 6 to 8 in form."""
    points = [
        plots.Point(r["name"], r["short"], *(tuple(r["scores"][k].values()) for k in ("sensitivity", "specificity")))
        for r in readers
        if np.isfinite([r["scores"][k]["value"] for k in ("sensitivity", "specificity")]).all()
    ]
    curves = []
    for run in runs:
        label, probability, _ = metrics.patient_means(*scored.columns(run))
        if np.unique(label).size == 2:
            auc = metrics.evaluate(label, probability, np.arange(label.size), num_resamples=0)["patient"]["auc"]
            curves.append((f"{run.model} {words.number('auc', auc['value'])}", *metrics.roc_points(label, probability)))
    result = []
    width = plots.MOST_CURVES - 1
    for i, start in enumerate(range(0, max(len(curves) - 1, 1), width) if curves else ()):
        shown = [curves[0], *curves[1 + start : 1 + start + width]]
        drawn = [figures.Roc(*curve, style) for style, curve in enumerate(shown)]
        caption = f"ROC curves of patients, {paper.TITLES.get(sequence, sequence)}; beside each name its AUC."
        if points:
            caption += " Readers are points, with 95 % intervals as crosses."
        result.append(plots.roc(scored.identifier("roc-models", sequence, i), caption, drawn, points))
    return result
