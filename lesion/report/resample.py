"""What needs several runs' patients drawn together: differences between two runs, means over sequences.

One draw of patients serves all runs that are compared, so that what makes a patient hard cancels. As in
`metrics.evaluate`: percentile bootstrap over patients, 2,000 draws, fixed seed.
"""

import numpy as np

from lesion import metrics
from lesion.report import read

SCORES = ("accuracy", "auc", "f1_weighted")
LEVELS = ("slice", "patient")
Scores = dict[str, dict[str, float]]
_DRAWS, _SEED = 2000, 0


def columns(run: read.Run, level: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """label, probability and patient, each [N], of slices or of patients; a patient may carry both labels in slices."""
    if level == "patient":
        return metrics.patient_means(run.label, run.probability, run.patient)
    return run.label, run.probability, run.patient


def scores(label: np.ndarray, probability: np.ndarray, unit: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, AUC and weighted F1 of every resample.

    Args:
        label: int [N] in {0, 1}.
        probability: [N] of glioma.
        unit: int [N] in [0, U), whose row it is.
        counts: [B, U], how often resample b holds unit u.

    Returns:
        {score: [B]}; NaN where a resample does not define it.
    """
    assert label.shape == probability.shape == unit.shape and counts.ndim == 2, (label.shape, counts.shape)
    values, rank = np.unique(probability, return_inverse=True)
    by_rank = np.zeros((2, len(counts), values.size))  # weight of each class at each probability
    for i in range(label.size):
        by_rank[label[i], :, rank[i]] += counts[:, unit[i]]
    negative, positive = by_rank
    called = values > metrics.THRESHOLD
    tn, fp = negative[:, ~called].sum(1), negative[:, called].sum(1)
    fn, tp = positive[:, ~called].sum(1), positive[:, called].sum(1)
    below = np.cumsum(negative, 1) - negative / 2  # a tie counts one half
    total = tn + fp + fn + tp
    with np.errstate(divide="ignore", invalid="ignore"):
        f1 = [np.nan_to_num(2 * right / (2 * right + fp + fn)) for right in (tn, tp)]
        return {
            "accuracy": (tn + tp) / total,
            "auc": (positive * below).sum(1) / ((tn + fp) * (fn + tp)),
            "f1_weighted": ((tn + fp) * f1[0] + (fn + tp) * f1[1]) / total,
        }


def _interval(estimate: np.ndarray, resampled: np.ndarray) -> dict[str, float]:
    value, kept = float(estimate[0]), resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not kept.size:
        return {"value": value, "low": float("nan"), "high": float("nan")}
    low, high = (float(x) for x in np.percentile(kept, (2.5, 97.5)))
    return {"value": value, "low": min(low, value), "high": max(high, value)}


def _draw(
    tables: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
    """Scores of each table on everybody, [1], and on the same draws of patients, [B]."""
    names = np.unique(np.concatenate([patient for _, _, patient in tables]))
    counts = np.random.default_rng(_SEED).multinomial(names.size, np.full(names.size, 1 / names.size), _DRAWS)
    whole = np.ones((1, names.size))
    units = [np.searchsorted(names, patient) for _, _, patient in tables]
    return tuple(  # type: ignore[return-value]
        [scores(label, p, unit, drawn) for (label, p, _), unit in zip(tables, units, strict=True)]
        for drawn in (whole, counts.astype(np.float64))
    )


def means(runs: list[read.Run], level: str) -> Scores:
    """Means over `runs` with their interval; a patient is drawn for all of them at once."""
    estimate, resampled = _draw([columns(run, level) for run in runs])
    return {s: _interval(np.mean([e[s] for e in estimate], 0), np.mean([r[s] for r in resampled], 0)) for s in SCORES}


def difference(first: read.Run, second: read.Run, level: str) -> Scores | None:
    """`first` minus `second` on the patients that both scored, or None where they share none."""
    tables = [columns(run, level) for run in (first, second)]
    shared = np.intersect1d(tables[0][2], tables[1][2])
    if not shared.size:
        return None
    kept = [(t[0][mask], t[1][mask], t[2][mask]) for t in tables for mask in [np.isin(t[2], shared)]]
    estimate, resampled = _draw(kept)
    return {s: _interval(estimate[0][s] - estimate[1][s], resampled[0][s] - resampled[1][s]) for s in SCORES}
