"""What needs several runs' patients drawn together: differences between two runs, means over sequences.

One draw of patients serves all runs that are compared, so that what makes a patient hard cancels.
"""

import numpy as np

from lesion import metrics
from lesion.metrics import intervals
from lesion.metrics.scores import forms, score_resamples
from lesion.report import read

LEVELS = ("slice", "patient")
Scores = dict[str, dict[str, float]]
_DRAWS, _SEED = 2000, 0  # as of `metrics.evaluate`


def columns(run: read.Run, level: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """label, probability and patient, each [N], of slices or of patients; a patient may carry both labels in slices."""
    if level == "patient":
        return metrics.patient_means(run.label, run.probability, run.patient)
    return run.label, run.probability, run.patient


def means(runs: list[read.Run], level: str) -> Scores:
    """Means over `runs` with their interval: percentile bootstrap, a patient is drawn for all of them at once.

    Args:
        runs: at least one; of one, this is what `metrics.evaluate` says.
        level: "slice" or "patient".

    Returns:
        {score: {"value", "low", "high"}}; NaN where undefined.
    """
    tables = [columns(run, level) for run in runs]
    names = np.unique(np.concatenate([patient for _, _, patient in tables]))
    found = [forms(label, p, np.searchsorted(names, patient), names.size) for label, p, patient in tables]
    whole = [score_resamples(np.ones((1, names.size)), form) for form in found]
    drawn = [score_resamples(intervals.draws(names.size, _DRAWS, _SEED), form) for form in found]
    both = np.isfinite(np.sum([scores["auc"] for scores in drawn], axis=0))  # a draw of one class is left out
    result = {}
    for score in metrics.SCORES:
        value = float(np.mean([scores[score][0] for scores in whole]))
        low, high = intervals.percentiles(value, np.mean([scores[score][both] for scores in drawn], axis=0))
        result[score] = {"value": value, "low": low, "high": high}
    return result


def difference(first: read.Run, second: read.Run, level: str) -> Scores | None:
    """`first` minus `second` on the patients that both scored, see `metrics.differences`; None where that is nobody."""
    pair = [(run.label, run.probability, run.patient) for run in (first, second)]
    try:
        return metrics.differences(*pair, num_resamples=_DRAWS, seed=_SEED)[level]
    except ValueError:  # no patient in common, or one with another label
        return None
