"""Calibration: does a probability of 0.8 mean that 80 of 100 have a glioma?

A model may rank patients well (AUC) and still give 0.99 where 0.8 would be true. Three measures: the reliability
diagram, the expected calibration error (ECE; Naeini, Cooper and Hauskrecht 2015), and the Brier score, which depends on
both ranking and calibration.
"""

from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import brier_score_loss

from lesion.metrics.intervals import LEVEL, draw_patients, percentile_interval, ratio, wilson
from lesion.metrics.scores import check_columns, patient_means

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


def _gaps(label: np.ndarray, probability: np.ndarray, unit: np.ndarray, bins: int) -> np.ndarray:
    """Returns each patient's sum of (probability − label) in each bin, [U, K]: ECE is Σ_k |Σ_u gap| / N."""
    num_units = int(unit.max()) + 1
    index = unit * bins + _bin_index(probability, bins)
    return np.bincount(index, probability - label, num_units * bins).reshape(num_units, bins)


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
    label, probability, unit = check_columns(label, probability, np.zeros(np.shape(label), np.int64))
    return float(np.abs(_gaps(label, probability, unit, bins).sum(0)).sum() / label.size)


def _scores_of_level(
    label: np.ndarray, probability: np.ndarray, unit: np.ndarray, times_drawn: np.ndarray, bins: int
) -> dict[str, Any]:
    """Returns ECE and Brier score of one level with intervals; `times_drawn` [B, U] are the draws of patients."""
    rows = times_drawn @ np.bincount(unit).astype(np.float64)
    resampled_ece = np.abs(times_drawn @ _gaps(label, probability, unit, bins)).sum(1) / rows
    resampled_brier = times_drawn @ np.bincount(unit, (probability - label) ** 2) / rows
    result: dict[str, Any] = {}
    for name, value, resampled in (
        ("ece", calibration_error(label, probability, bins=bins), resampled_ece),
        ("brier", float(brier_score_loss(label, probability, pos_label=1)), resampled_brier),
    ):
        low, high = percentile_interval(value, resampled)
        result[name] = {"value": value, "low": low, "high": high}
    share = float(label.mean())
    return result | {"predicted": float(probability.mean()), "observed": share, "brier_share": share * (1 - share)}


def calibration_scores(
    label: np.ndarray,
    probability: np.ndarray,
    patient: np.ndarray,
    *,
    bins: int = BINS,
    num_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns calibration at slice and at patient level, with 95 % intervals over patients on `evaluate`'s draws.

    With few patients even a perfect model has an ECE above 0, since no bin has exactly the share it should, and the
    percentile interval lies too high for the same reason. For reference, `chance` is the ECE that a perfectly
    calibrated model with the same probabilities would have: labels are drawn from them (consistency resampling,
    Bröcker and Smith 2007). It is given for patients only, because the slices of a patient share their label.

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma, in [0, 1].
        patient: [N] pseudonyms.
        bins: number of bins of ECE, of equal width.
        num_resamples: number of bootstrap draws, and of draws of labels.
        seed: random seed of both.

    Returns:
        {"slice": {"ece", "brier": {"value", "low", "high"}, "predicted" (mean probability), "observed" (share of
        glioma), "brier_share" (Brier score of always predicting that share)}, "patient": likewise, "chance": {"mean",
        "high" (95th percentile)}, "num_bins"}.

    Raises:
        ValueError: if there is no bin, or as `evaluate`.
    """
    label, probability, patient = check_columns(label, probability, patient)
    patient_label, patient_probability, name = patient_means(label, probability, patient)
    times_drawn, order = draw_patients(name.size, num_resamples, seed), np.arange(name.size)
    drawn_label = np.random.default_rng([seed, 1]).random((num_resamples, name.size)) < patient_probability
    in_bin = np.eye(bins)[_bin_index(patient_probability, bins)]
    chance = np.abs((patient_probability - drawn_label) @ in_bin).sum(1) / name.size
    mean, high = (float(chance.mean()), float(np.quantile(chance, LEVEL))) if chance.size else (float("nan"),) * 2
    return {
        "slice": _scores_of_level(label, probability, np.searchsorted(name, patient), times_drawn, bins),
        "patient": _scores_of_level(patient_label, patient_probability, order, times_drawn, bins),
        "chance": {"mean": mean, "high": high},
        "num_bins": bins,
    }
