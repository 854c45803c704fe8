"""Scores of slices and patients with intervals over patients, see `lesion.metrics`."""

from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from lesion.metrics.estimates import Estimate, ends, estimates

SCORES = ("accuracy", "auc", "f1_weighted", "f1_positive", "sensitivity", "specificity")
LEVELS = ("slice", "patient")
Columns = tuple[np.ndarray, np.ndarray, np.ndarray]  # label, probability, patient, each [N], of one model


def check_columns(
    label: np.ndarray, probability: np.ndarray, patient: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the three columns [N] as arrays; raises a ValueError if they cannot be scored."""
    label, patient = np.asarray(label), np.asarray(patient)
    probability = np.asarray(probability, np.float64)
    if label.ndim != 1 or not label.shape == probability.shape == patient.shape:
        raise ValueError(f"want three columns [N], got {label.shape}, {probability.shape}, {patient.shape}")
    if not label.size:
        raise ValueError("no predictions to evaluate")
    if not np.isin(label, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {np.unique(label)}; leave unlabelled slices out")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probabilities must be finite and within [0, 1]")
    return label.astype(np.int64), probability, patient


def patient_means(
    label: np.ndarray, probability: np.ndarray, patient: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns one row for each patient, with the mean probability over the patient's slices.

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma.
        patient: [N] pseudonyms.

    Returns:
        label int64 [P], probability float64 [P], patient [P], sorted by pseudonym.

    Raises:
        ValueError: if shapes differ, a label is not 0 or 1, or a patient has both labels.
    """
    label, probability, patient = check_columns(label, probability, patient)
    name, index = np.unique(patient, return_inverse=True)
    count = np.bincount(index)
    glioma = np.bincount(index, label)
    mixed = int(((glioma > 0) & (glioma < count)).sum())
    if mixed:
        raise ValueError(f"{mixed} patients carry both labels")
    # Summed in an order that does not depend on the rows': rounding must not make or break ties between patients.
    by_size = np.argsort(probability, kind="stable")
    # The clip only undoes rounding: a mean of equal numbers may leave [0, 1] by an ulp.
    mean = np.clip(np.bincount(index[by_size], probability[by_size]) / count, 0, 1)
    return (glioma > 0).astype(np.int64), mean, name


def roc_points(label: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns false and true positive rates, each [T], from (0, 0) to (1, 1), by scikit-learn's `roc_curve`.

    Raises:
        ValueError: if all labels are of one class.
    """
    if np.unique(label).size < 2:
        raise ValueError("a ROC curve needs both classes")
    false_positive, true_positive, _ = roc_curve(label, probability)
    return false_positive, true_positive


def level_columns(label: np.ndarray, probability: np.ndarray, patient: np.ndarray, level: str) -> Columns:
    """Returns the checked columns of slices, or of patients if `level` is "patient", see `patient_means`."""
    columns = label, probability, patient
    return patient_means(*columns) if level == "patient" else check_columns(*columns)


def evaluate(label: np.ndarray, probability: np.ndarray, patient: np.ndarray) -> dict[str, Any]:
    """Returns scores at slice and at patient level, each with a 95 % interval over patients.

    Methods: `estimates.ends`. An interval reflects the chance of having drawn these patients, not of having trained
    this network: predictions stay as they are. It is NaN where fewer patients than `estimates.LEAST` stand behind it.

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma, in [0, 1].
        patient: [N] pseudonyms.

    Returns:
        {"slice": {score: {"value", "low", "high"}}, "patient": likewise, "num_slices", "num_patients"} with the scores
        of `SCORES`; floats, NaN where undefined.

    Raises:
        ValueError: if shapes differ, there is no row, a label is not 0 or 1, a probability is outside [0, 1], or a
            patient has both labels.
    """
    result: dict[str, Any] = {}
    for level in LEVELS:
        own_label, own_probability, name = level_columns(label, probability, patient, level)
        names, index = np.unique(name, return_inverse=True)
        found = estimates(own_label, own_probability, index, names.size)
        result[level] = {score: entry(found[score]) for score in SCORES}
        result[f"num_{level}s"] = int(own_label.size)
    return result


def entry(estimate: Estimate) -> dict[str, float]:
    """Returns the score of an estimate and its interval: {"value", "low", "high"}."""
    low, high = ends(estimate)
    return {"value": estimate.value, "low": low, "high": high}
