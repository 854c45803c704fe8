"""Several models on the same patients: paired bootstrap of any score, DeLong's test of AUCs, McNemar's test, Holm.

Paired, because a patient that is hard for one model is mostly hard for the other: the difference is surer than two
intervals side by side suggest.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from lesion.metrics.intervals import LEVEL, bootstrap_p, draw_patients, percentile_interval
from lesion.metrics.scores import (
    SCORES,
    THRESHOLD,
    PatientCounts,
    both_classes,
    check_columns,
    count_by_patient,
    patient_means,
    score_resamples,
)

Columns = tuple[np.ndarray, np.ndarray, np.ndarray]  # label, probability, patient, each [N], of one model


class DeLong(NamedTuple):
    """DeLong's test of two correlated AUCs.

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
    """McNemar's test of two sets of calls on the same patients.

    Attributes:
        both: patients that both called right.
        first_only: discordant pairs: only the first called right.
        second_only: discordant pairs: only the second.
        neither: none.
        p: exact, two-sided; 1 where they never differ.
    """

    both: int
    first_only: int
    second_only: int
    neither: int
    p: float


class Comparison(NamedTuple):
    """A model minus the one that it is compared with, on the patients that both scored.

    Attributes:
        num_patients: how many these are.
        num_left_out: patients that only one scored.
        slice: {score: entry} of `differences`.
        patient: likewise.
        mcnemar: of the calls of patients.
        p: {"auc": of DeLong's test, "accuracy": of McNemar's}.
        adjusted: the same, corrected over both tests of all models compared, by Holm's method.
    """

    num_patients: int
    num_left_out: int
    slice: dict[str, dict[str, float]]
    patient: dict[str, dict[str, float]]
    mcnemar: McNemar
    p: dict[str, float]
    adjusted: dict[str, float]


def common_patients(first: Columns, second: Columns) -> tuple[Columns, Columns, int]:
    """Returns both models' rows of the patients that both scored, and how many patients only one of them scored.

    Raises:
        ValueError: as `evaluate`, no patient in common, or one with another label in each.
    """
    (label_a, probability_a, patient_a), (label_b, probability_b, patient_b) = (
        check_columns(*first),
        check_columns(*second),
    )
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
    """Returns every score of `first` minus that of `second`, by a paired bootstrap over the patients of both.

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
        ValueError: see `common_patients`.
    """
    ours, theirs, left_out = common_patients(first, second)
    name = np.unique(ours[2])
    times_drawn = draw_patients(name.size, num_resamples, seed)
    both = both_classes(times_drawn, patient_means(*ours)[0])
    result: dict[str, Any] = {
        "num_patients": int(name.size),
        "num_left_out": left_out,
        "num_degenerate": int((~both).sum()),
    }
    for level in ("slice", "patient"):
        first, second = (columns if level == "slice" else patient_means(*columns) for columns in (ours, theirs))
        result[level] = _score_differences(_count(first, name), _count(second, name), times_drawn[both])
    return result


def compare_models(reference: Columns, models: Sequence[Columns]) -> list[Comparison]:
    """Returns each model minus `reference`, with tests of the AUC and the accuracy of patients.

    The models need not be of one sequence: a fusion of sequences may be compared with the best single one.

    Args:
        reference: (label, probability, patient), each [N].
        models: likewise, each of as many rows as it has.

    Raises:
        ValueError: see `common_patients`.
    """
    found = []
    for model in models:
        change = differences(model, reference)
        ours, theirs, _ = common_patients(model, reference)
        (label, own, _), (_, other, _) = patient_means(*ours), patient_means(*theirs)
        calls = mcnemar((own > THRESHOLD) == label, (other > THRESHOLD) == label)
        p = {"auc": delong(label, own, other).p, "accuracy": calls.p}
        sizes = change["num_patients"], change["num_left_out"]
        found.append(Comparison(*sizes, change["slice"], change["patient"], calls, p, p))
    adjusted = holm(np.array([p for comparison in found for p in comparison.p.values()])).reshape(-1, 2).tolist()
    return [c._replace(adjusted=dict(zip(c.p, p, strict=True))) for c, p in zip(found, adjusted, strict=True)]


def mean_scores(models: Sequence[Columns], *, num_resamples: int = 2000, seed: int = 0) -> dict[str, dict[str, float]]:
    """Returns each score's mean over several models, with a 95 % interval: patients are drawn for all of them at once.

    Args:
        models: (label, probability, patient), each [N], of each model, at least one. The rows are slices or patients;
            a patient's slices may carry both labels.
        num_resamples: bootstrap draws; a draw that leaves one model with one class only is left out.
        seed: of the draws, which are `evaluate`'s where all scored the same patients.

    Returns:
        {score: {"value", "low", "high"}}; NaN where undefined. Of one model, these are the scores of `evaluate`.
    """
    checked = [check_columns(*columns) for columns in models]
    name = np.unique(np.concatenate([patient for _, _, patient in checked]))
    counts = [_count(columns, name) for columns in checked]
    estimates = [score_resamples(np.ones((1, name.size)), count) for count in counts]
    times_drawn = draw_patients(name.size, num_resamples, seed)
    resampled = [score_resamples(times_drawn, count) for count in counts]
    both = np.isfinite(np.sum([scores["auc"] for scores in resampled], axis=0))
    result = {}
    for score in SCORES:
        value = float(np.mean([scores[score][0] for scores in estimates]))
        low, high = percentile_interval(value, np.mean([scores[score][both] for scores in resampled], axis=0))
        result[score] = {"value": value, "low": low, "high": high}
    return result


