"""Scores of slices and patients with bootstrap intervals over patients; see `lesion.metrics`."""

from typing import Any, NamedTuple

import numpy as np

from lesion.metrics.intervals import draws, percentiles, ratio

SCORES = ("accuracy", "auc", "f1_weighted", "f1_glioma", "sensitivity", "specificity")
THRESHOLD = 0.5


class Forms(NamedTuple):
    """One level's predictions, gathered by patient so that any resample of patients is scored by products.

    Attributes:
        cells: float64 [U, 4], each patient's true negatives, false positives, false negatives, true positives.
        wins: float64 [U, U], Mann-Whitney wins of the row's positives against the column's negatives.
    """

    cells: np.ndarray
    wins: np.ndarray


def checked(
    label: np.ndarray, probability: np.ndarray, patient: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three columns as arrays, or ValueError: what breaks them is the caller's bug, not the data's."""
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
    """One row a patient: the mean probability over the patient's slices.

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma.
        patient: [N] pseudonyms.

    Returns:
        label int64 [P], probability float64 [P], patient [P], sorted by pseudonym.

    Raises:
        ValueError: shapes differ, a label is not 0 or 1, or one patient carries both labels.
    """
    label, probability, patient = checked(label, probability, patient)
    name, index = np.unique(patient, return_inverse=True)
    count = np.bincount(index)
    glioma = np.bincount(index, label)
    mixed = int(((glioma > 0) & (glioma < count)).sum())
    if mixed:
        raise ValueError(f"{mixed} patients carry both labels")
    # Summed in one order whatever the rows' is: two patients a rounding apart, or not, would be a tie or none.
    by_size = np.argsort(probability, kind="stable")
    # The clip only undoes rounding: a mean of equal numbers may leave [0, 1] by an ulp.
    mean = np.clip(np.bincount(index[by_size], probability[by_size]) / count, 0, 1)
    return (glioma > 0).astype(np.int64), mean, name


def _pair_wins(label: np.ndarray, probability: np.ndarray, unit: np.ndarray, num_units: int) -> np.ndarray:
    """[U, U] Mann-Whitney wins: row's positives against column's negatives, a tie counting one half."""
    wins = np.zeros((num_units, num_units))
    positive = label == 1
    for column in np.unique(unit[~positive]):
        negative = np.sort(probability[~positive & (unit == column)])
        below = np.searchsorted(negative, probability[positive], "left")
        not_above = np.searchsorted(negative, probability[positive], "right")
        wins[:, column] = np.bincount(unit[positive], (below + not_above) / 2, num_units)
    return wins


def forms(label: np.ndarray, probability: np.ndarray, unit: np.ndarray, num_units: int) -> Forms:
    """`Forms` of checked columns [N]; `unit` [N] is the place of each row's patient among `num_units`."""
    cell = 2 * label + (probability > THRESHOLD)
    cells = np.bincount(4 * unit + cell, minlength=4 * num_units).reshape(num_units, 4).astype(np.float64)
    return Forms(cells, _pair_wins(label, probability, unit, num_units))


def score_resamples(counts: np.ndarray, level: Forms) -> dict[str, np.ndarray]:
    """Every score of every resample: each is a linear or bilinear form in how often a patient was drawn.

    Args:
        counts: [B, U], how often resample b holds patient u.
        level: of the same patients.

    Returns:
        A dict of [B] for each of `SCORES`.
    """
    tn, fp, fn, tp = (counts @ level.cells).T
    glioma, encephalitis = tp + fn, tn + fp
    # scikit-learn's convention: a class neither present nor predicted scores F1 = 0.
    f1_glioma = np.nan_to_num(ratio(2 * tp, 2 * tp + fp + fn))
    f1_encephalitis = np.nan_to_num(ratio(2 * tn, 2 * tn + fp + fn))
    total = glioma + encephalitis
    return {
        "accuracy": ratio(tp + tn, total),
        "auc": ratio(((counts @ level.wins) * counts).sum(1), glioma * encephalitis),
        "f1_weighted": ratio(glioma * f1_glioma + encephalitis * f1_encephalitis, total),
        "f1_glioma": f1_glioma,
        "sensitivity": ratio(tp, glioma),
        "specificity": ratio(tn, encephalitis),
    }


def both_classes(counts: np.ndarray, patient_label: np.ndarray) -> np.ndarray:
    """bool [B]: which resamples [B, P] hold patients of both classes.

    One that drew one class only defines neither AUC nor sensitivity nor specificity. It is left out of every
    interval, so that all scores of a level stand on the same resamples.
    """
    glioma = counts @ patient_label
    return (glioma > 0) & (glioma < counts.sum(1))


def _level(level: Forms, counts: np.ndarray) -> dict[str, dict[str, float]]:
    """Scores and percentile intervals of one level; `counts` [B, U] are the resamples that hold both classes."""
    estimate = score_resamples(np.ones((1, len(level.cells))), level)
    resampled = score_resamples(counts, level)
    result = {}
    for name in SCORES:
        value = float(estimate[name][0])
        low, high = percentiles(value, resampled[name])
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
    """Scores at slice and at patient level, each with a 95 % interval over patients.

    The interval is the percentile bootstrap (Efron and Tibshirani 1993, ch. 13) with whole patients drawn
    with replacement, at both levels, from one set of draws. It knows the chance of having drawn these
    patients, not that of having trained this network: predictions stay as they are. A resample with one class
    only is left out. Where a score is exactly 0 or 1 the interval has no width; that says that the bootstrap
    cannot tell, not that the score is certain.

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma, in [0, 1].
        patient: [N] pseudonyms.
        num_resamples: bootstrap draws B.
        seed: of the draws.

    Returns:
        {"slice": {score: {"value", "low", "high"}}, "patient": likewise, "num_slices", "num_patients",
        "num_resamples", "num_degenerate"} with the scores of `SCORES`; floats, NaN where undefined.
        `num_degenerate` counts the resamples left out.

    Raises:
        ValueError: shapes differ, nothing to evaluate, a label not 0 or 1, a probability outside [0, 1], or a
            patient with both labels.
    """
    label, probability, patient = checked(label, probability, patient)
    patient_label, patient_probability, name = patient_means(label, probability, patient)
    num_patients = name.size
    counts = draws(num_patients, num_resamples, seed)
    both = both_classes(counts, patient_label)
    by_slice = forms(label, probability, np.searchsorted(name, patient), num_patients)
    by_patient = forms(patient_label, patient_probability, np.arange(num_patients), num_patients)
    return {
        "slice": _level(by_slice, counts[both]),
        "patient": _level(by_patient, counts[both]),
        "num_slices": int(label.size),
        "num_patients": int(num_patients),
        "num_resamples": int(num_resamples),
        "num_degenerate": int((~both).sum()),
    }
