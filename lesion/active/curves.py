"""What came of runs of Algorithm 1: tables, what labels bought, and where to stop."""

from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score

from lesion import metrics
from lesion.active.program import RoundInfo
from lesion.dataset import Slices
from lesion.metrics import stopping

ACQUISITIONS = ("fold", "seed", "strategy", "round", "rank", "patient", "slice", "score")
COSTS = ("labeled_slices", "labeled_patients", "pseudo_slices")
ENTROPIES = ("max_entropy", "mean_entropy", "p95_entropy")
CURVES = ("fold", "seed", "strategy", "round", *COSTS, "accuracy", "auc", *ENTROPIES, "agreement", "stopped")
STOPS = ("fold", "seed", "strategy", "rule", "round", *COSTS[:2], "accuracy", "auc", "accuracy_lost", "auc_lost")
FULL = "full"  # a run whose first labelled set is everything
SHARES = (0.95, 0.99)


class Name(NamedTuple):
    """Which run: fold, seed, strategy."""

    fold: int
    seed: int
    strategy: str


class Scored(NamedTuple):
    """A run and its scores on the test fold, [R] each; and what the stopping rules look at."""

    info: RoundInfo
    accuracy: np.ndarray
    auc: np.ndarray
    trace: stopping.Trace


def score(info: RoundInfo, slices: Slices, train: np.ndarray, test: np.ndarray, entropy_statistic: str) -> Scored:
    """Scores a run on its `test` slices [N] bool; its rules look at those of `train` [N] bool only."""
    label = slices.label[test]
    accuracy = ((info.probs[:, test] > 0.5) == label).mean(1)
    both = len(np.unique(label)) == 2
    auc = [float(roc_auc_score(label, probs[test])) if both else float("nan") for probs in info.probs]
    return Scored(info, accuracy, np.array(auc), trace(info, train, entropy_statistic))


def trace(info: RoundInfo, pool: np.ndarray, entropy_statistic: str) -> stopping.Trace:
    """What the stopping rules look at, of the `pool` [N] bool."""
    entropy = np.where(np.isneginf(info.max_entropy), -np.inf, getattr(info, f"{entropy_statistic}_entropy"))
    agreement = stopping.agreement(info.probs[:, pool])
    return stopping.Trace(info.labeled_slices, info.labeled_patients, entropy, agreement)


def limits(config: ConfigDict) -> stopping.Limits:
    """The config's stopping rules."""
    return stopping.Limits(
        config.entropy_threshold, config.budget_slices, config.budget_patients, config.stabilizing_predictions
    )


def curve_rows(name: Name, run: Scored, limits: stopping.Limits) -> list[tuple]:
    """One row a round: costs and test scores of the model before it asks, and whether any rule had stopped it."""
    first = min(stopping.stops(run.trace, limits).values(), default=len(run.auc))
    counts = [getattr(run.info, c) for c in COSTS]
    values = [run.accuracy, run.auc, *(getattr(run.info, c) for c in ENTROPIES), run.trace.agreement]
    return [
        (*name, r, *(int(c[r]) for c in counts), *(float(c[r]) for c in values), int(r >= first))
        for r in range(len(run.auc))
    ]


def acquisition_rows(name: Name, run: Scored, slices: Slices) -> list[tuple]:
    """One row a slice asked for."""
    return [
        (*name, r, rank, slices.patient[i], slices.slice_id[i], float(value))
        for r, (indices, scores) in enumerate(zip(run.info.indices, run.info.scores, strict=True))
        for rank, (i, value) in enumerate(zip(indices, scores, strict=True))
        if value > -np.inf
    ]


def stop_rows(name: Name, run: Scored, limits: stopping.Limits) -> list[tuple]:
    """One row a rule that would have stopped the run: what it had cost, and the points lost against going on."""
    scores = run.accuracy, run.auc
    return [
        (
            *(*name, rule, r, int(run.info.labeled_slices[r]), int(run.info.labeled_patients[r])),
            *(float(s[r]) for s in scores),
            *(float(s[-1] - s[r]) for s in scores),
        )
        for rule, r in stopping.stops(run.trace, limits).items()
    ]


