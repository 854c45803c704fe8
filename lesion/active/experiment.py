"""Algorithm 1 against its comparisons on one sequence, every fold and seed; the impure shell around `program`."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lesion import files
from lesion.active import curves, driver, lanes, oracle, rounds
from lesion.active.curves import FULL, Name
from lesion.active.program import RoundInfo, Run, algorithm1, asker
from lesion.active.strategies import STRATEGIES
from lesion.errors import UserError
from lesion.progress import track
from lesion.runs import resume, rundir
from lesion.transfer import methods
from lesion.transfer.loading import Setup

Jobs = dict[tuple[str, ...], list[Name]]  # of strategies that share a program
CHOICES = {
    "unit": ("slice", "patient"),
    "aggregate": driver.AGGREGATES,
    "entropy_statistic": ("max", "mean", "p95"),
    "oracle": ("cohort", "doctor"),
}
AT_LEAST_ONE = ("num_acquire", "initial_labeled", "num_rounds", "num_repeats", "dropout_samples")
AT_LEAST_ZERO = (
    *("max_per_patient", "budget_slices", "budget_patients", "stabilizing_predictions", "parallel_runs"),
    "entropy_threshold",
)


def check(config: ConfigDict, setup: Setup) -> None:
    """Raises a one-line `UserError` for a value that cannot be run on this dataset."""
    check_asking(config)
    train, _ = setup.folds.masks(setup.slices.patient, setup.slices.label)
    smallest = int(train.sum(axis=1).min())
    if smallest < config.initial_labeled + config.num_acquire:
        raise UserError(
            f"a fold of {config.sequence} has {smallest} slices to label, fewer than the first "
            f"{config.initial_labeled} and a round of {config.num_acquire}: "
            f"say --config.initial_labeled={max(1, smallest // 3)} --config.num_acquire={max(1, smallest // 12)} "
            "or the like (of a plan: --config.active.initial_labeled, --config.active.num_acquire)"
        )


def check_asking(config: ConfigDict) -> None:
    """Raises a one-line `UserError` for a value that cannot be run on any dataset."""
    if "strategies" not in config:
        raise UserError("this configuration is not of active labelling: begin from --config=configs/active.py")
    _check_strategies(config)
    if config.split != "patient" or config.label_control != "none":
        raise UserError("--config.split and --config.label_control are for launch.train: leave patient and none")
    if config.patience:
        raise UserError("--config.patience: a round of active labelling trains all its epochs, leave it at 0")
    for least, names in ((1, AT_LEAST_ONE), (0, AT_LEAST_ZERO)):
        for name in names:
            if config[name] < least:
                raise UserError(f"--config.{name}={config[name]}: {least} is the least")
    for name, choices in CHOICES.items():
        if config[name] not in choices:
            raise UserError(f"--config.{name}={config[name]}: choose one of {', '.join(choices)}")
    if config.unit == "patient" and config.max_per_patient:
        raise UserError("--config.max_per_patient limits slices: whole patients are asked for, leave it at 0")


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


class _Shared(NamedTuple):
    """What all runs of an experiment share."""

    config: ConfigDict
    setup: Setup
    kept: Path
    train: np.ndarray
    asking: driver.Asking
    patient: jax.Array

    def built(self) -> tuple[Any, ...]:
        """What a learner is built from, beside the config."""
        setup = self.setup
        return setup.data_dir, setup.slices, setup.variables, setup.run["weights"]["sha256"]


def _programs(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Strategies that share a program: those that score predictions; each other has its own."""
    scores = tuple(name for name in names if STRATEGIES[name].view == "probs")
    return [group for group in (scores, *((name,) for name in names if name not in scores)) if group]


