"""What came of runs of Algorithm 1: tables, what labels bought, and where to stop."""

from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score

from lesion import metrics
from lesion.active import stopping
from lesion.active.program import RoundInfo
from lesion.data import Slices

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


def score(info: RoundInfo, slices: Slices, train: np.ndarray, test: np.ndarray, entropy_of: str) -> Scored:
    """Scores a run on its `test` slices [N] bool; its rules look at those of `train` [N] bool only."""
    label = slices.label[test]
    accuracy = ((info.probs[:, test] > 0.5) == label).mean(1)
    both = len(np.unique(label)) == 2
    auc = [float(roc_auc_score(label, probs[test])) if both else float("nan") for probs in info.probs]
    entropy = getattr(info, f"{entropy_of}_entropy")
    entropy = np.where(np.isneginf(info.max_entropy), -np.inf, entropy)
    trace = stopping.Trace(
        info.labeled_slices, info.labeled_patients, entropy, stopping.agreement(info.probs[:, train])
    )
    return Scored(info, accuracy, np.array(auc), trace)


def limits(config: ConfigDict) -> stopping.Limits:
    """The config's stopping rules."""
    return stopping.Limits(config.entropy_threshold, config.budget_slices, config.budget_patients, config.plateau)


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


def area(cost: np.ndarray, value: np.ndarray) -> float:
    """Area under [R] values against their cost [R], divided by the span of the cost: a mean over budgets."""
    if cost[-1] == cost[0]:
        return float(value.mean())
    return float(np.trapezoid(value, cost) / (cost[-1] - cost[0]))


def needed(cost: np.ndarray, value: np.ndarray, target: float) -> float:
    """The cost at which values [R] first reach the target; infinite if never."""
    reached = np.flatnonzero(value >= target)
    return float(cost[reached[0]]) if reached.size else float("inf")


def summarise(runs: dict[Name, Scored]) -> dict[str, Any]:
    """What labels bought, JSON-able: the score with all of them, and of each strategy the area and the labels needed.

    Args:
        runs: of every fold and seed; those named `FULL`, one a fold, had all labels from the start.

    Returns:
        {"full_data": {score: mean of the folds}, "strategies": {name: {"area": {score: [mean, low, high]}, "needed":
        {score: {share: {"slices": median or None, "patients": ..., "reached": n, "runs": n}}}}}}. A median over runs
        some of which never got there is None if they are half or more.
    """
    full = {name.fold: run for name, run in runs.items() if name.strategy == FULL}
    result: dict[str, Any] = {"full_data": {}, "strategies": {}}
    for kind in ("accuracy", "auc"):
        result["full_data"][kind] = float(np.mean([getattr(run, kind)[-1] for run in full.values()]))
    for strategy in dict.fromkeys(name.strategy for name in runs if name.strategy != FULL):
        own = {name: run for name, run in runs.items() if name.strategy == strategy}
        folds = np.array([name.fold for name in own])
        told: dict[str, Any] = {"area": {}, "needed": {}}
        for kind in ("accuracy", "auc"):
            areas = np.array([[area(run.info.labeled_slices, getattr(run, kind))] for run in own.values()])
            band = metrics.mean_band(areas, folds)
            told["area"][kind] = [_json(float(part[0])) for part in (band.mean, band.low, band.high)]
            told["needed"][kind] = {
                f"{share:.2f}": _needed(own, kind, {f: share * getattr(r, kind)[-1] for f, r in full.items()})
                for share in SHARES
            }
        result["strategies"][strategy] = told
    return result


def _needed(runs: dict[Name, Scored], kind: str, target: dict[int, float]) -> dict[str, Any]:
    costs = {
        unit: [
            needed(getattr(run.info, f"labeled_{unit}"), getattr(run, kind), target[name.fold])
            for name, run in runs.items()
        ]
        for unit in ("slices", "patients")
    }
    reached = int(np.isfinite(costs["slices"]).sum())
    medians = {unit: _json(float(np.median(values))) for unit, values in costs.items()}
    return medians | {"reached": reached, "runs": len(runs)}


def _json(value: float) -> float | None:
    return value if np.isfinite(value) else None
