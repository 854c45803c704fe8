"""Scores with each patient's share in their error, from which intervals, paired differences and means are made.

The influence of a patient is about how far the score moves for that patient. Its squares sum to the variance of the
score, its products to the covariance of two scores of the same patients (an infinitesimal jackknife by patient). Of an
AUC with one row a patient this is the variance of DeLong et al. 1988, with several that of Obuchowski 1997; of a share
that of a ratio estimator. Squares are divided by 1 − the patient's share of the rows, against the bias of few patients
(CR2 of Bell and McCaffrey 2002), which for one row a patient is the usual n − 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lesion.metrics.intervals import (
    NO_INTERVAL,
    Ends,
    auc_score_interval,
    logit_interval,
    ratio,
    square_and_add,
    wilson,
)

THRESHOLD = 0.5
SHARES = ("accuracy", "sensitivity", "specificity")  # of rows, each right or wrong
# Least number of patients, of the rarer class for an AUC, with which an interval holds: {score: (one row a patient,
# several rows)}, as `launch.benchmark --suite=coverage` finds.
LEAST = {
    "auc": (3, 12),
    "accuracy": (6, 6),
    "sensitivity": (6, 3),
    "specificity": (6, 3),
    "f1_weighted": (6, 6),
    "f1_positive": (13, 13),
    "brier": (30, 20),  # at 20 patients .91 to .92, at 30 .94; simulated apart
}
NOTHING = 1e-20  # a variance below it is 0 but for rounding


class Estimate(NamedTuple):
    """A score of one level.

    Attributes:
        score: name of the score.
        value: in [0, 1]; NaN where the data do not define it.
        influence: influence of each of U patients, float64 [U].
        df: degrees of freedom of its variance.
        units: (of positive patients, of negative patients) for an AUC; else (rows that count, effective number of
            patients by Kish 1965, as if the rows of a patient were copies).
        patients: number of patients behind it, of the rarer class for an AUC.
        clustered: whether any patient has several rows.
    """

    score: str
    value: float
    influence: np.ndarray
    df: float
    units: tuple[float, float]
    patients: int
    clustered: bool

    @property
    def variance(self) -> float:
        """Variance of the score."""
        return float(self.influence @ self.influence)

    @property
    def effective(self) -> float:
        """Number of independent rows that would give a share this variance, at most as many as there are."""
        rows, patients = self.units
        if self.variance < NOTHING:
            return patients
        independent = self.value * (1 - self.value) / self.variance * rows / max(rows - 1, 1)
        return min(independent, rows) if self.score in SHARES else independent


def estimates(
    label: np.ndarray, probability: np.ndarray, patient: np.ndarray, num_patients: int
) -> dict[str, Estimate]:
    """Returns the `Estimate` of every score, {score: Estimate}.

    Args:
        label: int64 [N] in {0, 1}.
        probability: float64 [N] of glioma.
        patient: int64 [N], index of each row's patient.
        num_patients: number U of patients, those without a row included.
    """
    assert label.shape == probability.shape == patient.shape, (label.shape, probability.shape, patient.shape)
    cell = 4 * patient + 2 * label + (probability > THRESHOLD)
    cells = np.bincount(cell, minlength=4 * num_patients).reshape(num_patients, 4).astype(np.float64)
    tn, fp, fn, tp = cells.T
    return {
        "accuracy": share("accuracy", tn + tp, cells.sum(1)),
        "auc": _auc(label, probability, patient, num_patients),
        "f1_weighted": _f1_weighted(cells),
        "f1_positive": share("f1_positive", 2 * tp, 2 * tp + fp + fn, empty=0.0),
        "sensitivity": share("sensitivity", tp, tp + fn),
        "specificity": share("specificity", tn, tn + fp),
    }


def share(score: str, hits: np.ndarray, trials: np.ndarray, empty: float = np.nan) -> Estimate:
    """Returns the estimate Σ hits / Σ trials, a ratio of sums over patients, each [U].

    Args:
        score: name of the score.
        hits: [U], between 0 and `trials`.
        trials: [U].
        empty: value without a trial.
    """
    assert hits.shape == trials.shape, (hits.shape, trials.shape)
    total = float(trials.sum())
    value = float(hits.sum()) / total if total else empty
    influence, effective = _influence(hits - value * trials if total else np.zeros_like(hits), trials)
    # A share of independent rows has the variance of a binomial: nothing is estimated.
    df = np.inf if score in SHARES and trials.max() <= 1 else effective - 1
    return Estimate(score, value, influence, df, (total, effective), int((trials > 0).sum()), bool(trials.max() > 1))


def _influence(error: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the influence [U] of patients with these sums of errors over `rows` [U], and Kish's number of them."""
    total = rows.sum()
    scale = ratio(np.ones_like(rows), np.sqrt(total * (total - rows)))
    return np.nan_to_num(error * scale), float(ratio(total**2, (rows**2).sum()))