def _count(columns: Columns, name: np.ndarray) -> PatientCounts:
    """Returns the `PatientCounts` of checked columns, patients in the order of `name` [U], which is sorted."""
    label, probability, patient = columns
    return count_by_patient(label, probability, np.searchsorted(name, patient), name.size)


def _score_differences(
    first: PatientCounts, second: PatientCounts, times_drawn: np.ndarray
) -> dict[str, dict[str, float]]:
    """Returns the entries of `differences` of one level; resamples `times_drawn` [B, U] hold both classes."""
    whole = np.ones((1, times_drawn.shape[1]))
    estimates = [score_resamples(whole, counts) for counts in (first, second)]
    resampled = [score_resamples(times_drawn, counts) for counts in (first, second)]
    result = {}
    for score in SCORES:
        ours, theirs = (float(estimate[score][0]) for estimate in estimates)
        change = resampled[0][score] - resampled[1][score]
        low, high = percentile_interval(ours - theirs, change)
        p = bootstrap_p(change) if np.isfinite(ours - theirs) else float("nan")
        result[score] = {"first": ours, "second": theirs, "value": ours - theirs, "low": low, "high": high, "p": p}
    return result


def delong(label: np.ndarray, first: np.ndarray, second: np.ndarray) -> DeLong:
    """Returns DeLong's test of two correlated AUCs (DeLong, DeLong and Clarke-Pearson 1988).

    By midranks (Sun and Xu 2014). For patients, one row each: slices of one patient are not independent.

    Args:
        label: [P] in {0, 1}.
        first: [P], one model's probability of glioma.
        second: [P], the other's, of the same patients in the same order.

    Returns:
        A `DeLong`. With fewer than two patients of a class, or no variance though the AUCs differ, p is NaN.

    Raises:
        ValueError: shapes differ, or what `evaluate` refuses.
    """
    label, first, patient = check_columns(label, first, np.arange(np.size(label)))
    _, second, _ = check_columns(label, second, patient)
    nan, smaller_class = float("nan"), min(int(label.sum()), int((1 - label).sum()))
    if smaller_class < 1:
        return DeLong(*(nan,) * 7)
    ours, theirs = (_structural_components(label, probability) for probability in (first, second))
    auc_a, auc_b = float(ours[0].mean()), float(theirs[0].mean())
    difference = auc_a - auc_b
    changes = [a - b for a, b in zip(ours, theirs, strict=True)]
    if not any(np.abs(change).max() > 1e-12 for change in changes):
        return DeLong(auc_a, auc_b, difference, 0.0, 0.0, 0.0, 1.0)
    variance = sum(float(change.var(ddof=1)) / change.size for change in changes) if smaller_class > 1 else 0.0
    if variance < 1e-24:
        return DeLong(auc_a, auc_b, difference, nan, nan, nan, nan)
    error = np.sqrt(variance)
    half = float(stats.norm.ppf((1 + LEVEL) / 2) * error)
    z = float(difference / error)
    return DeLong(auc_a, auc_b, difference, difference - half, difference + half, z, float(2 * stats.norm.sf(abs(z))))


def _structural_components(label: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns V10 of the gliomas and V01 of the encephalitides: the share of the other class ranked on the right side.

    From midranks among all and within the class.
    """
    positive = label == 1
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    rank = stats.rankdata(probability)
    v10 = (rank[positive] - stats.rankdata(probability[positive])) / num_negative
    v01 = 1 - (rank[~positive] - stats.rankdata(probability[~positive])) / num_positive
    return v10, v01


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> McNemar:
    """Returns McNemar's exact test: of the patients that one calls right and the other wrong, does either get more?

    Args:
        first_right: bool [P], which patients the first called right.
        second_right: bool [P], the second, in the same order.

    Raises:
        ValueError: shapes differ.
    """
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"want two columns [P], got {first.shape} and {second.shape}")
    first_only, second_only = int((first & ~second).sum()), int((~first & second).sum())
    discordant = first_only + second_only
    p = float(stats.binomtest(first_only, discordant).pvalue) if discordant else 1.0
    return McNemar(int((first & second).sum()), first_only, second_only, int((~first & ~second).sum()), p)


def holm(p: np.ndarray) -> np.ndarray:
    """Returns the p values [K] corrected for there being K of them, by Holm's (1979) step-down method.

    The chance that any true null hypothesis among them gets a corrected p below 5 % is at most 5 %, however they
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
