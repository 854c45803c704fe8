"""95 % intervals of shares and AUCs, of their paired differences, and of means over folds; see `lesion.metrics`.

None leaves the range of what it is for: [0, 1] of a score, [−1, 1] of a difference.
"""

import numpy as np
from scipy import optimize, special

LEVEL = 0.95
Ends = tuple[float, float]
NO_INTERVAL: Ends = (float("nan"), float("nan"))


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Returns top / bottom, NaN where bottom is 0."""
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)


def quantile(df: float = np.inf) -> float:
    """Returns the two-sided 95 % quantile of Student's t with `df` degrees of freedom; if infinite, the normal one."""
    tail = (1 + LEVEL) / 2
    return float(special.ndtri(tail) if np.isinf(df) else special.stdtrit(df, tail))


def wilson(share: np.ndarray | float, count: np.ndarray | float, df: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
    """Returns Wilson's 95 % interval of a share out of `count` independent units.

    Source: Wilson 1927, Journal of the American Statistical Association 22:209.

    Args:
        share: [...] in [0, 1].
        count: [...], need not be whole; where it is 0 the interval is NaN.
        df: degrees of freedom if `count` is an estimate, see `quantile`.

    Returns:
        The lower and upper ends, each [...].
    """
    share, count = np.broadcast_arrays(np.asarray(share, np.float64), np.asarray(count, np.float64))
    shrink = ratio(np.full(count.shape, quantile(df) ** 2), count)
    centre = (share + shrink / 2) / (1 + shrink)
    half = np.sqrt(shrink * share * (1 - share) + shrink**2 / 4) / (1 + shrink)
    # The limits only undo rounding: at 0 of n and n of n the ends are 0 and 1.
    return np.clip(np.minimum(centre - half, share), 0, 1), np.clip(np.maximum(centre + half, share), 0, 1)


def logit_interval(value: float, variance: float, df: float = np.inf) -> Ends:
    """Returns the 95 % interval of a score inside (0, 1) that is symmetric on the logit scale, by the delta method.

    Source: Pepe 2003, The Statistical Evaluation of Medical Tests, section 5.2.3.
    """
    half = quantile(df) * np.sqrt(variance) / (value * (1 - value))
    return float(special.expit(special.logit(value) - half)), float(special.expit(special.logit(value) + half))


def auc_score_interval(auc: float, num_positive: float, num_negative: float) -> Ends:
    """Returns the 95 % interval of the AUCs that their own variance does not rule out, for an AUC without one: 0 or 1.

    The variance is Hanley and McNeil's with (m + n) / 2 − 1 in place of m − 1 and n − 1. Source: Newcombe 2006,
    Statistics in Medicine 25:559, method 5.

    Args:
        auc: the AUC, in [0, 1].
        num_positive: number m of patients of the positive class, at least 1.
        num_negative: number n of patients of the other class, at least 1.
    """
    others = (num_positive + num_negative) / 2 - 1

    def excess(true: float) -> float:
        shape = 1 + others * ((1 - true) / (2 - true) + true / (1 + true))
        return (auc - true) ** 2 - quantile() ** 2 * true * (1 - true) * shape / (num_positive * num_negative)

    # `excess` is below 0 beside the AUC, and not below it at 0 and 1.
    inside = min(max(auc, 1e-9), 1 - 1e-9)
    low = 0.0 if auc <= 0 else float(optimize.brentq(excess, 0, inside))
    return low, 1.0 if auc >= 1 else float(optimize.brentq(excess, inside, 1))


def corrected_interval(scores: np.ndarray, num_folds: int) -> Ends:
    """Returns the 95 % interval of the mean score over the folds of one or more cross-validations, corrected.

    The folds share patients, so that the variance of the mean of J scores is taken as s² (1/J + 1/(K − 1)) with K folds
    a cross-validation, whose test set has 1/(K − 1) of the training set's size (Nadeau and Bengio 2003, Machine
    Learning 52:239; Bouckaert and Frank 2004). Its coverage of scores near 1 is not known: it is cut to [0, 1].

    Args:
        scores: [J], NaN where a fold has no score.
        num_folds: number K of folds a cross-validation, at least 2.
    """
    scores = scores[np.isfinite(scores)]
    if scores.size < 2 or num_folds < 2:
        return NO_INTERVAL
    half = quantile(scores.size - 1) * np.sqrt(scores.var(ddof=1) * (1 / scores.size + 1 / (num_folds - 1)))
    return max(float(scores.mean() - half), 0.0), min(float(scores.mean() + half), 1.0)


def square_and_add(first: float, ends: Ends, second: float, other_ends: Ends, correlation: float) -> Ends:
    """Returns the 95 % interval of first − second from the interval of each and the correlation of the two.

    Sources: Newcombe 1998, Statistics in Medicine 17:2635, method 10, for paired shares; Zou and Donner 2008,
    Statistics in Medicine 27:1693, for any two estimates.
    """
    below, above = first - ends[0], ends[1] - first
    other_below, other_above = second - other_ends[0], other_ends[1] - second
    squares = (
        below**2 - 2 * correlation * below * other_above + other_above**2,
        above**2 - 2 * correlation * above * other_below + other_below**2,
    )
    down, up = (float(np.sqrt(max(square, 0))) for square in squares)
    return max(first - second - down, -1.0), min(first - second + up, 1.0)
