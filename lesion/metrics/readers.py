"""Scores of readers, doctors who named a disease for each patient, and comparisons of a model with them.

A reader who names one of two diseases has one point on a ROC figure, not a curve, and therefore no AUC.
"""

from typing import Any

import numpy as np

from lesion.metrics.compare import Columns, common_patients, differences, mcnemar
from lesion.metrics.intervals import wilson
from lesion.metrics.scores import THRESHOLD, check_columns, evaluate, patient_means

_CLASSES_OF_SHARE = {"accuracy": (0, 1), "sensitivity": (1,), "specificity": (0,)}


def reader_scores(
    label: np.ndarray, call: np.ndarray, patient: np.ndarray, *, num_resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Returns a reader's scores: shares with Wilson's 95 % intervals, F1 with the bootstrap of `evaluate`.

    Args:
        label: [P] in {0, 1}, the truth.
        call: [P] in {0, 1}, the reader's answers.
        patient: [P] pseudonyms, each once.
        num_resamples: number of bootstrap draws for F1.
        seed: random seed of the draws.

    Returns:
        {"accuracy", "sensitivity", "specificity", "f1_weighted", "f1_positive": {"value", "low", "high"},
        "num_patients"}; NaN where a class is missing.

    Raises:
        ValueError: if shapes differ, a number is not 0 or 1, or a patient occurs twice.
    """
    label, call, patient = _check_calls(label, call, patient)
    bootstrap = evaluate(label, call, patient, num_resamples=num_resamples, seed=seed)["patient"]
    result: dict[str, Any] = {name: bootstrap[name] for name in ("f1_weighted", "f1_positive")}
    for name, classes in _CLASSES_OF_SHARE.items():
        among = np.isin(label, classes)
        share = float((call == label)[among].mean()) if among.any() else float("nan")
        low, high = wilson(np.nan_to_num(share), among.sum())
        result[name] = {"value": share, "low": float(low), "high": float(high)}
    return result | {"num_patients": int(label.size)}


def model_vs_reader(model: Columns, reader: Columns, *, num_resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Returns a model's scores minus a reader's, on the patients that both judged.

    The model's call of a patient is that of the mean probability of its slices.

    Args:
        model: (label, probability, patient), each [N], of slices or patients.
        reader: (label, call in {0, 1}, patient), each [P].
        num_resamples: number of bootstrap draws.
        seed: random seed of the draws.

    Returns:
        {"mcnemar": `McNemar`, the model first, "accuracy", "sensitivity", "specificity", "f1_weighted", "f1_positive":
        {"first", "second", "value", "low", "high", "p"} as in `differences`, "num_patients", "num_left_out"}.

    Raises:
        ValueError: as `common_patients` and `reader_scores`.
    """
    ours, theirs, left_out = common_patients(model, _check_calls(*reader))
    ours, theirs = patient_means(*ours), patient_means(*theirs)
    change = differences(ours, theirs, num_resamples=num_resamples, seed=seed)
    test = mcnemar((ours[1] > THRESHOLD) == ours[0], (theirs[1] > THRESHOLD) == theirs[0])
    scores = {name: entry for name, entry in change["patient"].items() if name != "auc"}
    return {"mcnemar": test, **scores, "num_patients": change["num_patients"], "num_left_out": left_out}


def _check_calls(label: np.ndarray, call: np.ndarray, patient: np.ndarray) -> Columns:
    label, call, patient = check_columns(label, call, patient)
    if not np.isin(call, (0, 1)).all():
        raise ValueError("a reader's calls must be 0 or 1")
    if np.unique(patient).size < patient.size:
        raise ValueError("a reader has two calls for one patient")
    return label, call, patient
