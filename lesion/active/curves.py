"""Results of runs of Algorithm 1: the rows of their tables, label efficiency, and where each rule would stop."""

from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score

from lesion import metrics
from lesion.active.program import RoundInfo
from lesion.dataset import Slices
from lesion.metrics import stopping

ACQUISITIONS = ("fold", "seed", "strategy", "round", "rank", "patient", "slice", "score")
COUNTS = ("labeled_slices", "labeled_patients", "labeled_classes", "pseudo_slices", "num_tied")
ENTROPIES = ("max_entropy", "mean_entropy", "p95_entropy", "sure_share")
CURVES = ("fold", "seed", "strategy", "round", *COUNTS, "accuracy", "auc", *ENTROPIES, "agreement", "stopped")
STOPS = ("fold", "seed", "strategy", "rule", "round", *COUNTS[:2], "accuracy", "auc", "accuracy_lost", "auc_lost")
FULL = "full"  # names the run whose first labelled set is the whole pool
SHARES = (0.95, 0.99)  # of the score with all labels


class Name(NamedTuple):
    """Fold, seed and strategy of a run of Algorithm 1."""

    fold: int
    seed: int
    strategy: str


class Scored(NamedTuple):
    """A run, its accuracy and AUC on the test fold in each round, [R], and the trace that the stopping rules read."""

    info: RoundInfo
    accuracy: np.ndarray
    auc: np.ndarray
    trace: stopping.Trace


def until_exhausted(info: RoundInfo) -> RoundInfo:
    """Returns the rounds after which slices were left to query: from then on all models see the same labels."""
    lasting = int(np.argmin([*(info.max_entropy > -np.inf), False]))
    return RoundInfo(*(column[:lasting] for column in info))


def score(info: RoundInfo, slices: Slices, train: np.ndarray, test: np.ndarray) -> Scored:
    """Scores a run on its `test` slices, bool [N]; its trace covers its `train` slices, bool [N], only."""
    label = slices.label[test]
    accuracy = ((info.probs[:, test] > 0.5) == label).mean(1)
    both = len(np.unique(label)) == 2
    auc = [float(roc_auc_score(label, probs[test])) if both else float("nan") for probs in info.probs]
    return Scored(info, accuracy, np.array(auc), trace(info, train))


def trace(info: RoundInfo, pool: np.ndarray) -> stopping.Trace:
    """Returns the trace of a run that the stopping rules read, over the slices of `pool`, bool [N]."""
    columns = {name: getattr(info, name) for name in stopping.Trace._fields if name in RoundInfo._fields}
    return stopping.Trace(**columns, agreement=stopping.agreement(info.probs[:, pool]))


def limits(config: ConfigDict) -> stopping.StoppingCriteria:
    """Returns the config's stopping criteria."""
    return stopping.StoppingCriteria(
        config.entropy_threshold, config.budget_slices, config.budget_patients, config.stabilizing_predictions
    )


def curve_rows(name: Name, run: Scored, criteria: stopping.StoppingCriteria) -> list[tuple]:
    """Returns a row of curves.csv per round: costs and test scores before the query, and whether a rule had stopped."""
    first = min(stopping.stops(run.trace, criteria).values(), default=len(run.auc))
    counts = [getattr(run.info, column) for column in COUNTS]
    values = [run.accuracy, run.auc, *(getattr(run.info, column) for column in ENTROPIES), run.trace.agreement]
    return [
        (*name, r, *(int(column[r]) for column in counts), *(float(column[r]) for column in values), int(r >= first))
        for r in range(len(run.auc))
    ]


def acquisition_rows(name: Name, run: Scored, slices: Slices) -> list[tuple]:
    """Returns a row of acquisitions.csv for each queried slice."""
    return [
        (*name, r, rank, slices.patient[i], slices.slice_id[i], float(value))
        for r, (indices, scores) in enumerate(zip(run.info.indices, run.info.scores, strict=True))
        for rank, (i, value) in enumerate(zip(indices, scores, strict=True))
        if value > -np.inf
    ]


def stop_rows(name: Name, run: Scored, criteria: stopping.StoppingCriteria) -> list[tuple]:
    """Returns a row of stops.csv for each rule that would have stopped the run.

    A row has the costs and scores of that round, and how much higher the last round's scores are.
    """
    scores = run.accuracy, run.auc
    return [
        (
            *(*name, rule, r, int(run.info.labeled_slices[r]), int(run.info.labeled_patients[r])),
            *(float(s[r]) for s in scores),
            *(float(s[-1] - s[r]) for s in scores),
        )
        for rule, r in stopping.stops(run.trace, criteria).items()
    ]


