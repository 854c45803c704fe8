"""What the labelling curves say: mean and band of each strategy, difference to random, where δ would have stopped."""

from typing import Any, NamedTuple

import numpy as np

from lesion import metrics
from lesion.report import read

# With two classes all three are monotone in |p − ½| and pick the same slices: one curve, one line.
SAME = ("entropy", "margin", "least_confidence")
BASELINE = "random"
SCORES = ("accuracy", "auc")
DELTA = 0.3  # Algorithm 1, in nats (reading 6); a config's `entropy_threshold` goes before

Runs = dict[tuple[str, str], dict[str, np.ndarray]]


class Curve(NamedTuple):
    """One strategy over the rounds that all its runs reached.

    Attributes:
        strategy: the name in the curves' file.
        names: all strategies that this curve stands for.
        slices: float64 [T], mean labelled slices at each round.
        patients: float64 [T], mean labelled patients.
        bands: {"accuracy" or "auc": Band of [T]}.
        num_runs: how many (fold, seed).
        num_folds: how many folds among them.
    """

    strategy: str
    names: tuple[str, ...]
    slices: np.ndarray
    patients: np.ndarray
    bands: dict[str, metrics.Band]
    num_runs: int
    num_folds: int


class Difference(NamedTuple):
    """A strategy minus random, paired by (fold, seed).

    Attributes:
        strategy: the name.
        slices: float64 [T], mean labelled slices at each round.
        bands: {"accuracy" or "auc": Band of [T]}.
        overall: {"accuracy" or "auc": (mean, low, high)}, averaged over all rounds after the common start.
        num_pairs: how many (fold, seed) both have.
    """

    strategy: str
    slices: np.ndarray
    bands: dict[str, metrics.Band]
    overall: dict[str, tuple[float, float, float]]
    num_pairs: int


class Stop(NamedTuple):
    """Where a rule would have ended a strategy's runs, looking back.

    Attributes:
        strategy: the name.
        rule: `entropy`, the paper's, every remaining entropy below δ; or another of stops.csv.
        delta: in nats.
        num_stopped: runs that it would have stopped while slices were left.
        num_runs: all runs.
        slices: (least, median, most) labelled slices at the stop, or None.
        regret: (mean, low, high) accuracy at the last round minus at the stop, over the stopped runs, or
            None; no interval from fewer than three folds.
    """

    strategy: str
    rule: str
    delta: float
    num_stopped: int
    num_runs: int
    slices: tuple[float, float, float] | None
    regret: tuple[float, float, float] | None


def _stack(runs: Runs, keys: list[tuple[str, str]], column: str) -> np.ndarray:
    """[M, T] of one column, T the rounds that every run reached."""
    rounds = min(len(runs[key]["round"]) for key in keys)
    return np.stack([runs[key][column][:rounds] for key in keys])


def _folds(keys: list[tuple[str, str]]) -> np.ndarray:
    return np.array([fold for fold, _ in keys])


def _equal(first: Runs, second: Runs) -> bool:
    columns = ("labeled_slices", "labeled_patients", *SCORES)
    return first.keys() == second.keys() and all(
        np.array_equal(first[k][c], second[k][c], equal_nan=True) for k in first for c in columns
    )


def curves(run: read.Labelling) -> list[Curve]:
    """One curve a strategy, random last; strategies of `SAME` whose runs agree in every number become one."""
    groups: list[list[str]] = []
    for strategy in sorted(run.runs, key=lambda s: (s == BASELINE, s not in SAME, s)):
        for group in groups:
            if strategy in SAME and group[0] in SAME and _equal(run.runs[group[0]], run.runs[strategy]):
                group.append(strategy)
                break
        else:
            groups.append([strategy])
    result = []
    for group in groups:
        runs = run.runs[group[0]]
        keys = list(runs)
        bands = {score: metrics.mean_band(_stack(runs, keys, score), _folds(keys)) for score in SCORES}
        result.append(
            Curve(
                group[0],
                tuple(group),
                _stack(runs, keys, "labeled_slices").mean(0),
                _stack(runs, keys, "labeled_patients").mean(0),
                bands,
                len(keys),
                len(set(_folds(keys))),
            )
        )
    return result


