"""Two models on the same patients: paired bootstrap of any score, DeLong's test of AUCs, McNemar's test, Holm.

Paired, because a patient that is hard for one model is mostly hard for the other: the difference is surer than two
intervals side by side suggest.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from lesion.metrics.intervals import LEVEL, draws, percentiles, two_sided_p
from lesion.metrics.scores import SCORES, Forms, both_classes, checked, forms, patient_means, score_resamples

Columns = tuple[np.ndarray, np.ndarray, np.ndarray]  # label, probability, patient, each [N], of one model


class DeLong(NamedTuple):
    """Two correlated AUCs.

    Attributes:
        first: AUC of the first model.
        second: AUC of the second.
        difference: first minus second.
        low: of its 95 % interval, normal; NaN where no variance is defined or it is 0.
        high: likewise.
        z: difference over its standard error.
        p: two-sided; 1 where both rank every pair alike, NaN where the test has no answer.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    z: float
    p: float


class McNemar(NamedTuple):
    """Two sets of calls on the same patients.

    Attributes:
        both: patients that both called right.
        first_only: only the first.
        second_only: only the second.
        neither: none.
        p: exact, two-sided; 1 where they never differ.
    """

    both: int
    first_only: int
    second_only: int
    neither: int
    p: float


def common(first: Columns, second: Columns) -> tuple[Columns, Columns, int]:
    """Both models' rows of the patients that both scored, and how many patients only one of them did.

    Raises:
        ValueError: as `evaluate`, no patient in common, or one with another label in each.
    """
    (label_a, probability_a, patient_a), (label_b, probability_b, patient_b) = checked(*first), checked(*second)
    shared = np.intersect1d(patient_a, patient_b)
    if not shared.size:
        raise ValueError("the two have no patient in common")
    keep_a, keep_b = np.isin(patient_a, shared), np.isin(patient_b, shared)
    ours = label_a[keep_a], probability_a[keep_a], patient_a[keep_a]
    theirs = label_b[keep_b], probability_b[keep_b], patient_b[keep_b]
    wrong = int((patient_means(*ours)[0] != patient_means(*theirs)[0]).sum())
    if wrong:
        raise ValueError(f"{wrong} patients have another label in each")
    return ours, theirs, int(np.setxor1d(patient_a, patient_b).size)


