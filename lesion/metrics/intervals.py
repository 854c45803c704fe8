"""Intervals: bootstrap draws of patients, percentile intervals and p values, Wilson's interval of a share."""

import numpy as np
from scipy import stats

LEVEL = 0.95


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Returns top / bottom, NaN where bottom is 0."""
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)


def draw_patients(num_patients: int, num_resamples: int, seed: int) -> np.ndarray:
    """Returns the number of times each resample draws each patient: float64 [B, P], whose rows sum to P.

    The same arguments give the same draws: scores of several models on the same patients are paired.
    """
    share = np.full(num_patients, 1 / num_patients)
    return np.random.default_rng(seed).multinomial(num_patients, share, num_resamples).astype(np.float64)


def percentile_interval(value: float, resampled: np.ndarray) -> tuple[float, float]:
    """Returns the percentile bootstrap's 95 % interval of a score; NaN without resamples or score.

    With few patients the percentile interval of a skewed score may miss the estimate itself; it is widened to it.

    Args:
        value: score of all patients.
        resampled: [B], score of each resample.
    """
    if np.isnan(value) or not resampled.size:
        return float("nan"), float("nan")
    tail = 100 * (1 - LEVEL) / 2
    low, high = (float(end) for end in np.percentile(resampled, (tail, 100 - tail)))
    return min(low, value), max(high, value)


def bootstrap_p(resampled: np.ndarray) -> float:
    """Returns the two-sided p of a difference from its resamples [B]: twice the smaller share on one side of 0.

    It inverts the percentile interval: that of level 1 − p just reaches 0. The estimate itself counts as one more
    resample (Davison and Hinkley 1997, eq. 4.11), so no p is 0; none is above 1. Differences within 1e-12 count as 0,
    so that rounding does not decide.
    """
    if not resampled.size:
        return float("nan")
    below, above = (resampled <= 1e-12).sum(), (resampled >= -1e-12).sum()
    return float(min(1.0, 2 * (1 + min(below, above)) / (1 + resampled.size)))


def wilson(share: np.ndarray | float, count: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Returns Wilson's 95 % interval of a share out of `count` independent units.

    Source: Wilson 1927, Journal of the American Statistical Association 22:209.

    Args:
        share: [...] in [0, 1].
        count: [...], need not be whole; where it is 0 the interval is NaN.

    Returns:
        The lower and upper ends, each [...].
    """
    share, count = np.broadcast_arrays(np.asarray(share, np.float64), np.asarray(count, np.float64))
    z = stats.norm.ppf((1 + LEVEL) / 2)
    shrink = ratio(np.full(count.shape, z * z), count)
    centre = (share + shrink / 2) / (1 + shrink)
    half = np.sqrt(shrink * share * (1 - share) + shrink**2 / 4) / (1 + shrink)
    # The clip only undoes rounding: at 0 of n and n of n the ends are 0 and 1.
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
