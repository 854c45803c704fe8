"""Calibration: does a probability of 0.8 mean that 80 of 100 have a glioma?

A model may rank patients well (AUC) and still give 0.99 where 0.8 would be true. Measures: the reliability diagram, the
expected calibration error (ECE; Naeini, Cooper and Hauskrecht 2015), the Brier score, which depends on both ranking and
calibration, with its parts (Murphy 1973), and the logistic recalibration's slope and intercept (Cox 1958).
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import special

from lesion.metrics.estimates import share
from lesion.metrics.intervals import LEVEL, quantile, ratio, wilson
from lesion.metrics.scores import check_columns, entry, patient_means

BINS = 10


class Reliability(NamedTuple):
    """The K points of a reliability diagram, one for each bin that is not empty.

    Attributes:
        predicted: mean probability in the bin, float64 [K].
        observed: share of glioma in the bin, float64 [K].
        low: lower end of Wilson's 95 % interval of that share out of `effective` units, float64 [K].
        high: upper end of the interval, float64 [K].
        rows: number of rows in the bin, int64 [K].
        effective: number of independent units in the bin, float64 [K]: the slices of a patient all have its label, so
            the rows count as (Σm)²/Σm² (Kish 1965) with m slices of each patient. At patient level, `rows`.
        left: left edge of the bin, float64 [K].
        right: right edge of the bin, float64 [K].
    """

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    rows: np.ndarray
    effective: np.ndarray
    left: np.ndarray
    right: np.ndarray


def _bin_index(probability: np.ndarray, bins: int) -> np.ndarray:
    """Returns the index, int [N], of each probability's bin among `bins` of equal width.

    A bin includes its right edge, and the first one 0 too, as in scikit-learn's `calibration_curve`.
    """
    if bins < 1:
        raise ValueError(f"want at least one bin, got {bins}")
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probability, "left")


def reliability(label: np.ndarray, probability: np.ndarray, patient: np.ndarray, *, bins: int = BINS) -> Reliability:
    """Returns the points of the reliability diagram of N slices, or of N patients (one row each).

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma.
        patient: [N] pseudonyms.
        bins: number of bins, of equal width.

    Raises:
        ValueError: if there is no bin, or as `evaluate`, except that a patient may have both labels.
    """
    label, probability, patient = check_columns(label, probability, patient)
    bin_index, edges = _bin_index(probability, bins), np.linspace(0, 1, bins + 1)
    rows = np.bincount(bin_index, minlength=bins)
    _, unit = np.unique(patient, return_inverse=True)
    rows_of_unit = np.bincount(bin_index * (unit.max() + 1) + unit, minlength=bins * (unit.max() + 1)).reshape(bins, -1)
    effective = ratio(rows.astype(np.float64) ** 2, (rows_of_unit.astype(np.float64) ** 2).sum(1))
    observed = ratio(np.bincount(bin_index, label, bins), rows)
    predicted = ratio(np.bincount(bin_index, probability, bins), rows)
    low, high = wilson(observed, np.nan_to_num(effective))
    columns = (predicted, observed, low, high, rows, effective, edges[:-1], edges[1:])
    return Reliability(*(column[rows > 0] for column in columns))


def calibration_error(label: np.ndarray, probability: np.ndarray, *, bins: int = BINS) -> float:
    """Returns the expected calibration error, ECE.

    It is the mean of |mean probability − share of glioma| over bins, weighted by their numbers of rows.

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma (class 1, not the predicted class).
        bins: number of bins, of equal width.

    Raises:
        ValueError: if there is no bin, or as `evaluate`.
    """
    label, probability, _ = check_columns(label, probability, np.zeros(np.shape(label), np.int64))
    gap = np.bincount(_bin_index(probability, bins), probability - label, bins)
    return float(np.abs(gap).sum() / label.size)


def brier_parts(label: np.ndarray, probability: np.ndarray, *, bins: int = BINS) -> dict[str, float]:
    """Returns the parts of the Brier score of probabilities that are replaced by their bin's mean (Murphy 1973).

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma.
        bins: number of bins, of equal width.

    Returns:
        {"reliability": mean squared distance of a bin's probability from its share of glioma, 0 at best, "resolution":
        mean squared distance of a bin's share from that of all, "uncertainty": Brier score of always predicting the
        share of all}; the score is reliability − resolution + uncertainty.

    Raises:
        ValueError: as `calibration_error`.
    """
    label, probability, row = check_columns(label, probability, np.arange(np.size(label)))
    points, share_of_all = reliability(label, probability, row, bins=bins), float(label.mean())
    weight = points.rows / label.size
    return {
        "reliability": float(weight @ (points.predicted - points.observed) ** 2),
        "resolution": float(weight @ (points.observed - share_of_all) ** 2),
        "uncertainty": share_of_all * (1 - share_of_all),
    }


def recalibration(label: np.ndarray, probability: np.ndarray) -> dict[str, dict[str, float]]:
    """Returns slope and intercept of the logistic regression of N patients' labels on the logit of their probability.

    The slope is 1 and the intercept 0 if calibrated; a slope below 1 is overconfident, an intercept below 0 means that
    too much glioma is predicted. The intercept is that with slope 1 (calibration in the large). Intervals are Wald's.

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma, drawn to 1e-6 and 1 − 1e-6 where it is beyond.

    Returns:
        {"slope", "intercept": {"value", "low", "high"}}; NaN with one class or where the classes are separated.

    Raises:
        ValueError: as `evaluate`.
    """
    label, probability, _ = check_columns(label, probability, np.arange(np.size(label)))
    logit = special.logit(np.clip(probability, 1e-6, 1 - 1e-6))
    columns = np.stack([logit, np.ones_like(logit)], 1)
    fits = {"slope": (columns, np.zeros_like(logit)), "intercept": (columns[:, 1:], logit)}
    result = {}
    for name, (x, offset) in fits.items():
        value, error = _logistic_fit(x, offset, label)
        half = quantile() * error
        result[name] = {"value": value, "low": value - half, "high": value + half}
    return result


def shifted(probability: np.ndarray, intercept: float) -> np.ndarray:
    """Returns the probabilities [N] with `intercept` added to their logits: recalibration in the large."""
    return special.expit(special.logit(np.clip(probability, 1e-6, 1 - 1e-6)) + intercept)


def _logistic_fit(x: np.ndarray, offset: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Returns the first weight and its standard error by Newton's method on x [N, D]; NaN where it does not end."""
    weights = np.zeros(x.shape[1])
    for _ in range(50):
        mean = special.expit(offset + x @ weights)
        information = (x * (mean * (1 - mean))[:, None]).T @ x
        if np.linalg.cond(information) > 1e10:
            break
        step = np.linalg.solve(information, x.T @ (label - mean))
        weights += np.clip(step, -1, 1)  # a long step from far away would overshoot
        if np.abs(step).max() < 1e-9:
            return float(weights[0]), float(np.sqrt(np.linalg.inv(information)[0, 0]))
    return float("nan"), float("nan")


