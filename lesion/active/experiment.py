"""Algorithm 1 against its comparisons on one sequence, every fold and seed; the impure shell around `program`."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lesion.active import curves, driver, lanes
from lesion.active.curves import FULL, Name
from lesion.active.program import RoundInfo, Run, algorithm1
from lesion.active.strategies import STRATEGIES
from lesion.errors import UserError
from lesion.progress import track
from lesion.train import rundir
from lesion.train.loop import Setup
from lesion.train.methods import frozen_learner

CHOICES = {
    "unit": ("slice", "patient"),
    "aggregate": driver.AGGREGATES,
    "entropy_of": ("max", "mean", "p95"),
}
AT_LEAST_ONE = ("num_acquire", "initial_labeled", "num_rounds", "seeds", "dropout_samples")
AT_LEAST_ZERO = ("per_patient", "budget_slices", "budget_patients", "plateau", "lanes", "entropy_threshold")


def check(config: ConfigDict, setup: Setup) -> None:
    """Raises a one-line `UserError` for a value that cannot be run on this dataset."""
    _check_strategies(config)
    if config.mode != "frozen":
        raise UserError(f"--config.mode={config.mode}: active labelling trains on frozen features in this version")
    if config.patience:
        raise UserError("--config.patience: a round of active labelling trains all its epochs, leave it at 0")
    for least, names in ((1, AT_LEAST_ONE), (0, AT_LEAST_ZERO)):
        for name in names:
            if config[name] < least:
                raise UserError(f"--config.{name}={config[name]}: {least} is the least")
    for name, choices in CHOICES.items():
        if config[name] not in choices:
            raise UserError(f"--config.{name}={config[name]}: choose one of {', '.join(choices)}")
    train, _ = setup.folds.masks(setup.slices.patient, setup.slices.label)
    smallest = int(train.sum(axis=1).min())
    if smallest < config.initial_labeled + config.num_acquire:
        raise UserError(
            f"a fold of {config.sequence} has {smallest} slices to label, fewer than the first "
            f"{config.initial_labeled} and a round of {config.num_acquire}: "
            "lower --config.initial_labeled or --config.num_acquire"
        )


def _check_strategies(config: ConfigDict) -> None:
    for name in config.strategies:
        if name not in STRATEGIES:
            raise UserError(f"no strategy {name!r}: choose from {', '.join(STRATEGIES)}")
        row = STRATEGIES[name]
        if row.view == "samples" and not config.head.dropout:
            raise UserError(f"{name} draws predictions with dropout: set --config.head.dropout above 0")
        if row.view == "copies" and not config.num_copies:
            raise UserError(f"{name} looks at augmented copies: set --config.num_copies above 0")
        if row.select and config.unit == "patient":
            raise UserError(f"{name} chooses slice by slice: leave --config.unit at slice")


def _programs(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Strategies that share a program: those that score predictions; each other has its own."""
    scores = tuple(name for name in names if STRATEGIES[name].view == "probs")
    return [group for group in (scores, *((name,) for name in names if name not in scores)) if group]


def run_active(config: ConfigDict, setup: Setup, workdir: Path) -> dict[str, Any] | None:
    """Labelling curves of every strategy on the same starts (Figs 9-11).

    Args:
        config: of `configs/active.py`.
        setup: of `loop.load`.
        workdir: gets config.json, acquisitions.csv, curves.csv, stops.csv, runs.csv and, last, metrics.json.

    Returns:
        The metrics, or None if this run was finished before.
    """
    check(config, setup)
    if rundir.open_run(workdir, setup.run):
        return None
    slices = setup.slices
    train, test = setup.folds.masks(slices.patient, slices.label)
    runs: dict[Name, curves.Scored] = {}
    weights: list[tuple] = []
    for name, info, sha256 in _all_runs(config, setup, workdir / "rounds", train):
        runs[name] = curves.score(info, slices, train[name.fold], test[name.fold], config.entropy_of)
        weights.append((*name, sha256))
    asked, limits = {n: r for n, r in sorted(runs.items()) if n.strategy != FULL}, curves.limits(config)
    tables = {
        "acquisitions": (curves.ACQUISITIONS, [curves.acquisition_rows(n, r, slices) for n, r in asked.items()]),
        "curves": (curves.CURVES, [curves.curve_rows(n, r, limits) for n, r in asked.items()]),
        "stops": (curves.STOPS, [curves.stop_rows(n, r, limits) for n, r in asked.items()]),
        "runs": (("fold", "seed", "strategy", lanes.WEIGHTS), [sorted(weights)]),
    }
    for table, (header, rows) in tables.items():
        rundir.write_csv(workdir / f"{table}.csv", header, itertools.chain.from_iterable(rows))
    result = {"num_runs": len(asked), "pool_slices": [int(n) for n in train.sum(axis=1)]} | curves.summarise(runs)
    rundir.finish(workdir, result)
    shutil.rmtree(workdir / "rounds", ignore_errors=True)
    return result


def _all_runs(config: ConfigDict, setup: Setup, kept: Path, train: np.ndarray) -> Iterator[tuple[Name, RoundInfo, str]]:
    """Every fold, seed and strategy, and a fold's run with all labels: (name, what happened, hash of the weights)."""
    slices = setup.slices
    method, examples = frozen_learner(
        config,
        setup.data_dir,
        slices,
        setup.variables,
        setup.run["weights"]["sha256"],
        num_samples=config.dropout_samples,
    )
    patient = jnp.asarray(np.unique(slices.patient, return_inverse=True)[1], jnp.int32)
    largest = int(np.bincount(np.asarray(patient), train.any(0)).max()) if config.unit == "patient" else 0
    asking = driver.Asking(config.num_acquire, config.unit, config.aggregate, config.per_patient, largest)
    jobs = {
        group: [Name(*job) for job in itertools.product(range(config.num_folds), range(config.seeds), group)]
        for group in _programs(tuple(config.strategies))
    }
    first = next(iter(jobs))
    jobs[first] += [Name(fold, 0, FULL) for fold in range(config.num_folds)]

    on_gpu = jax.default_backend() == "gpu"
    counts = {group: config.lanes or (len(names) if on_gpu else 1) for group, names in jobs.items()}

    def batches() -> Iterator[tuple[list[Name], list[tuple[Any, str]]]]:
        for group, names in jobs.items():
            count = counts[group]
            compiled = lanes.side_by_side(algorithm1(method, group, asking, config.num_rounds), count)
            todo = [_run(config, name, group, train) for name in names]
            done = lanes.all_runs(compiled, todo, (examples, patient), count, kept / "-".join(group))
            yield from zip((names[i : i + count] for i in range(0, len(names), count)), done, strict=True)

    total = sum(-(-len(names) // counts[group]) for group, names in jobs.items())
    for names, found in track(f"active {config.sequence}", batches(), total):
        for name, (info, sha256) in zip(names, found, strict=True):
            yield name, info, sha256


def _run(config: ConfigDict, name: Name, group: tuple[str, ...], train: np.ndarray) -> Run:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), name.fold), name.seed)
    full = name.strategy == FULL
    initial = train.shape[1] if full else config.initial_labeled
    strategy = 0 if full else group.index(name.strategy)
    return Run(key, jnp.asarray(train[name.fold]), jnp.int32(initial), jnp.int32(strategy))