def summarise(runs: dict[Name, Scored], unit: str) -> dict[str, Any]:
    """Returns the label efficiency of each strategy, JSON-able: the area under its curve and the labels needed.

    Args:
        runs: runs of every fold and seed; those named `FULL` had all labels from the start.
        unit: `slice` or `patient`, the unit of budgets. Areas begin where all strategies of a start have begun, and end
            where the first of all runs ends.

    Returns:
        {"full_data": {score: [mean, low, high]}, "strategies": {name: {"area": {score: [mean, low, high]}, "needed":
        {score: {share: {"slices": median or None, "patients": ..., "reached": n, "at_start": n, "runs": n}}}}}}. A
        median is None if half or more of the runs never reached that share of the score with all labels; `at_start`
        counts the runs whose first labelled set reached it. The score with all labels is the mean of a fold's runs.
        Folds whose test slices are all of one class are left out
        of the AUC's entries.
    """
    full = {name: run for name, run in runs.items() if name.strategy == FULL}
    queried = {name: run for name, run in runs.items() if name.strategy != FULL}
    starts = {(name.fold, name.seed) for name in queried}
    budgets = {
        start: metrics.shared_budget([_cost(run, unit) for n, run in queried.items() if (n.fold, n.seed) == start])
        for start in starts
    }
    end = min(high for _, high in budgets.values())
    result: dict[str, Any] = {"full_data": {}, "strategies": {}}
    targets: dict[str, dict[int, float]] = {}
    for kind in ("accuracy", "auc"):
        last = {name: float(getattr(run, kind)[-1]) for name, run in full.items()}
        last = {name: value for name, value in last.items() if not np.isnan(value)}
        result["full_data"][kind] = _band([[value] for value in last.values()], [name.fold for name in last])
        targets[kind] = {
            fold: float(np.mean([value for name, value in last.items() if name.fold == fold]))
            for fold in {name.fold for name in last}
        }
    for strategy in dict.fromkeys(name.strategy for name in queried):
        summary: dict[str, Any] = {"area": {}, "needed": {}}
        for kind in ("accuracy", "auc"):
            own = {n: r for n, r in queried.items() if n.strategy == strategy and not np.isnan(getattr(r, kind)).any()}
            areas = [
                [metrics.area_under_curve(_cost(run, unit), getattr(run, kind), budgets[n.fold, n.seed][0], end)]
                for n, run in own.items()
            ]
            summary["area"][kind] = _band(areas, [name.fold for name in own])
            summary["needed"][kind] = {
                f"{share:.2f}": _needed(own, kind, {fold: share * value for fold, value in targets[kind].items()})
                for share in SHARES
            }
        result["strategies"][strategy] = summary
    return result


def _cost(run: Scored, unit: str) -> np.ndarray:
    """Returns the number of a run's labelled slices or patients in each round, [R]."""
    return np.asarray(getattr(run.info, f"labeled_{unit}s"), float)


def _band(values: list[list[float]], folds: list[int]) -> list[float | None]:
    """Returns mean, low and high of `values`, one list per run; None without runs."""
    if not values:
        return [None, None, None]
    band = metrics.mean_band(np.array(values), np.array(folds))
    return [_json(float(part[0])) for part in (band.mean, band.low, band.high)]


def _needed(runs: dict[Name, Scored], kind: str, target: dict[int, float]) -> dict[str, Any]:
    """Returns the median costs at which the runs first reached the `target` {fold: score}, and how many did."""
    costs = {
        unit: [
            metrics.cost_to_reach(_cost(run, unit), getattr(run, kind), target[name.fold]) for name, run in runs.items()
        ]
        for unit in ("slice", "patient")
    }
    at_start = sum(bool(getattr(run, kind)[0] >= target[name.fold]) for name, run in runs.items())
    medians = {f"{unit}s": _json(float(np.median(values))) if values else None for unit, values in costs.items()}
    return medians | {"reached": int(np.isfinite(costs["slice"]).sum()), "at_start": at_start, "runs": len(runs)}


def _json(value: float) -> float | None:
    """Returns `value`, or None where it is not finite: JSON has no NaN."""
    return value if np.isfinite(value) else None
