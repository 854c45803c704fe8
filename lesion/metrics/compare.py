"""Comparisons of models on the same patients: paired intervals, DeLong's and McNemar's tests, Holm's correction.

The patients are paired, because one that is hard for one model is mostly hard for the other: the difference is more
certain than two separate intervals suggest.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from lesion.metrics.estimates import NOTHING, THRESHOLD, Estimate, difference_ends, estimates, mean_estimate
from lesion.metrics.scores import LEVELS, SCORES, Columns, check_columns, entry, level_columns, patient_means


class DeLong(NamedTuple):
    """The result of DeLong's test of two correlated AUCs.

    Attributes:
        first: AUC of the first model.
        second: AUC of the second model.
        difference: first minus second.
        z: difference over its standard error; 0 if both rank every pair alike, NaN if the test has no answer.
        df: degrees of freedom of the standard error; NaN without one.
        p: two-sided p value; 1 if both rank every pair alike, NaN if the test has no answer.
    """

    first: float
    second: float
    difference: float
    z: float
    df: float
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


def differences(first: Columns, second: Columns) -> dict[str, Any]:
    """Returns every score of `first` minus that of `second` on the patients of both, with paired intervals.

    Each is scored on all its slices of these patients: they need not be the same slices, or of the same sequence. The
    intervals are those of `estimates.difference_ends`. Tests of patients: DeLong's for the AUC, McNemar's for shares;
    neither they nor the intervals are corrected for the number of comparisons, see `holm`.

    Args:
        first: (label, probability, patient), each [N], of one model.
        second: (label, probability, patient), each [M], of the other model.

    Returns:
        {"slice": {score: {"first", "second", "value", "low", "high"}}, "patient": likewise, and "p" of AUC, accuracy,
        sensitivity and specificity, "num_patients", "num_left_out" (patients that only one scored)}; NaN where
        undefined.

    Raises:
        ValueError: as `common_patients`.
    """
    ours, theirs, left_out = common_patients(first, second)
    name = np.unique(ours[2])
    result: dict[str, Any] = {"num_patients": int(name.size), "num_left_out": left_out}
    for level in LEVELS:
        pair = [_estimates(level_columns(*columns, level), name) for columns in (ours, theirs)]
        result[level] = {score: _difference(*(found[score] for found in pair)) for score in SCORES}
    (label, own, _), (_, other, _) = patient_means(*ours), patient_means(*theirs)
    right = [(probability > THRESHOLD) == label for probability in (own, other)]
    result["patient"]["auc"]["p"] = delong(label, own, other).p
    for score, among in (("accuracy", label >= 0), ("sensitivity", label == 1), ("specificity", label == 0)):
        result["patient"][score]["p"] = mcnemar(*(calls[among] for calls in right)).p if among.any() else float("nan")
    return result


def _estimates(columns: Columns, name: np.ndarray) -> dict[str, Estimate]:
    """Returns the estimates of checked columns, with patients in the order of the sorted `name` [U]."""
    label, probability, patient = columns
    return estimates(label, probability, np.searchsorted(name, patient), name.size)


def _difference(first: Estimate, second: Estimate) -> dict[str, float]:
    low, high = difference_ends(first, second)
    values = {"first": first.value, "second": second.value, "value": first.value - second.value}
    return values | {"low": low, "high": high}


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
        p = {score: change["patient"][score]["p"] for score in ("auc", "accuracy")}
        sizes = change["num_patients"], change["num_left_out"]
        comparisons.append(Comparison(*sizes, change["slice"], change["patient"], calls, p, p))
    adjusted = holm(np.array([p for c in comparisons for p in c.p.values()])).reshape(-1, 2).tolist()
    return [c._replace(adjusted=dict(zip(c.p, p, strict=True))) for c, p in zip(comparisons, adjusted, strict=True)]


def mean_scores(models: Sequence[Columns]) -> dict[str, dict[str, float]]:
    """Returns each score's mean over models, with a 95 % interval that knows they scored the same patients.

    Args:
        models: (label, probability, patient), each [N], of each model, at least one. The rows are slices or patients;
            a patient's slices may have both labels.

    Returns:
        {score: {"value", "low", "high"}}; NaN where undefined. For one model these are the scores of `evaluate`.
    """
    checked = [check_columns(*columns) for columns in models]
    name = np.unique(np.concatenate([patient for _, _, patient in checked]))
    found = [_estimates(columns, name) for columns in checked]
    return {score: entry(mean_estimate([own[score] for own in found])) for score in SCORES}


def delong(label: np.ndarray, first: np.ndarray, second: np.ndarray) -> DeLong:
    """Returns DeLong's test of two correlated AUCs (DeLong, DeLong and Clarke-Pearson 1988).

    It is for patients, one row each: slices of a patient are not independent. With few patients the variance is itself
    uncertain: p is that of Student's t with Satterthwaite's degrees of freedom, close to the normal one with many.

    Args:
        label: [P] in {0, 1}.
        first: [P], one model's probability of glioma.
        second: [P], the other model's probability of the same patients in the same order.

    Returns:
        A `DeLong`, whose p is NaN with fewer than two patients of a class, or if the AUCs differ without variance.

    Raises:
        ValueError: if shapes differ, or as `evaluate`.
    """
    label, first, order = check_columns(label, first, np.arange(np.size(label)))
    _, second, _ = check_columns(label, second, order)
    ours, theirs = (estimates(label, probability, order, label.size)["auc"] for probability in (first, second))
    nan, smaller_class = float("nan"), min(int(label.sum()), int((1 - label).sum()))
    change = ours.influence - theirs.influence
    difference, parts = ours.value - theirs.value, [float(change[label == c] @ change[label == c]) for c in (0, 1)]
    variance = sum(parts)
    if smaller_class < 2 or (variance < NOTHING and abs(difference) > 1e-12):
        return DeLong(ours.value, theirs.value, difference, nan, nan, nan)
    if variance < NOTHING:
        return DeLong(ours.value, theirs.value, difference, 0.0, nan, 1.0)
    df = variance**2 / sum(part**2 / (int((label == c).sum()) - 1) for c, part in enumerate(parts))
    z = difference / float(np.sqrt(variance))
    return DeLong(ours.value, theirs.value, difference, z, df, float(2 * stats.t.sf(abs(z), df)))


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
