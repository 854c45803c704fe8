"""How often the intervals of `lesion.metrics` hold the truth: cohorts are simulated of which it is known.

A row's score is normal, higher by a constant for glioma, with as much spread between patients as between a patient's
slices; two models on the same rows correlate at .6, the second with an AUC lower by .05. The threshold lies off the
middle, so that sensitivity and specificity differ. Patients are a random sample: how many have a glioma varies.
"""

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from lesion.metrics import LEVEL
from lesion.metrics.estimates import difference_ends, ends, estimates
from lesion.metrics.scores import LEVELS, SCORES
from lesion.progress import track

NUM_COHORTS = 2000
NUM_PATIENTS = (20, 60, 200)
AUCS = (0.6, 0.8, 0.9, 0.97)
PREVALENCES = (0.2, 0.5)
MAX_SLICES = 12
LEAST, MOST = 0.93, 0.98  # coverage that is wanted; above, an interval is wider than it need be
_WORSE, _SHIFT = 0.05, 0.5  # the second model's AUC is lower by this; of the threshold, in standard deviations
_BETWEEN, _CORRELATION = 0.5, 0.6  # share of the variance between patients; correlation of the models


class Setting(NamedTuple):
    """A population to draw cohorts from, and their size; `level` is "slice" or "patient"."""

    level: str
    num_patients: int
    auc: float
    prevalence: float


class Coverage(NamedTuple):
    """Coverage of one interval in one setting.

    Attributes:
        setting: the population and the size of its cohorts.
        score: name of the score.
        difference: whether it is of the difference of the two models.
        held: share of the intervals that held the truth, NaN of none.
        shown: share of the cohorts that had an interval.
    """

    setting: Setting
    score: str
    difference: bool
    held: float
    shown: float


def truths(setting: Setting) -> list[dict[str, float]]:
    """Returns the true scores of both models, {score: value} each."""
    found = []
    for auc in (setting.auc, setting.auc - _WORSE):
        apart = np.sqrt(2) * stats.norm.ppf(auc)
        sensitivity, specificity = stats.norm.cdf(apart / 2 + _SHIFT), stats.norm.cdf(apart / 2 - _SHIFT)
        tp, tn = setting.prevalence * sensitivity, (1 - setting.prevalence) * specificity
        f1_positive, f1_negative = (2 * right / (right + 1 - (tp + tn) + right) for right in (tp, tn))
        found.append(
            {
                "auc": auc,
                "sensitivity": sensitivity,
                "specificity": specificity,
                "accuracy": tp + tn,
                "f1_positive": f1_positive,
                "f1_weighted": setting.prevalence * f1_positive + (1 - setting.prevalence) * f1_negative,
            }
        )
    return found


def draw(setting: Setting, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Draws a cohort: label [N], the two models' probabilities, each [N], and the index of each row's patient [N]."""
    sick = rng.random(setting.num_patients) < setting.prevalence
    count = rng.integers(1, MAX_SLICES + 1, sick.size) if setting.level == "slice" else np.ones(sick.size, np.int64)
    patient = np.repeat(np.arange(sick.size), count)
    label = sick[patient].astype(np.int64)
    covariance = np.array([[1, _CORRELATION], [_CORRELATION, 1]])
    of_patient, of_row = (rng.multivariate_normal([0, 0], covariance, size) for size in (sick.size, patient.size))
    noise = np.sqrt(_BETWEEN) * of_patient[patient] + np.sqrt(1 - _BETWEEN) * of_row
    apart = np.sqrt(2) * stats.norm.ppf([setting.auc, setting.auc - _WORSE])
    logit = apart * (label[:, None] - 0.5) + _SHIFT + noise
    return label, list(special.expit(logit).T), patient


def measure(setting: Setting, num_cohorts: int) -> Iterator[Coverage]:
    """Yields the coverage of the intervals of every score, and of its difference between the models."""
    rng = np.random.default_rng([LEVELS.index(setting.level), *(round(100 * number) for number in setting[1:])])
    first, second = truths(setting)
    held = collections.Counter[tuple[str, bool]]()
    shown = collections.Counter[tuple[str, bool]]()
    for _ in range(num_cohorts):
        label, probabilities, patient = draw(setting, rng)
        ours, theirs = (estimates(label, p, patient, setting.num_patients) for p in probabilities)
        for score in SCORES:
            for difference in (False, True):
                low, high = difference_ends(ours[score], theirs[score]) if difference else ends(ours[score])
                truth = first[score] - second[score] * difference
                shown[score, difference] += bool(low <= high)
                held[score, difference] += bool(low <= truth <= high)
    for score, difference in shown:
        count = shown[score, difference]
        share = held[score, difference] / count if count else np.nan
        yield Coverage(setting, score, difference, share, count / num_cohorts)


def run(num_cohorts: int = NUM_COHORTS) -> list[Coverage]:
    """Returns the coverage of every interval in every setting."""
    settings = [
        Setting(level, size, auc, prevalence)
        for level in LEVELS
        for size in NUM_PATIENTS
        for auc in AUCS
        for prevalence in PREVALENCES
    ]
    return [found for setting in track("coverage", settings, len(settings)) for found in measure(setting, num_cohorts)]


def wanting(found: Coverage, num_cohorts: int) -> bool:
    """Returns whether a coverage lies below `LEAST` by more than two simulation errors."""
    shown = max(found.shown * num_cohorts, 1)
    return found.held < LEAST - 2 * np.sqrt(LEVEL * (1 - LEVEL) / shown)


def table(coverages: Sequence[Coverage], num_cohorts: int = NUM_COHORTS) -> list[list[str]]:
    """Returns the lowest and highest coverage over AUCs and prevalences as rows of text, the heading first.

    "!" marks a lowest one that is `wanting`, "+" a highest above `MOST`; in brackets the share of cohorts that had an
    interval, where that is not all.
    """
    sizes = sorted({found.setting.num_patients for found in coverages})
    rows = [["coverage, %", *(f"{size} patients" for size in sizes)]]
    for level in LEVELS:
        for difference in (False, True):
            for score in SCORES:
                row = [f"{score.replace('_', ' ')} of {level}s{', difference' if difference else ''}"]
                for size in sizes:
                    own = [
                        found
                        for found in coverages
                        if (found.score, found.difference) == (score, difference)
                        and (found.setting.level, found.setting.num_patients) == (level, size)
                        and found.shown * num_cohorts >= num_cohorts / 20
                    ]
                    row.append(_cell(own, num_cohorts) if own else "–")
                rows.append(row)
    return rows


def _cell(own: Sequence[Coverage], num_cohorts: int) -> str:
    low, high = (100 * end(found.held for found in own) for end in (min, max))
    marks = "!" * any(wanting(found, num_cohorts) for found in own), "+" * (high > 100 * MOST)
    shown = 100 * float(np.mean([found.shown for found in own]))
    return f"{low:.1f}{marks[0]}–{high:.1f}{marks[1]}" + (f" ({shown:.0f} %)" if shown < 99.5 else "")