def _scores_of_level(label: np.ndarray, probability: np.ndarray, patient: np.ndarray, bins: int) -> dict[str, Any]:
    """Returns the scores of one level of checked columns; `patient` [N] are numbers from 0."""
    rows, squares = np.bincount(patient).astype(np.float64), np.bincount(patient, (probability - label) ** 2)
    observed = float(label.mean())
    return {
        "ece": calibration_error(label, probability, bins=bins),
        "brier": entry(share("brier", squares, rows)),
        "predicted": float(probability.mean()),
        "observed": observed,
        "brier_share": observed * (1 - observed),
        "brier_parts": brier_parts(label, probability, bins=bins),
    }


def calibration_scores(
    label: np.ndarray,
    probability: np.ndarray,
    patient: np.ndarray,
    *,
    bins: int = BINS,
    num_draws: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns calibration at slice and at patient level.

    With few patients even a perfect model has an ECE above 0, since no bin has exactly the share it should: it has no
    interval. For reference, `chance` is the ECE that a perfectly calibrated model with the same probabilities would
    have: labels are drawn from them (consistency resampling, Bröcker and Smith 2007). It is given for patients only,
    because the slices of a patient share their label; so are slope and intercept.

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma, in [0, 1].
        patient: [N] pseudonyms.
        bins: number of bins of ECE, of equal width.
        num_draws: number of draws of labels.
        seed: random seed of the draws.

    Returns:
        {"slice": {"ece", "brier": {"value", "low", "high"}, "predicted" (mean probability), "observed" (share of
        glioma), "brier_share" (Brier score of always predicting that share), "brier_parts"}, "patient": likewise, and
        "slope", "intercept" of `recalibration`, "chance": {"mean", "high" (95th percentile)}, "num_bins"}.

    Raises:
        ValueError: if there is no bin, or as `evaluate`.
    """
    label, probability, patient = check_columns(label, probability, patient)
    patient_label, patient_probability, name = patient_means(label, probability, patient)
    drawn_label = np.random.default_rng([seed, 1]).random((num_draws, name.size)) < patient_probability
    in_bin = np.eye(bins)[_bin_index(patient_probability, bins)]
    chance = np.abs((patient_probability - drawn_label) @ in_bin).sum(1) / name.size
    mean, high = (float(chance.mean()), float(np.quantile(chance, LEVEL))) if chance.size else (float("nan"),) * 2
    by_patient = _scores_of_level(patient_label, patient_probability, np.arange(name.size), bins)
    return {
        "slice": _scores_of_level(label, probability, np.searchsorted(name, patient), bins),
        "patient": by_patient | recalibration(patient_label, patient_probability),
        "chance": {"mean": mean, "high": high},
        "num_bins": bins,
    }
