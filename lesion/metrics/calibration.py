"""Calibration: does a probability of 0.8 mean that 80 of 100 have a glioma?

A model may rank patients well (AUC) and still say 0.99 where 0.8 would be true. Three answers: the reliability
diagram, the expected calibration error (ECE; Naeini, Cooper and Hauskrecht 2015), and the Brier score, which pays for
both ranking and calibration.
"""

from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import brier_score_loss

from lesion.metrics.intervals import LEVEL, draws, percentiles, ratio, wilson
from lesion.metrics.scores import checked, patient_means

BINS = 10


class Reliability(NamedTuple):
    """Points of a reliability diagram, bins without a row left out.

    Attributes:
        predicted: float64 [K], mean probability in the bin.
        observed: float64 [K], share of glioma.
        low: float64 [K], of Wilson's 95 % interval of the share, on `effective` units.
        high: float64 [K].
        rows: int64 [K], how many in the bin.
        effective: float64 [K], independent units they are worth: slices of one patient all carry its label, so that
            they count as (Σm)²/Σm² (Kish 1965), m slices of each patient. At patient level, `rows`.
        left: float64 [K], the bin's edges.
        right: float64 [K].
    """

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    rows: np.ndarray
    effective: np.ndarray
    left: np.ndarray
    right: np.ndarray


def edges(probability: np.ndarray, bins: int = BINS, *, equal_mass: bool = False) -> np.ndarray:
    """Edges of the bins, [K + 1]: `bins` of equal width, or as many quantiles, equal ones made one.

    A bin holds its right edge, the first one 0 as well, as scikit-learn's `calibration_curve` has it.

    Raises:
        ValueError: no bin.
    """
    if bins < 1:
        raise ValueError(f"want at least one bin, got {bins}")
    grid = np.linspace(0, 1, bins + 1)
    if not equal_mass:
        return grid
    inner = np.unique(np.quantile(probability, grid[1:-1]))
    return np.concatenate([[0.0], inner[(inner > 0) & (inner < 1)], [1.0]])


def _bin(probability: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """int [N], each probability's bin in `edges`."""
    return np.searchsorted(borders[1:-1], probability, "left")


def reliability(
    label: np.ndarray, probability: np.ndarray, patient: np.ndarray, *, bins: int = BINS, equal_mass: bool = False
) -> Reliability:
    """Points of the reliability diagram of [N] slices, or of patients (one row each).

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma.
        patient: [N] pseudonyms.
        bins: how many, of equal width.
        equal_mass: with as many rows in each instead.

    Raises:
        ValueError: as `evaluate`, but for patients with both labels.
    """
    label, probability, patient = checked(label, probability, patient)
    borders = edges(probability, bins, equal_mass=equal_mass)
    place, total = _bin(probability, borders), len(borders) - 1
    count = np.bincount(place, minlength=total)
    _, unit = np.unique(patient, return_inverse=True)
    slices = np.bincount(place * (unit.max() + 1) + unit, minlength=total * (unit.max() + 1)).reshape(total, -1)
    effective = ratio(count.astype(np.float64) ** 2, (slices.astype(np.float64) ** 2).sum(1))
    observed = ratio(np.bincount(place, label, total), count)
    predicted = ratio(np.bincount(place, probability, total), count)
    low, high = wilson(observed, np.nan_to_num(effective))
    columns = (predicted, observed, low, high, count, effective, borders[:-1], borders[1:])
    return Reliability(*(column[count > 0] for column in columns))


def _gaps(label: np.ndarray, probability: np.ndarray, unit: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """[U, K], each patient's sum of (probability − label) in each bin: ECE is Σ_k |Σ_u gap| / N."""
    total, units = len(borders) - 1, int(unit.max()) + 1
    place = unit * total + _bin(probability, borders)
    return np.bincount(place, probability - label, units * total).reshape(units, total)


def calibration_error(
    label: np.ndarray, probability: np.ndarray, *, bins: int = BINS, equal_mass: bool = False
) -> float:
    """Expected calibration error: |mean probability − share of glioma| of each bin, weighted by its rows.

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma: of the class 1, not of the class named.
        bins: how many, of equal width.
        equal_mass: with as many rows in each instead.

    Raises:
        ValueError: as `evaluate`.
    """
    label, probability, unit = checked(label, probability, np.zeros(np.shape(label), np.int64))
    borders = edges(probability, bins, equal_mass=equal_mass)
    return float(np.abs(_gaps(label, probability, unit, borders).sum(0)).sum() / label.size)


def _level(
    label: np.ndarray, probability: np.ndarray, unit: np.ndarray, counts: np.ndarray, bins: int
) -> dict[str, Any]:
    """ECE and Brier score of one level with intervals; `counts` [B, U] are the draws of patients."""
    result: dict[str, Any] = {}
    rows = counts @ np.bincount(unit).astype(np.float64)
    for name, equal_mass in (("ece", False), ("ece_equal_mass", True)):
        value = calibration_error(label, probability, bins=bins, equal_mass=equal_mass)
        gaps = _gaps(label, probability, unit, edges(probability, bins, equal_mass=equal_mass))
        resampled = np.abs(counts @ gaps).sum(1) / rows
        result[name] = dict(zip(("value", "low", "high"), (value, *percentiles(value, resampled)), strict=True))
    value = float(brier_score_loss(label, probability, pos_label=1))
    resampled = counts @ np.bincount(unit, (probability - label) ** 2) / rows
    result["brier"] = dict(zip(("value", "low", "high"), (value, *percentiles(value, resampled)), strict=True))
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
    """Calibration at slice and at patient level, with 95 % intervals over patients on `evaluate`'s draws.

    With few patients an ECE is above 0 even for a perfect model, for no bin holds exactly the share it should, and
    its percentile interval lies too high for the same reason. So that it can be read, `chance` tells what a perfectly
    calibrated model with these very probabilities would show: labels are drawn from them (consistency resampling,
    Bröcker and Smith 2007). It is of patients alone, for the slices of one share their label.

    Args:
        label: [N] in {0, 1}.
        probability: [N] of glioma, in [0, 1].
        patient: [N] pseudonyms.
        bins: of ECE, of equal width; `ece_equal_mass` takes as many quantiles.
        num_resamples: bootstrap draws, and draws of labels.
        seed: of both.

    Returns:
        {"slice": {"ece", "ece_equal_mass", "brier": {"value", "low", "high"}, "predicted" (mean probability),
        "observed" (share of glioma), "brier_share" (Brier score of always saying that share)}, "patient": likewise,
        "chance": {"mean", "high" (95th percentile)}, "num_bins"}.

    Raises:
        ValueError: as `evaluate`.
    """
    label, probability, patient = checked(label, probability, patient)
    patient_label, patient_probability, name = patient_means(label, probability, patient)
    counts, order = draws(name.size, num_resamples, seed), np.arange(name.size)
    told = np.random.default_rng([seed, 1]).random((num_resamples, name.size)) < patient_probability
    place = _bin(patient_probability, edges(patient_probability, bins))
    inside = np.eye(bins)[place]
    chance = np.abs((patient_probability - told) @ inside).sum(1) / name.size
    mean, high = (float(chance.mean()), float(np.quantile(chance, LEVEL))) if chance.size else (float("nan"),) * 2
    return {
        "slice": _level(label, probability, np.searchsorted(name, patient), counts, bins),
        "patient": _level(patient_label, patient_probability, order, counts, bins),
        "chance": {"mean": mean, "high": high},
        "num_bins": bins,
    }
