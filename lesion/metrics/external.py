"""Thresholds and an intercept that are fixed on one cohort and tried on another."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.metrics import roc_curve

from lesion.metrics.intervals import wilson
from lesion.metrics.scores import check_columns

_EDGE = 1e-6  # probabilities are kept this far from 0 and 1, where the logit is infinite


def youden_threshold(label: np.ndarray, probability: np.ndarray) -> float:
    """Returns the threshold with the greatest sensitivity + specificity − 1 (Youden 1950); of ties the highest.

    A row is called positive if its probability is above the threshold, which lies halfway between two probabilities.

    Args:
        label: [N] in {0, 1}, both present.
        probability: [N] of class 1.

    Raises:
        ValueError: if all labels are of one class, or as `evaluate`.
    """
    label, probability, _ = check_columns(label, probability, np.arange(np.size(label)))
    if np.unique(label).size < 2:
        raise ValueError("a threshold needs both classes")
    false_positive, true_positive, thresholds = roc_curve(label, probability, drop_intermediate=False)
    lowest_called = thresholds[np.argmax(true_positive - false_positive)]
    below = probability[probability < lowest_called]
    highest_not = below.max() if below.size else 0.0
    return float((min(lowest_called, 1.0) + highest_not) / 2)


def intercept_shift(label: np.ndarray, probability: np.ndarray) -> float:
    """Returns b for which logit(p) + b has the right mean: recalibration in the large, with the slope left at 1.

    It maximises the likelihood of a logistic regression with offset logit(p), whose score equation says that the
    shifted probabilities sum to the number of positives (Steyerberg 2004, Statistics in Medicine 23:2567).

    Args:
        label: [N] in {0, 1}, both present.
        probability: [N] of class 1.

    Raises:
        ValueError: if all labels are of one class (b would be infinite), or as `evaluate`.
    """
    label, probability, _ = check_columns(label, probability, np.arange(np.size(label)))
    if np.unique(label).size < 2:
        raise ValueError("recalibration needs both classes")
    return float(brentq(lambda shift: (shifted(probability, shift) - label).sum(), -40, 40))


def shifted(probability: np.ndarray, shift: float) -> np.ndarray:
    """Returns the probabilities [N] whose logits are greater by `shift`."""
    return expit(logit(np.clip(probability, _EDGE, 1 - _EDGE)) + shift)


def scores_at(label: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, dict[str, float]]:
    """Returns sensitivity, specificity and accuracy of independent rows at a threshold, with Wilson's intervals.

    Args:
        label: [N] in {0, 1}.
        probability: [N] of class 1; above the threshold a row is called 1.
        threshold: fixed on other rows.

    Returns:
        {score: {"value", "low", "high"}}; NaN where there is no row of the class.
    """
    label, probability, _ = check_columns(label, probability, np.arange(np.size(label)))
    right = (probability > threshold) == label
    groups = {"sensitivity": right[label == 1], "specificity": right[label == 0], "accuracy": right}
    result = {}
    for name, group in groups.items():
        value = float(group.mean()) if group.size else float("nan")
        low, high = wilson(value, group.size)
        result[name] = {"value": value, "low": float(low), "high": float(high)}
    return result
