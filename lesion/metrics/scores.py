"""Scores of slices and patients with bootstrap intervals over patients, see `lesion.metrics`."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import roc_curve

from lesion.metrics.intervals import draw_patients, percentile_interval, ratio

SCORES = ("accuracy", "auc", "f1_weighted", "f1_positive", "sensitivity", "specificity")
THRESHOLD = 0.5


class PatientCounts(NamedTuple):
    """Predictions summed by patient, so that matrix products score any resample of the U patients.

    Attributes:
        confusion: true negatives, false positives, false negatives, true positives of each patient, float64 [U, 4].
        wins: Mann-Whitney wins of the row's positives against the column's negatives, float64 [U, U].
    """

    confusion: np.ndarray
    wins: np.ndarray


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


def count_by_patient(
    label: np.ndarray, probability: np.ndarray, patient_index: np.ndarray, num_patients: int
) -> PatientCounts:
    """Returns the `PatientCounts` of checked columns [N]; `patient_index` [N] is below `num_patients`."""
    cell = 2 * label + (probability > THRESHOLD)
    confusion = np.bincount(4 * patient_index + cell, minlength=4 * num_patients).reshape(num_patients, 4)
    wins = np.zeros((num_patients, num_patients))
    positive = label == 1
    for column in np.unique(patient_index[~positive]):
        negative = np.sort(probability[~positive & (patient_index == column)])
        below = np.searchsorted(negative, probability[positive], "left")
        not_above = np.searchsorted(negative, probability[positive], "right")
        wins[:, column] = np.bincount(patient_index[positive], (below + not_above) / 2, num_patients)  # a tie is ½
    return PatientCounts(confusion.astype(np.float64), wins)


def score_resamples(times_drawn: np.ndarray, counts: PatientCounts) -> dict[str, np.ndarray]:
    """Returns every score of every resample, from linear and bilinear forms in the numbers of draws.

    Args:
        times_drawn: [B, U], number of times resample b draws patient u.
        counts: counts of the same patients.

    Returns:
        {score: [B]} for each of `SCORES`.
    """
    assert times_drawn.shape[1:] == counts.wins.shape[:1], (times_drawn.shape, counts.wins.shape)
    tn, fp, fn, tp = (times_drawn @ counts.confusion).T
    glioma, encephalitis = tp + fn, tn + fp
    # scikit-learn's convention: a class neither present nor predicted scores F1 = 0.
    f1_positive = np.nan_to_num(ratio(2 * tp, 2 * tp + fp + fn))
    f1_encephalitis = np.nan_to_num(ratio(2 * tn, 2 * tn + fp + fn))
    total = glioma + encephalitis
    return {
        "accuracy": ratio(tp + tn, total),
        "auc": ratio(((times_drawn @ counts.wins) * times_drawn).sum(1), glioma * encephalitis),
        "f1_weighted": ratio(glioma * f1_positive + encephalitis * f1_encephalitis, total),
        "f1_positive": f1_positive,
        "sensitivity": ratio(tp, glioma),
        "specificity": ratio(tn, encephalitis),
    }


def both_classes(times_drawn: np.ndarray, patient_label: np.ndarray) -> np.ndarray:
    """Returns bool [B], true for the resamples [B, P] that draw patients of both classes.

    The others lack an AUC and a sensitivity or specificity. They are left out of every interval, so that all scores
    of a level have the same resamples.
    """
    glioma = times_drawn @ patient_label
    return (glioma > 0) & (glioma < times_drawn.sum(1))


def _scores_with_intervals(counts: PatientCounts, times_drawn: np.ndarray) -> dict[str, dict[str, float]]:
    """Returns scores and percentile intervals for one level; resamples `times_drawn` [B, U] hold both classes."""
    estimate = score_resamples(np.ones((1, len(counts.confusion))), counts)
    resampled = score_resamples(times_drawn, counts)
    result = {}
    for name in SCORES:
        value = float(estimate[name][0])
        low, high = percentile_interval(value, resampled[name])
        result[name] = {"value": value, "low": low, "high": high}
    return result


def evaluate(
    label: np.ndarray,
    probability: np.ndarray,
    patient: np.ndarray,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns scores at slice and at patient level, each with a 95 % interval over patients.

    The interval is the percentile bootstrap (Efron and Tibshirani 1993, ch. 13) with whole patients drawn
    with replacement, at both levels, from one set of draws. It reflects the chance of having drawn these
    patients, not of having trained this network: predictions stay as they are. A resample with one class only
    is left out. If a score is exactly 0 or 1 the interval has no width: the bootstrap cannot estimate it, which
    does not mean that the score is certain.

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma, in [0, 1].
        patient: [N] pseudonyms.
        num_resamples: number B of bootstrap draws.
        seed: random seed of the draws.

    Returns:
        {"slice": {score: {"value", "low", "high"}}, "patient": likewise, "num_slices", "num_patients",
        "num_resamples", "num_degenerate"} with the scores of `SCORES`; floats, NaN where undefined.
        `num_degenerate` counts the resamples left out.

    Raises:
        ValueError: if shapes differ, there is no row, a label is not 0 or 1, a probability is outside [0, 1], or a
            patient has both labels.
    """
    label, probability, patient = check_columns(label, probability, patient)
    patient_label, patient_probability, name = patient_means(label, probability, patient)
    num_patients = name.size
    times_drawn = draw_patients(num_patients, num_resamples, seed)
    both = both_classes(times_drawn, patient_label)
    by_slice = count_by_patient(label, probability, np.searchsorted(name, patient), num_patients)
    by_patient = count_by_patient(patient_label, patient_probability, np.arange(num_patients), num_patients)
    return {
        "slice": _scores_with_intervals(by_slice, times_drawn[both]),
        "patient": _scores_with_intervals(by_patient, times_drawn[both]),
        "num_slices": int(label.size),
        "num_patients": int(num_patients),
        "num_resamples": int(num_resamples),
        "num_degenerate": int((~both).sum()),
    }