def difference(run: read.Labelling, strategy: str) -> Difference | None:
    """`strategy` minus random at each round, or None where they share no (fold, seed)."""
    if strategy == BASELINE or BASELINE not in run.runs:
        return None
    ours, theirs = run.runs[strategy], run.runs[BASELINE]
    keys = [key for key in ours if key in theirs]
    if not keys:
        return None
    rounds = min(_stack(runs, keys, "round").shape[1] for runs in (ours, theirs))
    bands, overall = {}, {}
    for score in SCORES:
        first, second = (_stack(runs, keys, score)[:, :rounds] for runs in (ours, theirs))
        bands[score] = metrics.paired_difference(first, second, _folds(keys))
        # One number for the whole curve, fixed before looking: no picking of the best budget. The start is common.
        start = 1 if rounds > 1 else 0
        with_mean = metrics.paired_difference(
            first[:, start:].mean(1, keepdims=True), second[:, start:].mean(1, keepdims=True), _folds(keys)
        )
        overall[score] = (float(with_mean.mean[0]), float(with_mean.low[0]), float(with_mean.high[0]))
    slices = _stack(ours, keys, "labeled_slices")[:, :rounds].mean(0)
    return Difference(strategy, slices, bands, overall, len(keys))


def setting(run: read.Labelling | read.Doctor, name: str, default: Any) -> Any:
    """A field of the run's config, `default` where it is not there."""
    inner = run.config.get("config")
    return inner.get(name, default) if isinstance(inner, dict) else default


def stop(run: read.Labelling, strategy: str, delta: float | None = None) -> Stop | None:
    """Where δ, the run's own if not given, would have stopped `strategy`; None where it is off, or no curve tells."""
    runs = run.runs[strategy]
    delta = float(setting(run, "entropy_threshold", DELTA)) if delta is None else delta
    of = setting(run, "entropy_statistic", "max")
    column = f"{of}_entropy"
    if not delta or not all(column in columns for columns in runs.values()):
        return None
    slices, regret, folds = [], [], []
    for (fold, _), columns in runs.items():
        entropy = columns[column]
        # An empty pool has no entropy (NaN, −inf or 0): it ends a run by itself, not by δ.
        below = np.flatnonzero(np.isfinite(entropy) & (entropy > 0) & (entropy < delta))
        if below.size:
            slices.append(columns["labeled_slices"][below[0]])
            regret.append([columns["accuracy"][-1] - columns["accuracy"][below[0]]])
            folds.append(fold)
    return _stop(strategy, "entropy" if of == "max" else column, delta, len(runs), slices, regret, folds)


def other_stops(run: read.Labelling, strategy: str) -> list[Stop]:
    """Where the other rules of stops.csv would have stopped `strategy`; those that never would are left out."""
    delta, total = float(setting(run, "entropy_threshold", DELTA)), len(run.runs[strategy])
    own = [row for row in run.stops if row["strategy"] == strategy and row["rule"] != "entropy"]
    result = []
    for rule in dict.fromkeys(row["rule"] for row in own):
        rows = [row for row in own if row["rule"] == rule]
        slices, regret = ([float(row[c]) for row in rows] for c in ("labeled_slices", "accuracy_lost"))
        folds = [row["fold"] for row in rows]
        result.append(_stop(strategy, rule, delta, total, slices, [[x] for x in regret], folds))
    return result


def _stop(
    strategy: str, rule: str, delta: float, total: int, slices: list[Any], regret: list[list[Any]], folds: list[str]
) -> Stop:
    if not slices:
        return Stop(strategy, rule, delta, 0, total, None, None)
    band = metrics.mean_band(np.array(regret), np.array(folds))
    low, high = float(band.low[0]), float(band.high[0])
    if len(set(folds)) < 3:  # a t-interval on two units says nothing but its own width
        low = high = float("nan")
    found = float(min(slices)), float(np.median(slices)), float(max(slices))
    return Stop(strategy, rule, delta, len(slices), total, found, (float(band.mean[0]), low, high))
