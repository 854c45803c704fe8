"""Scores of readers, doctors who named a disease for each patient, and comparisons of a model with them.

A reader who names one of two diseases has one point on a ROC figure, not a curve, and therefore no AUC.
"""

from typing import Any

import numpy as np

from lesion.metrics.compare import common_patients, differences, mcnemar
from lesion.metrics.estimates import THRESHOLD
from lesion.metrics.scores import Columns, check_columns, evaluate, patient_means


def reader_scores(label: np.ndarray, call: np.ndarray, patient: np.ndarray) -> dict[str, Any]:
    """Returns a reader's scores with the intervals of `evaluate`.

    Args:
        label: [P] in {0, 1}, the truth.
        call: [P] in {0, 1}, the reader's answers.
        patient: [P] pseudonyms, each once.

    Returns:
        {"accuracy", "sensitivity", "specificity", "f1_weighted", "f1_positive": {"value", "low", "high"},
        "num_patients"}; NaN where a class is missing.

    Raises:
        ValueError: if shapes differ, a number is not 0 or 1, or a patient occurs twice.
    """
    label, call, patient = _check_calls(label, call, patient)
    scores = evaluate(label, call, patient)["patient"]
    return {name: own for name, own in scores.items() if name != "auc"} | {"num_patients": int(label.size)}


def model_vs_reader(model: Columns, reader: Columns) -> dict[str, Any]:
    """Returns a model's scores minus a reader's, on the patients that both judged.

    The model's call of a patient is that of the mean probability of its slices.

    Args:
        model: (label, probability, patient), each [N], of slices or patients.
        reader: (label, call in {0, 1}, patient), each [P].

    Returns:
        {"mcnemar": `McNemar`, the model first, "accuracy", "sensitivity", "specificity", "f1_weighted", "f1_positive":
        {"first", "second", "value", "low", "high"} and of shares "p", as in `differences`, "num_patients",
        "num_left_out"}.

    Raises:
        ValueError: as `common_patients` and `reader_scores`.
    """
    ours, theirs, left_out = common_patients(model, _check_calls(*reader))
    ours, theirs = patient_means(*ours), patient_means(*theirs)
    change = differences(ours, theirs)
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
