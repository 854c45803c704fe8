"""Scores with intervals: slices and patients, ROC curves, labelling curves.

Patients, not slices, are the independent units: the slices of one patient show one lesion and share one
label. Every interval here therefore resamples, or averages over, units no smaller than a patient.

All scores are fractions in [0, 1]; label 1 (glioma) is the positive class; a slice or patient is called
glioma where its probability is above ½ (strictly, as Keras' `binary_accuracy` and an argmax over two classes
do). A score that the data do not define (an AUC with one class) is NaN, never a made-up number.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics

SCORES = ("accuracy", "auc", "f1_weighted", "f1_glioma", "sensitivity", "specificity")
THRESHOLD = 0.5
LEVEL = 0.95


class Band(NamedTuple):
    """A mean curve with a two-sided 95 % interval of the mean.

    Attributes:
        mean: float64 [T].
        low: float64 [T], NaN where fewer than two units are left.
        high: float64 [T], likewise.
        num_units: int64 [T], how many independent units the interval at each point stands on.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    num_units: np.ndarray


def _checked(
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
    label, probability, patient = _checked(label, probability, patient)
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


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, NaN where bottom is 0."""
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)


def _scores(counts: np.ndarray, cells: np.ndarray, wins: np.ndarray) -> dict[str, np.ndarray]:
    """Every score of every resample: each is a linear or bilinear form in how often a patient was drawn.

    Args:
        counts: [B, U], how often resample b holds unit u.
        cells: [U, 4], each unit's true negatives, false positives, false negatives, true positives.
        wins: [U, U] of `_pair_wins`.

    Returns:
        A dict of [B] for each of `SCORES`.
    """
    tn, fp, fn, tp = (counts @ cells).T
    glioma, encephalitis = tp + fn, tn + fp
    # scikit-learn's convention: a class neither present nor predicted scores F1 = 0.
    f1_glioma = np.nan_to_num(_ratio(2 * tp, 2 * tp + fp + fn))
    f1_encephalitis = np.nan_to_num(_ratio(2 * tn, 2 * tn + fp + fn))
    total = glioma + encephalitis
    return {
        "accuracy": _ratio(tp + tn, total),
        "auc": _ratio(((counts @ wins) * counts).sum(1), glioma * encephalitis),
        "f1_weighted": _ratio(glioma * f1_glioma + encephalitis * f1_encephalitis, total),
        "f1_glioma": f1_glioma,
        "sensitivity": _ratio(tp, glioma),
        "specificity": _ratio(tn, encephalitis),
    }


def _level(
    label: np.ndarray, probability: np.ndarray, unit: np.ndarray, counts: np.ndarray
) -> dict[str, dict[str, float]]:
    """Scores and percentile intervals of one level; `counts` [B, U] are the bootstrap draws of patients."""
    num_units = counts.shape[1]
    cell = 2 * label + (probability > THRESHOLD)
    cells = np.bincount(4 * unit + cell, minlength=4 * num_units).reshape(num_units, 4).astype(np.float64)
    wins = _pair_wins(label, probability, unit, num_units)
    estimate = _scores(np.ones((1, num_units)), cells, wins)
    # A resample that drew one class only defines neither AUC nor sensitivity nor specificity. It is left out
    # of every interval, so that all scores of a level stand on the same resamples.
    both = ((counts @ cells[:, :2]).sum(1) > 0) & ((counts @ cells[:, 2:]).sum(1) > 0)
    resampled = _scores(counts[both], cells, wins)
    tail = 100 * (1 - LEVEL) / 2
    result = {}
    for name in SCORES:
        value = float(estimate[name][0])
        low = high = float("nan")
        if both.any() and not np.isnan(value):
            low, high = (float(x) for x in np.percentile(resampled[name], (tail, 100 - tail)))
            # With a handful of patients the percentile interval of a skewed score may miss the estimate
            # itself.
            low, high = min(low, value), max(high, value)
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
    label, probability, patient = _checked(label, probability, patient)
    patient_label, patient_probability, name = patient_means(label, probability, patient)
    num_patients = name.size
    unit = np.searchsorted(name, patient)
    draws = np.random.default_rng(seed).multinomial(
        num_patients, np.full(num_patients, 1 / num_patients), num_resamples
    )
    counts = draws.astype(np.float64)
    glioma = counts @ patient_label
    return {
        "slice": _level(label, probability, unit, counts),
        "patient": _level(patient_label, patient_probability, np.arange(num_patients), counts),
        "num_slices": int(label.size),
        "num_patients": int(num_patients),
        "num_resamples": int(num_resamples),
        "num_degenerate": int(((glioma == 0) | (glioma == num_patients)).sum()),
    }


def roc_points(label: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates, each [T], from (0, 0) to (1, 1), by scikit-learn's `roc_curve`.

    Raises:
        ValueError: labels hold one class only.
    """
    if np.unique(label).size < 2:
        raise ValueError("a ROC curve needs both classes")
    false_positive, true_positive, _ = sklearn_metrics.roc_curve(label, probability)
    return false_positive, true_positive


def mean_band(curves: np.ndarray, fold: np.ndarray | None = None) -> Band:
    """Mean curve and 95 % t-interval of the mean, over folds where there are several, else over runs.

    Runs of one fold share their test patients, so several seeds are not as many independent repetitions:
    seeds are averaged first and the folds are the units. Folds share training patients too; the variance of
    the mean of J folds is therefore taken as s² (1/J + 1/(J−1)), test over train size being 1/(J−1), instead
    of s²/J (Nadeau and Bengio 2003, Machine Learning 52:239). With one fold (or `fold` None) the runs are the
    units, s²/J, and the interval speaks of the seeds alone.

    Args:
        curves: [M, T], one run a row; NaN where a run has no value.
        fold: [M], the fold of each run, or None.

    Returns:
        A `Band` of [T].

    Raises:
        ValueError: shapes do not fit, or there is no run.
    """
    curves = np.asarray(curves, np.float64)
    if curves.ndim != 2 or not curves.shape[0]:
        raise ValueError(f"want curves [M, T] with M >= 1, got {curves.shape}")
    fold = np.zeros(len(curves), np.int64) if fold is None else np.asarray(fold)
    if fold.shape != curves.shape[:1]:
        raise ValueError(f"want one fold for each of {len(curves)} runs, got {fold.shape}")
    folds = np.unique(fold)
    units = curves if folds.size < 2 else np.stack([_nanmean(curves[fold == f]) for f in folds])
    count = (~np.isnan(units)).sum(0)
    mean = _nanmean(units)
    variance = _ratio(np.nansum((units - mean) ** 2, 0), count - 1)
    share = _ratio(np.ones_like(mean), count)
    if folds.size >= 2:
        share = share + _ratio(np.ones_like(mean), count - 1)
    half = stats.t.ppf((1 + LEVEL) / 2, np.maximum(count - 1, 1)) * np.sqrt(variance * share)
    return Band(mean, mean - half, mean + half, count)


def paired_difference(first: np.ndarray, second: np.ndarray, fold: np.ndarray | None = None) -> Band:
    """How far `first` lies above `second` at each round, run by run, with `mean_band`'s interval.

    Both rows of a pair share fold, seed and starting set, so what makes a fold easy cancels.

    Args:
        first: [M, T] of one strategy.
        second: [M, T] of the other, in the same order of (fold, seed).
        fold: [M] or None.

    Returns:
        A `Band` of [T] of the differences; an interval that holds 0 shows no difference.

    Raises:
        ValueError: shapes do not fit.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"pairs must match: {first.shape} and {second.shape}")
    return mean_band(first - second, fold)


def _nanmean(rows: np.ndarray) -> np.ndarray:
    """Mean over the first axis without NaN; NaN (and no warning) where nothing is left."""
    return _ratio(np.nansum(rows, 0), (~np.isnan(rows)).sum(0))