def area(cost: np.ndarray, value: np.ndarray, low: float, high: float) -> float:
    """Mean of the curve of [R] values over their cost [R] from `low` to `high`, by the trapezoidal rule."""
    if high <= low:
        return float(np.interp(low, cost, value))
    grid = np.unique([low, *cost[(cost > low) & (cost < high)], high])
    return float(np.trapezoid(np.interp(grid, cost, value), grid) / (high - low))


def needed(cost: np.ndarray, value: np.ndarray, target: float) -> float:
    """The cost at which values [R] first reach the target; infinite if never."""
    reached = np.flatnonzero(value >= target)
    return float(cost[reached[0]]) if reached.size else float("inf")


def summarise(runs: dict[Name, Scored], unit: str) -> dict[str, Any]:
    """What labels bought, JSON-able: the score with all of them, and of each strategy the area and the labels needed.

    Args:
        runs: of every fold and seed; those named `FULL`, one a fold, had all labels from the start.
        unit: `slice` or `patient`; areas are over the budgets, counted in it, that all strategies of a start reached.

    Returns:
        {"full_data": {score: mean of the folds}, "strategies": {name: {"area": {score: [mean, low, high]}, "needed":
        {score: {share: {"slices": median or None, "patients": ..., "reached": n, "at_start": n, "runs": n}}}}}}. A
        median is None if half or more of the runs never got there; `at_start`: had, with the first labelled set. Runs
        of a fold whose test slices are of one class are left out of what is told of the AUC.
    """
    full = {name.fold: run for name, run in runs.items() if name.strategy == FULL}
    asked = {name: run for name, run in runs.items() if name.strategy != FULL}
    spans = {start: _span(asked, start, unit) for start in {(n.fold, n.seed) for n in asked}}
    result: dict[str, Any] = {"full_data": {}, "strategies": {}}
    for kind in ("accuracy", "auc"):
        last = np.array([getattr(run, kind)[-1] for run in full.values()])
        result["full_data"][kind] = _json(float(last[~np.isnan(last)].mean())) if not np.isnan(last).all() else None
    for strategy in dict.fromkeys(name.strategy for name in asked):
        told: dict[str, Any] = {"area": {}, "needed": {}}
        for kind in ("accuracy", "auc"):
            own = {n: r for n, r in asked.items() if n.strategy == strategy and not np.isnan(getattr(r, kind)).any()}
            areas = [[area(_cost(run, unit), getattr(run, kind), *spans[n.fold, n.seed])] for n, run in own.items()]
            told["area"][kind] = _band(areas, [name.fold for name in own])
            told["needed"][kind] = {
                f"{share:.2f}": _needed(own, kind, {f: share * getattr(r, kind)[-1] for f, r in full.items()})
                for share in SHARES
            }
        result["strategies"][strategy] = told
    return result


def _cost(run: Scored, unit: str) -> np.ndarray:
    return np.asarray(getattr(run.info, f"labeled_{unit}s"), float)


def _span(runs: dict[Name, Scored], start: tuple[int, int], unit: str) -> tuple[float, float]:
    """The budgets that all strategies of one fold and seed reached."""
    costs = [_cost(run, unit) for name, run in runs.items() if (name.fold, name.seed) == start]
    return max(c[0] for c in costs), min(c[-1] for c in costs)


def _band(values: list[list[float]], folds: list[int]) -> list[float | None]:
    if not values:
        return [None, None, None]
    band = metrics.mean_band(np.array(values), np.array(folds))
    return [_json(float(part[0])) for part in (band.mean, band.low, band.high)]


def _needed(runs: dict[Name, Scored], kind: str, target: dict[int, float]) -> dict[str, Any]:
    costs = {
        unit: [needed(_cost(run, unit), getattr(run, kind), target[name.fold]) for name, run in runs.items()]
        for unit in ("slice", "patient")
    }
    at_start = sum(bool(getattr(run, kind)[0] >= target[name.fold]) for name, run in runs.items())
    medians = {f"{unit}s": _json(float(np.median(values))) if values else None for unit, values in costs.items()}
    return medians | {"reached": int(np.isfinite(costs["slice"]).sum()), "at_start": at_start, "runs": len(runs)}


def _json(value: float) -> float | None:
    return value if np.isfinite(value) else None