def differences(first: Columns, second: Columns, *, num_resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Every score of `first` minus that of `second`, by a paired bootstrap over the patients that both scored.

    In each resample both models are scored on the same patients, with all slices that each has of them: they need
    not be the same slices, or of the same sequence. Interval and p are those of percentiles (Efron and Tibshirani
    1993, ch. 13 and 15), not corrected for how many comparisons are made: see `holm`.

    Args:
        first: (label, probability, patient), each [N], of one model.
        second: of the other, [M].
        num_resamples: bootstrap draws B; no p is below 2 / (B + 1).
        seed: of the draws, which are `evaluate`'s where both scored the same patients.

    Returns:
        {"slice": {score: {"first", "second", "value", "low", "high", "p"}}, "patient": likewise, "num_patients",
        "num_left_out" (patients that only one scored), "num_degenerate"}; NaN where undefined.

    Raises:
        ValueError: see `common`.
    """
    ours, theirs, left_out = common(first, second)
    name = np.unique(ours[2])
    counts = draws(name.size, num_resamples, seed)
    both = both_classes(counts, patient_means(*ours)[0])
    result: dict[str, Any] = {
        "num_patients": int(name.size),
        "num_left_out": left_out,
        "num_degenerate": int((~both).sum()),
    }
    for level in ("slice", "patient"):
        first, second = (columns if level == "slice" else patient_means(*columns) for columns in (ours, theirs))
        result[level] = _differences(_forms(first, name), _forms(second, name), counts[both])
    return result


def _forms(columns: Columns, name: np.ndarray) -> Forms:
    label, probability, patient = columns
    return forms(label, probability, np.searchsorted(name, patient), name.size)


def _differences(first: Forms, second: Forms, counts: np.ndarray) -> dict[str, dict[str, float]]:
    whole = np.ones((1, counts.shape[1]))
    values = [score_resamples(whole, level) for level in (first, second)]
    drawn = [score_resamples(counts, level) for level in (first, second)]
    result = {}
    for score in SCORES:
        ours, theirs = (float(value[score][0]) for value in values)
        change = drawn[0][score] - drawn[1][score]
        low, high = percentiles(ours - theirs, change)
        p = two_sided_p(change) if np.isfinite(ours - theirs) else float("nan")
        result[score] = {"first": ours, "second": theirs, "value": ours - theirs, "low": low, "high": high, "p": p}
    return result


def delong(label: np.ndarray, first: np.ndarray, second: np.ndarray) -> DeLong:
    """DeLong's test of two correlated AUCs (DeLong, DeLong and Clarke-Pearson 1988), by midranks (Sun and Xu 2014).

    For patients, one row each: slices of one patient are not independent.

    Args:
        label: [P] in {0, 1}.
        first: [P], one model's probability of glioma.
        second: [P], the other's, of the same patients in the same order.

    Returns:
        A `DeLong`. With fewer than two patients of a class, or no variance though the AUCs differ, p is NaN.

    Raises:
        ValueError: shapes differ, or what `evaluate` refuses.
    """
    label, first, patient = checked(label, first, np.arange(np.size(label)))
    _, second, _ = checked(label, second, patient)
    nan, few = float("nan"), min(int(label.sum()), int((1 - label).sum()))
    if few < 1:
        return DeLong(*(nan,) * 7)
    # Each structural component: the share of the other class that a patient is on the right side of.
    ours, theirs = (_components(label, probability) for probability in (first, second))
    auc_a, auc_b = float(ours[0].mean()), float(theirs[0].mean())
    difference = auc_a - auc_b
    changes = [a - b for a, b in zip(ours, theirs, strict=True)]
    if not any(np.abs(change).max() > 1e-12 for change in changes):
        return DeLong(auc_a, auc_b, difference, 0.0, 0.0, 0.0, 1.0)
    variance = sum(float(change.var(ddof=1)) / change.size for change in changes) if few > 1 else 0.0
    if variance < 1e-24:
        return DeLong(auc_a, auc_b, difference, nan, nan, nan, nan)
    error = np.sqrt(variance)
    half = float(stats.norm.ppf((1 + LEVEL) / 2) * error)
    z = float(difference / error)
    return DeLong(auc_a, auc_b, difference, difference - half, difference + half, z, float(2 * stats.norm.sf(abs(z))))


def _components(label: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """V10 of the gliomas and V01 of the encephalitides, from midranks among all and within the class."""
    positive = label == 1
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    rank = stats.rankdata(probability)
    v10 = (rank[positive] - stats.rankdata(probability[positive])) / num_negative
    v01 = 1 - (rank[~positive] - stats.rankdata(probability[~positive])) / num_positive
    return v10, v01


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> McNemar:
    """McNemar's exact test: of the patients that one calls right and the other wrong, does either get more?

    Args:
        first_right: bool [P], which patients the first called right.
        second_right: bool [P], the second, in the same order.

    Raises:
        ValueError: shapes differ.
    """
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"want two columns [P], got {first.shape} and {second.shape}")
    ours, theirs = int((first & ~second).sum()), int((~first & second).sum())
    p = float(stats.binomtest(ours, ours + theirs).pvalue) if ours + theirs else 1.0
    return McNemar(int((first & second).sum()), ours, theirs, int((~first & ~second).sum()), p)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) step-down correction: the p values [K] adjusted for there being K of them.

    The chance that any true null hypothesis among them gets an adjusted p below 5 % is at most 5 %, however they
    depend on each other. NaN, a test without an answer, stays NaN and is not counted.
    """
    p = np.asarray(p, np.float64)
    if p.ndim != 1:
        raise ValueError(f"want p values [K], got {p.shape}")
    result = np.full(p.shape, np.nan)
    order = [i for i in np.argsort(p, kind="stable") if not np.isnan(p[i])]
    scaled = [(len(order) - step) * p[i] for step, i in enumerate(order)]
    result[order] = np.minimum(np.maximum.accumulate(scaled), 1) if order else []
    return result
