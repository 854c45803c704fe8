"""Readers: doctors who named a disease for each patient, and whether a model does better on the same patients.

A reader who names one of two diseases has one point on a ROC figure and no curve; an AUC is not made up for them.
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
    """Returns a reader's scores: shares with Wilson's 95 % interval, F1 with `evaluate`'s bootstrap.

    Args:
        label: [P] in {0, 1}, the truth.
        call: [P] in {0, 1}, the reader's answers.
        patient: [P] pseudonyms, each once.
        num_resamples: bootstrap draws for F1.
        seed: of the draws.

    Returns:
        {"accuracy", "sensitivity", "specificity", "f1_weighted", "f1_glioma": {"value", "low", "high"},
        "num_patients"}; NaN where a class is not there.

    Raises:
        ValueError: shapes differ, another number than 0 and 1, a patient twice.
    """
    label, call, patient = _check_calls(label, call, patient)
    bootstrap = evaluate(label, call, patient, num_resamples=num_resamples, seed=seed)["patient"]
    result: dict[str, Any] = {name: bootstrap[name] for name in ("f1_weighted", "f1_glioma")}
    for name, classes in _CLASSES_OF_SHARE.items():
        among = np.isin(label, classes)
        share = float((call == label)[among].mean()) if among.any() else float("nan")
        low, high = wilson(np.nan_to_num(share), among.sum())
        result[name] = {"value": share, "low": float(low), "high": float(high)}
    return result | {"num_patients": int(label.size)}


def model_vs_reader(model: Columns, reader: Columns, *, num_resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Returns a model's scores minus a reader's, on the patients that both judged.

    The model calls a patient by its mean probability.

    Args:
        model: (label, probability, patient), each [N], slices or patients.
        reader: (label, call in {0, 1}, patient), each [P].
        num_resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        {"mcnemar": `McNemar`, the model first, "accuracy", "sensitivity", "specificity", "f1_weighted", "f1_glioma":
        {"first", "second", "value", "low", "high", "p"} as of `differences`, "num_patients", "num_left_out"}.

    Raises:
        ValueError: as `common_patients` and `reader_scores`.
    """
    ours, theirs, left_out = common_patients(model, _check_calls(*reader))
    ours, theirs = patient_means(*ours), patient_means(*theirs)
    found = differences(ours, theirs, num_resamples=num_resamples, seed=seed)
    test = mcnemar((ours[1] > THRESHOLD) == ours[0], (theirs[1] > THRESHOLD) == theirs[0])
    scores = {name: entry for name, entry in found["patient"].items() if name != "auc"}
    return {"mcnemar": test, **scores, "num_patients": found["num_patients"], "num_left_out": left_out}


def _check_calls(label: np.ndarray, call: np.ndarray, patient: np.ndarray) -> Columns:
    label, call, patient = check_columns(label, call, patient)
    if not np.isin(call, (0, 1)).all():
        raise ValueError("a reader's calls must be 0 or 1")
    if np.unique(patient).size < patient.size:
        raise ValueError("a reader has two calls for one patient")
    return label, call, patient
