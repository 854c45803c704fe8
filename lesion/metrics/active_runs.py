"""Runs of Algorithm 1 as a table: their mean curves, differences to random queries, and where rules would stop them.

The table is that of curves.csv: a row a fold, seed, strategy and round, in this order, with the columns labeled_slices,
labeled_patients, accuracy, auc, max_entropy, mean_entropy, p95_entropy and agreement (see `stopping.Trace`).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lesion.metrics import stopping
from lesion.metrics.active_curves import Band, mean_band, paired_difference

# With two classes all three are monotone in |p − ½| and pick the same slices.
SAME = ("entropy", "margin", "least_confidence")
RANDOM = "random"
SCORES = ("accuracy", "auc")
_RUN = ["fold", "seed"]
_COSTS = {"slices": "labeled_slices", "patients": "labeled_patients"}
Triple = tuple[float, float, float]


class Curve(NamedTuple):
    """The mean of one strategy's runs over the rounds that all of them reached.

    Attributes:
        strategy: the name in the table.
        names: all strategies that this curve stands for.
        costs: {"slices" or "patients": float64 [T], mean number labelled at each round}.
        bands: {"accuracy" or "auc": `Band` of [T]}.
        num_runs: how many (fold, seed).
        num_folds: how many folds among them.
    """

    strategy: str
    names: list[str]
    costs: dict[str, np.ndarray]
    bands: dict[str, Band]
    num_runs: int
    num_folds: int


class Difference(NamedTuple):
    """A strategy minus random, paired by (fold, seed).

    Attributes:
        strategy: the name in the table.
        slices: float64 [T], mean labelled slices at each round.
        bands: {"accuracy" or "auc": `Band` of [T]}.
        overall: {"accuracy" or "auc": (mean, low, high)}, averaged over all rounds after the common start.
        num_pairs: how many (fold, seed) both have.
    """

    strategy: str
    slices: np.ndarray
    bands: dict[str, Band]
    overall: dict[str, Triple]
    num_pairs: int


class Stop(NamedTuple):
    """Where a rule would have ended a strategy's runs, looking back.

    Attributes:
        strategy: the name in the table.
        rule: a key of `stopping.RULES`, or `exhausted`.
        num_stopped: runs that it would have stopped.
        num_runs: all runs.
        slices: (least, median, most) labelled slices at the stop, NaN where it stopped none.
        regret: (mean, low, high) accuracy at the last round minus at the stop, over the stopped runs, NaN where it
            stopped none; no interval from fewer than three folds.
    """

    strategy: str
    rule: str
    num_stopped: int
    num_runs: int
    slices: Triple
    regret: Triple


def strategies(table: pd.DataFrame) -> list[str]:
    """Returns the strategies in the order in which they are shown, random last."""
    return sorted(set(table["strategy"]), key=lambda name: (name == RANDOM, name not in SAME, name))


def rows_of(table: pd.DataFrame, strategy: str) -> pd.DataFrame:
    """Returns the rows of one strategy."""
    return table[table["strategy"] == strategy].reset_index(drop=True)


def run_mean(values: np.ndarray, folds: Sequence[str] | pd.Series) -> Triple:
    """Returns mean, low and high of a value [M] of each run, see `mean_band`; `folds` [M] are the runs'."""
    band = mean_band(values[:, None], np.asarray(folds, str))
    return float(band.mean[0]), float(band.low[0]), float(band.high[0])


def mean_curves(table: pd.DataFrame) -> list[Curve]:
    """Returns one curve a strategy; strategies of `SAME` whose runs agree in every number become one."""
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
    """Returns a strategy minus random at each round that all pairs reached; None where they share no (fold, seed)."""
    ours, theirs = (rows_of(table, name) for name in (strategy, RANDOM))
    both = ours.merge(theirs, on=[*_RUN, "round"], suffixes=("", "_random"))
    if strategy == RANDOM or both.empty:
        return None

    def pivot(column: str) -> pd.DataFrame:
        return both.pivot(index=_RUN, columns="round", values=column)

    slices = pivot("labeled_slices").dropna(axis="columns")
    reached, folds = slices.columns, slices.index.get_level_values("fold").to_numpy(str)
    start = 1 if len(reached) > 1 else 0  # the first round is common
    bands, overall = {}, {}
    for score in SCORES:
        own, other = (pivot(column)[reached].to_numpy() for column in (score, f"{score}_random"))
        bands[score] = paired_difference(own, other, folds)
        # One number for the whole curve, fixed before looking: no picking of the best budget.
        overall[score] = run_mean(own[:, start:].mean(1) - other[:, start:].mean(1), folds)
    return Difference(strategy, slices.mean().to_numpy(), bands, overall, len(slices))


def stops_of_runs(
    table: pd.DataFrame, strategy: str, criteria: stopping.StoppingCriteria, entropy_statistic: str = "max"
) -> list[Stop]:
    """Returns where each rule would have stopped a strategy's runs.

    Rules that would have stopped none are left out, but not the entropy's, which comes first unless it is off.
    """
    runs = [rows for _, rows in rows_of(table, strategy).groupby(_RUN)]
    found: dict[str, list[pd.Series]] = {"entropy": []} if criteria.entropy else {}
    for rows in runs:
        entropy = rows[f"{entropy_statistic}_entropy"].where(np.isfinite(rows["max_entropy"]), -np.inf)
        columns = rows["labeled_slices"], rows["labeled_patients"], entropy, rows["agreement"]
        trace = stopping.Trace(*(column.to_numpy() for column in columns))
        regret = rows["accuracy"].iloc[-1] - rows["accuracy"]
        for rule, r in stopping.stops(trace, criteria).items():
            found.setdefault(rule, []).append(rows.assign(regret=regret).iloc[r])
    result = []
    for rule, stopped in found.items():
        slices = regrets = (math.nan,) * 3
        if stopped:
            at_stop = pd.DataFrame(stopped)
            least, median, most = at_stop["labeled_slices"].quantile([0, 0.5, 1])
            slices, regrets = (least, median, most), run_mean(at_stop["regret"].to_numpy(float), at_stop["fold"])
            if at_stop["fold"].nunique() < 3:  # a t-interval on two units says nothing but its own width
                regrets = regrets[0], math.nan, math.nan
        result.append(Stop(strategy, rule, len(stopped), len(runs), slices, regrets))
    return result
