"""Active-learning curves: scores over labelling costs, their means over runs with bands, areas and label costs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from lesion.metrics.intervals import LEVEL, ratio


class Band(NamedTuple):
    """A mean curve with a two-sided 95 % interval of the mean.

    Attributes:
        mean: mean at each of T points, float64 [T].
        low: lower end of the interval, float64 [T]; NaN where fewer than two units have a value.
        high: upper end of the interval, likewise.
        num_units: number of independent units behind each interval, int64 [T].
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    num_units: np.ndarray


def mean_band(curves: np.ndarray, fold: np.ndarray | None = None) -> Band:
    """Returns the mean curve and the 95 % t-interval of the mean, over several folds, or over the runs of one.

    Runs of one fold share their test patients, so several seeds are no independent repetitions: seeds are
    averaged first and the folds are the units. Folds share training patients too; the variance of the mean
    of J folds is therefore taken as s² (1/J + 1/(J−1)) instead of s²/J, as the test set has 1/(J−1) of the
    training set's size (Nadeau and Bengio 2003, Machine Learning 52:239). With one fold (or None) the runs
    are the units, with s²/J, and the interval reflects the seeds alone.

    Args:
        curves: [M, T], a row for each run; NaN where a run has no value.
        fold: [M], fold of each run; None if all are of one fold.

    Returns:
        A `Band` of [T].

    Raises:
        ValueError: if shapes do not fit or there is no run.
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
    variance = ratio(np.nansum((units - mean) ** 2, 0), count - 1)
    share = ratio(np.ones_like(mean), count)
    if folds.size >= 2:
        share = share + ratio(np.ones_like(mean), count - 1)
    half = stats.t.ppf((1 + LEVEL) / 2, np.maximum(count - 1, 1)) * np.sqrt(variance * share)
    return Band(mean, mean - half, mean + half, count)


def paired_difference(first: np.ndarray, second: np.ndarray, fold: np.ndarray | None = None) -> Band:
    """Returns the mean of `first` − `second` at each round, paired by run, with the interval of `mean_band`.

    Both runs of a pair share fold, seed and starting set, so the difficulty of a fold cancels.

    Args:
        first: [M, T], curves of one strategy.
        second: [M, T], curves of the other, in the same order of (fold, seed).
        fold: [M], fold of each run, or None, see `mean_band`.

    Returns:
        A `Band` [T] of the differences; an interval that contains 0 shows no difference.

    Raises:
        ValueError: if shapes do not fit.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"pairs must match: {first.shape} and {second.shape}")
    return mean_band(first - second, fold)


def shared_budget(costs: Sequence[np.ndarray]) -> tuple[float, float]:
    """Returns the range (low, high) of costs that all curves cover; `costs` are those of each curve, [R], rising."""
    return max(float(cost[0]) for cost in costs), min(float(cost[-1]) for cost in costs)


def area_under_curve(cost: np.ndarray, value: np.ndarray, low: float, high: float) -> float:
    """Returns the mean height of a curve over the costs from `low` to `high`, by the trapezoidal rule.

    Args:
        cost: [R], in rising order.
        value: [R], score at each cost; interpolated linearly in between.
        low: lower end of the range of costs.
        high: upper end of the range; if it is not above `low`, the value at `low` is returned.
    """
    assert cost.shape == value.shape, (cost.shape, value.shape)
    if high <= low:
        return float(np.interp(low, cost, value))
    grid = np.unique([low, *cost[(cost > low) & (cost < high)], high])
    return float(np.trapezoid(np.interp(grid, cost, value), grid) / (high - low))


def cost_to_reach(cost: np.ndarray, value: np.ndarray, target: float) -> float:
    """Returns the cost at which the values [R] over the costs [R] first reach `target`; inf if they never do."""
    assert cost.shape == value.shape, (cost.shape, value.shape)
    reached = np.flatnonzero(value >= target)
    return float(cost[reached[0]]) if reached.size else float("inf")


def _nanmean(rows: np.ndarray) -> np.ndarray:
    """Returns the mean over the first axis without NaN; NaN, without a warning, where all values are NaN."""
    return ratio(np.nansum(rows, 0), (~np.isnan(rows)).sum(0))
