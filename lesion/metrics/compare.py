"""Comparisons of models on the same patients: paired bootstrap, DeLong's and McNemar's tests, Holm's correction.

The patients are paired, because one that is hard for one model is mostly hard for the other: the difference is more
certain than two separate intervals suggest.
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
    """The result of DeLong's test of two correlated AUCs.

    Attributes:
        first: AUC of the first model.
        second: AUC of the second model.
        difference: first minus second.
        low: lower end of the normal 95 % interval of the difference; NaN if its variance is undefined or 0.
        high: upper end of the interval, likewise.
        z: difference over its standard error.
        p: two-sided p value; 1 if both rank every pair alike, NaN if the test has no answer.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    z: float
    p: float


class McNemar(NamedTuple):
    """The result of McNemar's test of two sets of calls on the same patients.

    Attributes:
        both: number of patients that both called right.
        first_only: number that only the first called right, discordant pairs.
        second_only: number that only the second called right, discordant pairs.
        neither: number that neither called right.
        p: exact two-sided p value; 1 without discordant pairs.
    """

    both: int
    first_only: int
    second_only: int
    neither: int
    p: float


class Comparison(NamedTuple):
    """The scores of a model minus those of its reference, on the patients that both scored.

    Attributes:
        num_patients: number of patients that both scored.
        num_left_out: number of patients that only one scored.
        slice: {score: entry} at slice level, as in `differences`.
        patient: {score: entry} at patient level.
        mcnemar: McNemar's test of the patients' calls.
        p: p values {"auc": of DeLong's test, "accuracy": of McNemar's test}.
        adjusted: the same p values, corrected by Holm's method over both tests of all models compared.
    """

    num_patients: int
    num_left_out: int
    slice: dict[str, dict[str, float]]
    patient: dict[str, dict[str, float]]
    mcnemar: McNemar
    p: dict[str, float]
    adjusted: dict[str, float]


def common_patients(first: Columns, second: Columns) -> tuple[Columns, Columns, int]:
    """Returns each model's rows of the patients that both scored, and the number of patients that only one scored.

    Raises:
        ValueError: as `evaluate`, or if no patient is common or one has different labels in the two.
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

    In each resample both models are scored on the same patients, each on all its slices of them: these need not be
    the same slices, or of the same sequence. Interval and p come from percentiles (Efron and Tibshirani 1993, ch. 13
    and 15) and are not corrected for the number of comparisons, see `holm`.

    Args:
        first: (label, probability, patient), each [N], of one model.
        second: (label, probability, patient), each [M], of the other model.
        num_resamples: number B of bootstrap draws; no p is below 2 / (B + 1).
        seed: random seed of the draws, which are those of `evaluate` if both scored the same patients.

    Returns:
        {"slice": {score: {"first", "second", "value", "low", "high", "p"}}, "patient": likewise, "num_patients",
        "num_left_out" (patients that only one scored), "num_degenerate"}; NaN where undefined.

    Raises:
        ValueError: as `common_patients`.
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
    """Returns a `Comparison` of each model with `reference`, with tests of the AUC and accuracy of patients.

    The models may be of different sequences: a fusion of sequences can be compared with the best single one.

    Args:
        reference: (label, probability, patient), each [N], of the reference.
        models: (label, probability, patient) of each model, whose number of rows may differ.

    Raises:
        ValueError: as `common_patients`.
    """
    comparisons = []
    for model in models:
        change = differences(model, reference)
        ours, theirs, _ = common_patients(model, reference)
        (label, own, _), (_, other, _) = patient_means(*ours), patient_means(*theirs)
        calls = mcnemar((own > THRESHOLD) == label, (other > THRESHOLD) == label)
        p = {"auc": delong(label, own, other).p, "accuracy": calls.p}
        sizes = change["num_patients"], change["num_left_out"]
        comparisons.append(Comparison(*sizes, change["slice"], change["patient"], calls, p, p))
    adjusted = holm(np.array([p for c in comparisons for p in c.p.values()])).reshape(-1, 2).tolist()
    return [c._replace(adjusted=dict(zip(c.p, p, strict=True))) for c, p in zip(comparisons, adjusted, strict=True)]


def mean_scores(models: Sequence[Columns], *, num_resamples: int = 2000, seed: int = 0) -> dict[str, dict[str, float]]:
    """Returns each score's mean over models, with a 95 % interval; each draw of patients applies to all models.

    Args:
        models: (label, probability, patient), each [N], of each model, at least one. The rows are slices or patients;
            a patient's slices may have both labels.
        num_resamples: number of bootstrap draws; a draw that leaves any model with one class only is left out.
        seed: random seed of the draws, which are those of `evaluate` if all scored the same patients.

    Returns:
        {score: {"value", "low", "high"}}; NaN where undefined. For one model these are the scores of `evaluate`.
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
    """Returns the `PatientCounts` of checked columns, with patients in the order of the sorted `name` [U]."""
    label, probability, patient = columns
    return count_by_patient(label, probability, np.searchsorted(name, patient), name.size)


def _score_differences(
    first: PatientCounts, second: PatientCounts, times_drawn: np.ndarray
) -> dict[str, dict[str, float]]:
    """Returns the entries of `differences` for one level; resamples `times_drawn` [B, U] hold both classes."""
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

    It uses midranks (Sun and Xu 2014) and is for patients, one row each: slices of a patient are not independent.

    Args:
        label: [P] in {0, 1}.
        first: [P], one model's probability of glioma.
        second: [P], the other model's probability of the same patients in the same order.

    Returns:
        A `DeLong`, whose p is NaN with fewer than two patients of a class, or if the AUCs differ without variance.

    Raises:
        ValueError: if shapes differ, or as `evaluate`.
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
    """Returns V10 of each glioma and V01 of each encephalitis: the share of the other class ranked on the right side.

    They are computed from midranks among all and within the class.
    """
    positive = label == 1
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    rank = stats.rankdata(probability)
    v10 = (rank[positive] - stats.rankdata(probability[positive])) / num_negative
    v01 = 1 - (rank[~positive] - stats.rankdata(probability[~positive])) / num_positive
    return v10, v01


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> McNemar:
    """Returns McNemar's exact test of whether one calls more patients right, among those where only one is right.

    Args:
        first_right: bool [P], true for patients that the first called right.
        second_right: bool [P], true for those that the second called right, in the same order.

    Raises:
        ValueError: if shapes differ.
    """
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"want two columns [P], got {first.shape} and {second.shape}")
    first_only, second_only = int((first & ~second).sum()), int((~first & second).sum())
    discordant = first_only + second_only
    p = float(stats.binomtest(first_only, discordant).pvalue) if discordant else 1.0
    return McNemar(int((first & second).sum()), first_only, second_only, int((~first & ~second).sum()), p)


def holm(p: np.ndarray) -> np.ndarray:
    """Returns the p values [K], corrected for multiple testing by Holm's (1979) step-down method.

    The chance that any true null hypothesis among them gets a corrected p below 5 % is at most 5 %, however they
    depend on each other. NaN, a test without an answer, stays NaN and is not counted in K.
    """
    p = np.asarray(p, np.float64)
    if p.ndim != 1:
        raise ValueError(f"want p values [K], got {p.shape}")
    result = np.full(p.shape, np.nan)
    order = [i for i in np.argsort(p, kind="stable") if not np.isnan(p[i])]
    scaled = [(len(order) - step) * p[i] for step, i in enumerate(order)]
    result[order] = np.minimum(np.maximum.accumulate(scaled), 1) if order else []
    return result
