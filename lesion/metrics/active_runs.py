"""A table of runs of Algorithm 1: mean curves, differences from random queries, and the rounds where rules would stop.

The table is curves.csv: a row for each fold, seed, strategy and round, in this order, with the columns labeled_slices,
labeled_patients, accuracy, auc, max_entropy, mean_entropy, p95_entropy and agreement (see `stopping.Trace`).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lesion.metrics import stopping
from lesion.metrics.active_curves import Band, mean_band, paired_difference

# With two classes these three are monotone in |p − ½| and query the same slices.
SAME = ("entropy", "margin", "least_confidence")
RANDOM = "random"
SCORES = ("accuracy", "auc")
_RUN = ["fold", "seed"]
_COSTS = {"slices": "labeled_slices", "patients": "labeled_patients"}
Triple = tuple[float, float, float]


class Curve(NamedTuple):
    """The mean curve of a strategy's runs over the T rounds that all of them reached.

    Attributes:
        strategy: name of the strategy in the table.
        names: names of all strategies with this curve.
        costs: {"slices" or "patients": float64 [T], mean number labelled at each round}.
        bands: {"accuracy" or "auc": `Band` [T]}.
        num_runs: number of runs, that is of (fold, seed).
        num_folds: number of folds among the runs.
    """

    strategy: str
    names: list[str]
    costs: dict[str, np.ndarray]
    bands: dict[str, Band]
    num_runs: int
    num_folds: int


class Difference(NamedTuple):
    """The scores of a strategy minus those of random queries, paired by (fold, seed).

    Attributes:
        strategy: name of the strategy in the table.
        slices: mean number of labelled slices at each round, float64 [T].
        bands: {"accuracy" or "auc": `Band` [T] of the differences}.
        overall: {"accuracy" or "auc": (mean, low, high)} of the mean difference over all rounds after the common start.
        num_pairs: number of pairs, that is of (fold, seed) that both have.
    """

    strategy: str
    slices: np.ndarray
    bands: dict[str, Band]
    overall: dict[str, Triple]
    num_pairs: int


class Stop(NamedTuple):
    """The stops of a strategy's runs by one rule, in hindsight.

    Attributes:
        strategy: name of the strategy in the table.
        rule: name of the rule, a key of `stopping.RULES` or `exhausted`.
        num_stopped: number of runs that the rule would have stopped.
        num_runs: number of all runs.
        slices: (least, median, most) labelled slices at the stop; NaN if no run would have stopped.
        regret: (mean, low, high) of the accuracy at the last round minus that at the stop, over the stopped runs; NaN
            if no run would have stopped; low and high are NaN too with fewer than three folds.
    """

    strategy: str
    rule: str
    num_stopped: int
    num_runs: int
    slices: Triple
    regret: Triple


def strategies(table: pd.DataFrame) -> list[str]:
    """Returns the names of the strategies in the order of the report, random last."""
    return sorted(set(table["strategy"]), key=lambda name: (name == RANDOM, name not in SAME, name))


def rows_of(table: pd.DataFrame, strategy: str) -> pd.DataFrame:
    """Returns the rows of one strategy, indexed anew from 0."""
    return table[table["strategy"] == strategy].reset_index(drop=True)


def run_mean(values: np.ndarray, folds: Sequence[str] | pd.Series) -> Triple:
    """Returns (mean, low, high) of one value for each run, [M], see `mean_band`; `folds` [M] are the runs' folds."""
    band = mean_band(values[:, None], np.asarray(folds, str))
    return float(band.mean[0]), float(band.low[0]), float(band.high[0])


def mean_curves(table: pd.DataFrame) -> list[Curve]:
    """Returns a curve for each strategy; strategies of `SAME` whose runs agree in every number share one."""
    columns = [*_RUN, "round", *_COSTS.values(), *SCORES]
    result: list[Curve] = []
    for strategy in strategies(table):
        rows = rows_of(table, strategy)[columns]
        twins = [curve for curve in result if strategy in SAME and curve.strategy in SAME]
        twins = [curve for curve in twins if rows.equals(rows_of(table, curve.strategy)[columns])]
        if twins:
            twins[0].names.append(strategy)
            continue
        pivots = {column: rows.pivot(index=_RUN, columns="round", values=column) for column in columns[3:]}
        slices = pivots["labeled_slices"].dropna(axis="columns")
        reached, folds = slices.columns, slices.index.get_level_values("fold").to_numpy(str)
        costs = {unit: pivots[column][reached].mean().to_numpy() for unit, column in _COSTS.items()}
        bands = {score: mean_band(pivots[score][reached].to_numpy(), folds) for score in SCORES}
        result.append(Curve(strategy, [strategy], costs, bands, len(slices), len(set(folds))))
    return result


def difference_to_random(table: pd.DataFrame, strategy: str) -> Difference | None:
    """Returns a strategy's difference from random at the rounds that all pairs reached; None if there is no pair."""
    ours, theirs = (rows_of(table, name) for name in (strategy, RANDOM))
    both = ours.merge(theirs, on=[*_RUN, "round"], suffixes=("", "_random"))
    if strategy == RANDOM or both.empty:
        return None

    def pivot(column: str) -> pd.DataFrame:
        return both.pivot(index=_RUN, columns="round", values=column)

    slices = pivot("labeled_slices").dropna(axis="columns")
    reached, folds = slices.columns, slices.index.get_level_values("fold").to_numpy(str)
    start = 1 if len(reached) > 1 else 0  # both begin with the same labels
    bands, overall = {}, {}
    for score in SCORES:
        own, other = (pivot(column)[reached].to_numpy() for column in (score, f"{score}_random"))
        bands[score] = paired_difference(own, other, folds)
        # One number for the whole curve, defined in advance: no choice of the best budget afterwards.
        overall[score] = run_mean(own[:, start:].mean(1) - other[:, start:].mean(1), folds)
    return Difference(strategy, slices.mean().to_numpy(), bands, overall, len(slices))


def stops_of_runs(
    table: pd.DataFrame, strategy: str, criteria: stopping.StoppingCriteria, entropy_statistic: str = "max"
) -> list[Stop]:
    """Returns the stops of a strategy's runs by each rule that would have stopped any.

    The entropy rule, unless it is off, comes first and is included even if it would have stopped none.
    """
    runs = [rows for _, rows in rows_of(table, strategy).groupby(_RUN)]
    stops_by_rule: dict[str, list[pd.Series]] = {"entropy": []} if criteria.entropy else {}
    for rows in runs:
        entropy = rows[f"{entropy_statistic}_entropy"].where(np.isfinite(rows["max_entropy"]), -np.inf)
        columns = rows["labeled_slices"], rows["labeled_patients"], entropy, rows["agreement"]
        trace = stopping.Trace(*(column.to_numpy() for column in columns))
        regret = rows["accuracy"].iloc[-1] - rows["accuracy"]
        for rule, r in stopping.stops(trace, criteria).items():
            stops_by_rule.setdefault(rule, []).append(rows.assign(regret=regret).iloc[r])
    result = []
    for rule, stopped in stops_by_rule.items():
        slices = regrets = (math.nan,) * 3
        if stopped:
            at_stop = pd.DataFrame(stopped)
            least, median, most = at_stop["labeled_slices"].quantile([0, 0.5, 1])
            slices, regrets = (least, median, most), run_mean(at_stop["regret"].to_numpy(float), at_stop["fold"])
            if at_stop["fold"].nunique() < 3:  # a t-interval of two units is too wide to mean anything
                regrets = regrets[0], math.nan, math.nan
        result.append(Stop(strategy, rule, len(stopped), len(runs), slices, regrets))
    return result