def _auc(label: np.ndarray, probability: np.ndarray, patient: np.ndarray, num_patients: int) -> Estimate:
    """Returns the estimate of the AUC, the share of pairs of a positive and a negative row in the right order."""
    positive = label == 1
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    clustered = bool(np.bincount(patient).max() > 1)
    if not (num_positive and num_negative):
        return Estimate("auc", np.nan, np.zeros(num_patients), np.nan, (0, 0), 0, clustered)
    right_of_positive = _share_below(probability[positive], probability[~positive])
    right_of_negative = 1 - _share_below(probability[~positive], probability[positive])
    value = float(np.clip(right_of_positive.mean(), 0, 1))
    parts, patients = [], []
    for right, members in ((right_of_positive, patient[positive]), (right_of_negative, patient[~positive])):
        rows = np.bincount(members, minlength=num_patients).astype(np.float64)
        parts.append(_influence(np.bincount(members, right - value, num_patients), rows))
        patients.append(int((rows > 0).sum()))
    variances = np.array([influence @ influence for influence, _ in parts])
    df = ratio(variances.sum() ** 2, (variances**2 / [max(effective - 1, 1e-9) for _, effective in parts]).sum())
    influence = parts[0][0] + parts[1][0]
    if clustered:  # few patients with most of the errors make the variance less certain: by its own fourth powers
        squares = influence**2
        df = min(df, ratio(2 * squares.sum() ** 2, (squares**2).sum() - squares.sum() ** 2 / num_patients))
    return Estimate("auc", value, influence, float(df), (patients[0], patients[1]), min(patients), clustered)


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns for each value the share of `others` that it exceeds, a tie as one half."""
    others = np.sort(others)
    return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / (2 * others.size)


def _f1_weighted(cells: np.ndarray) -> Estimate:
    """Returns the estimate of both classes' F1, weighted by their size, of `cells` [U, (tn, fp, fn, tp)]."""
    rows = cells.sum(1)
    tn, fp, fn, tp = cells.T
    total, weight = rows.sum(), (fn + tp).sum() / rows.sum()
    value, error = 0.0, np.zeros_like(rows)
    f1s = []
    for hits, own in ((tp, weight), (tn, 1 - weight)):
        f1 = share("f1_positive", 2 * hits, 2 * hits + fp + fn, empty=0.0)
        size = max(f1.units[0], 1)
        f1s.append(f1.value)
        value += own * f1.value
        error += own * (2 * hits - f1.value * (2 * hits + fp + fn)) * total / size
    error += (f1s[0] - f1s[1]) * ((fn + tp) - weight * rows)
    influence, effective = _influence(error, rows)
    patients = int((rows > 0).sum())
    return Estimate(
        "f1_weighted", float(value), influence, effective - 1, (float(total), effective), patients, bool(rows.max() > 1)
    )


def mean_estimate(members: Sequence[Estimate]) -> Estimate:
    """Returns the mean of one score over several models of the same patients; of one model that model's."""
    units = np.mean([member.units for member in members], axis=0)
    return members[0]._replace(
        value=float(np.mean([member.value for member in members])),
        influence=np.mean([member.influence for member in members], axis=0),
        df=min(member.df for member in members),
        units=(float(units[0]), float(units[1])),
        patients=min(member.patients for member in members),
        clustered=any(member.clustered for member in members),
    )


def least_patients(score: str, clustered: bool) -> int:
    """Returns the least number of patients, of the rarer class for an AUC, with which a score's interval is given."""
    return LEAST.get(score, (2, 2))[clustered]


def ends(estimate: Estimate) -> Ends:
    """Returns the 95 % interval of a score; NaN where it is undefined or has fewer patients than `LEAST`."""
    if np.isnan(estimate.value) or estimate.patients < least_patients(estimate.score, estimate.clustered):
        return NO_INTERVAL
    if estimate.score != "auc":
        # Without variance the number of patients is used, which is no estimate.
        low, high = wilson(estimate.value, estimate.effective, estimate.df if estimate.variance > NOTHING else np.inf)
        return float(low), float(high)
    if estimate.variance < NOTHING:
        return auc_score_interval(estimate.value, *estimate.units)
    return logit_interval(estimate.value, estimate.variance, estimate.df)


def difference_ends(first: Estimate, second: Estimate) -> Ends:
    """Returns the 95 % interval of first − second, two estimates of the same patients; NaN if either has none."""
    spread = np.sqrt(first.variance * second.variance)
    correlation = float(first.influence @ second.influence / spread) if spread > NOTHING else 0.0
    if first.score in SHARES and correlation > 0:  # Newcombe's continuity correction
        width = np.sqrt(first.value * (1 - first.value) * second.value * (1 - second.value))
        units = np.sqrt(first.effective * second.effective)
        correlation = max(correlation - 1 / (2 * units * width), 0.0)
    return square_and_add(first.value, ends(first), second.value, ends(second), correlation)