def run_active(config: ConfigDict, setup: Setup, workdir: Path) -> dict[str, Any] | None:
    """Labelling curves of every strategy on the same starts (Figs 9-11).

    Args:
        config: of `configs/active.py`.
        setup: of `loading.load`.
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
        runs[name] = curves.score(info, slices, train[name.fold], test[name.fold], config.entropy_statistic)
        weights.append((*name, sha256))
    asked, limits = {n: r for n, r in sorted(runs.items()) if n.strategy != FULL}, curves.limits(config)
    tables = {
        "acquisitions": (curves.ACQUISITIONS, [curves.acquisition_rows(n, r, slices) for n, r in asked.items()]),
        "curves": (curves.CURVES, [curves.curve_rows(n, r, limits) for n, r in asked.items()]),
        "stops": (curves.STOPS, [curves.stop_rows(n, r, limits) for n, r in asked.items()]),
        "runs": (("fold", "seed", "strategy", lanes.WEIGHTS), [sorted(weights)]),
    }
    for table, (header, rows) in tables.items():
        files.write_csv(workdir / f"{table}.csv", header, itertools.chain.from_iterable(rows))
    counts = {"num_runs": len(asked), "pool_slices": [int(n) for n in train.sum(axis=1)]}
    result = counts | curves.summarise(runs, config.unit)
    rundir.finish(workdir, result)
    shutil.rmtree(workdir / "rounds", ignore_errors=True)
    return result


def _all_runs(config: ConfigDict, setup: Setup, kept: Path, train: np.ndarray) -> Iterator[tuple[Name, RoundInfo, str]]:
    """Every fold, seed and strategy, and a fold's run with all labels: (name, what happened, hash of the weights)."""
    jobs = {
        group: [Name(*job) for job in itertools.product(range(config.num_folds), range(config.num_repeats), group)]
        for group in _programs(tuple(config.strategies))
    }
    jobs[next(iter(jobs))] += [Name(fold, 0, FULL) for fold in range(config.num_folds)]
    patient = np.unique(setup.slices.patient, return_inverse=True)[1].astype(np.int32)
    largest = int(np.bincount(patient, train.any(0)).max()) if config.unit == "patient" else 0
    asking = driver.Asking(config.num_acquire, config.unit, config.aggregate, config.max_per_patient, largest)
    this = _Shared(config, setup, kept, train, asking, jnp.asarray(patient))
    yield from (_on_features if config.mode == "frozen" else _on_pictures)(this, jobs)


def _on_features(this: _Shared, jobs: Jobs) -> Iterator[tuple[Name, RoundInfo, str]]:
    """Whole runs as programs, side by side."""
    config = this.config
    method, examples = methods.frozen_learner(config, *this.built(), num_samples=config.dropout_samples)
    on_gpu = jax.default_backend() == "gpu"
    counts = {group: config.parallel_runs or (len(names) if on_gpu else 1) for group, names in jobs.items()}

    def batches() -> Iterator[tuple[list[Name], list[tuple[Any, str]]]]:
        for group, names in jobs.items():
            count = counts[group]
            compiled = lanes.side_by_side(algorithm1(method, group, this.asking, config.num_rounds), count)
            todo = [_run(this, name, group) for name in names]
            told = [_title(name) for name in names]
            done = lanes.all_runs(compiled, todo, told, (examples, this.patient), count, this.kept / "-".join(group))
            yield from zip((names[i : i + count] for i in range(0, len(names), count)), done, strict=True)

    total = sum(-(-len(names) // counts[group]) for group, names in jobs.items())
    for names, found in track(f"active {config.sequence}", batches(), total):
        for name, (info, sha256) in zip(names, found, strict=True):
            yield name, info, sha256


def _on_pictures(this: _Shared, jobs: Jobs) -> Iterator[tuple[Name, RoundInfo, str]]:
    """Runs one after another, each a loop of fits."""
    config, label = this.config, this.setup.slices.label
    fitter = methods.finetune_engine(config, *this.built(), num_samples=config.dropout_samples)
    total, number = sum(map(len, jobs.values())), 0

    def reveal(pool: driver.PoolState, done: Any, told: np.ndarray) -> tuple[driver.PoolState, np.ndarray]:
        del done, told
        return pool, np.asarray(oracle.reveal(jnp.asarray(label), pool.labeled))

    with resume.heed_sigterm() as bell:
        for group, names in jobs.items():
            model = rounds.of_engine(fitter, bell, config.checkpoint_every)
            ask = lanes.compiled(asker(group, this.asking))
            plan = rounds.Plan(model, group, config.num_rounds, ask, reveal, this.patient, bell)
            for name in names:
                path = this.kept / "-".join(group) / "_".join(map(str, name))
                number += 1
                if not path.with_suffix(".npz").exists():
                    title = f"active {config.sequence}, run {number} of {total}"
                    info, state = rounds.run_rounds(plan, _run(this, name, group), title, path)
                    one = RoundInfo(*(x[None] for x in info))
                    lanes.save(path.with_suffix(".npz"), one, [dict(state.params)], [_title(name)])
                    shutil.rmtree(path, ignore_errors=True)
                ((info, sha256),) = lanes.load(path.with_suffix(".npz"))
                yield name, info, sha256


def _title(name: Name) -> str:
    return f"fold {name.fold + 1}, seed {name.seed}, {name.strategy.replace('_', ' ')}"


def _run(this: _Shared, name: Name, group: tuple[str, ...]) -> Run:
    config, train = this.config, this.train
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), name.fold), name.seed)
    full = name.strategy == FULL
    initial = train.shape[1] if full else config.initial_labeled
    strategy = 0 if full else group.index(name.strategy)
    return Run(key, jnp.asarray(train[name.fold]), jnp.int32(initial), jnp.int32(strategy))
