"""A table of runs of Algorithm 1: mean curves, differences from random queries, and the rounds where rules would stop.

The table is curves.csv: a row for each fold, seed, strategy and round, in this order, with the columns accuracy, auc,
num_tied, sure_share and those of `stopping.Trace`.
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
        costs: {"slices" or "patients": (least, median, most) labelled at the stop}; NaN if no run would have stopped.
        regret: {"accuracy" or "auc": (mean, low, high)} of the score at the last round minus that at the stop, over the
            stopped runs; NaN if no run would have stopped; low and high are NaN too with fewer than three folds.
    """

    strategy: str
    rule: str
    num_stopped: int
    num_runs: int
    costs: dict[str, Triple]
    regret: dict[str, Triple]


class Standing(NamedTuple):
    """The strategies at one budget, paired by (fold, seed): the pairs whose curves all cover it.

    Attributes:
        slices: number of labelled slices; scores are interpolated between rounds.
        num_pairs: number of pairs.
        to_random: {"accuracy" or "auc": {strategy: (mean, low, high) of its score minus that of random queries}}.
        lead: {"accuracy" or "auc": (best strategy, the next best, (mean, low, high) of their difference)}; a strategy
            of `SAME` that equals one before it does not stand for itself.
    """

    slices: int
    num_pairs: int
    to_random: dict[str, dict[str, Triple]]
    lead: dict[str, tuple[str, str, Triple]]


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


def standing(table: pd.DataFrame, slices: int) -> Standing | None:
    """Returns the strategies' standing at a budget of labelled slices; None if fewer than two strategies have a pair.

    `table` may not lack random queries.
    """
    names = [curve.strategy for curve in mean_curves(table)]
    runs = {key: rows for key, rows in table.groupby([*_RUN, "strategy"])}
    costs = {key: rows["labeled_slices"].to_numpy() for key, rows in runs.items()}
    covered = {key for key, cost in costs.items() if cost[0] <= slices <= cost[-1]}
    pairs = [pair for pair in dict.fromkeys(key[:2] for key in runs) if all((*pair, name) in covered for name in names)]
    if not pairs or len(names) < 2:
        return None
    folds, to_random, lead = [pair[0] for pair in pairs], {}, {}
    for score in SCORES:
        values = {
            name: np.array([np.interp(slices, costs[*pair, name], runs[*pair, name][score]) for pair in pairs])
            for name in names
        }
        to_random[score] = {name: run_mean(values[name] - values[RANDOM], folds) for name in names if name != RANDOM}
        best, following = sorted(names, key=lambda name: -np.mean(values[name]))[:2]
        lead[score] = best, following, run_mean(values[best] - values[following], folds)
    return Standing(slices, len(pairs), to_random, lead)


def stops_of_runs(table: pd.DataFrame, strategy: str, criteria: stopping.StoppingCriteria) -> list[Stop]:
    """Returns the stops of a strategy's runs by each rule that would have stopped any.

    The entropy rule, unless it is off, comes first and is included even if it would have stopped none.
    """
    runs = [rows for _, rows in rows_of(table, strategy).groupby(_RUN)]
    stops_by_rule: dict[str, list[pd.Series]] = {"entropy": []} if criteria.entropy else {}
    for rows in runs:
        trace = stopping.Trace(*(rows[name].to_numpy() for name in stopping.Trace._fields))
        regret = {f"{score}_lost": rows[score].iloc[-1] - rows[score] for score in SCORES}
        for rule, r in stopping.stops(trace, criteria).items():
            stops_by_rule.setdefault(rule, []).append(rows.assign(**regret).iloc[r])
    result = []
    for rule, stopped in stops_by_rule.items():
        costs, regrets = (dict.fromkeys(keys, (math.nan,) * 3) for keys in (_COSTS, SCORES))
        if stopped:
            at_stop = pd.DataFrame(stopped)
            for unit, column in _COSTS.items():
                least, median, most = at_stop[column].quantile([0, 0.5, 1])
                costs[unit] = least, median, most
            for score in SCORES:
                mean, *ends = run_mean(at_stop[f"{score}_lost"].to_numpy(float), at_stop["fold"])
                # A t-interval of two units is too wide to mean anything.
                low, high = ends if at_stop["fold"].nunique() > 2 else (math.nan, math.nan)
                regrets[score] = mean, low, high
        result.append(Stop(strategy, rule, len(stopped), len(runs), costs, regrets))
    return result


def ties(table: pd.DataFrame, strategy: str) -> tuple[int, int]:
    """Returns in how many of a strategy's rounds lots decided who was asked, and the number of all its rounds."""
    rows = rows_of(table, strategy)
    return int((rows["num_tied"] > 0).sum()), len(rows)


def sure_shares(table: pd.DataFrame, strategy: str) -> np.ndarray:
    """Returns the mean share of sure slices in the pool (`stopping.SURE_NATS`) at each round that all reached, [T]."""
    shares = rows_of(table, strategy).pivot(index=_RUN, columns="round", values="sure_share")
    return shares.dropna(axis="columns").mean().to_numpy()
