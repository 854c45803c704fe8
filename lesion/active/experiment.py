"""Algorithm 1 and its comparisons on one sequence, every fold and repeat; the impure shell around `program`."""

import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lesion import files
from lesion.active import curves, driver, oracle, parallel, rounds
from lesion.active.curves import FULL, Name
from lesion.active.program import RoundInfo, Run, algorithm1, keys_of, make_query
from lesion.active.strategies import STRATEGIES
from lesion.dataset import Slices, splits
from lesion.errors import UserError
from lesion.progress import track
from lesion.runs import rundir
from lesion.runs.processes import handle_sigterm
from lesion.transfer import methods
from lesion.transfer.checks import check_config, check_fields
from lesion.transfer.loading import Setup

CHOICES = {
    "unit": ("slice", "patient"),
    "aggregate": driver.AGGREGATES,
    "oracle": ("cohort", "doctor"),
}


def check_active(config: ConfigDict) -> None:
    """Raises a one-line `UserError` for a value that cannot be run on any dataset."""
    if "strategies" not in config:
        raise UserError("this configuration is not of active labelling: begin from --config=configs/active.py")
    check_config(config)
    for name in config.strategies:
        _check_strategy(config, name)
    if config.split != "patient" or config.label_control != "none":
        raise UserError("--config.split and --config.label_control are for launch.train: leave patient and none")
    if config.patience:
        raise UserError("--config.patience: a round of active labelling trains all its epochs, leave it at 0")
    check_fields(config, CHOICES)
    if config.unit == "patient" and config.max_per_patient:
        raise UserError("--config.max_per_patient limits slices: whole patients are queried, leave it at 0")


def _check_strategy(config: ConfigDict, name: str) -> None:
    if name not in STRATEGIES:
        raise UserError(f"no strategy {name!r}: choose from {', '.join(STRATEGIES)}")
    strategy = STRATEGIES[name]
    if strategy.output == "mc_probs" and not config.head.dropout:
        raise UserError(f"{name} draws predictions with dropout: set --config.head.dropout above 0")
    if strategy.output == "augmented_probs" and not config.num_copies:
        raise UserError(f"{name} looks at augmented copies: set --config.num_copies above 0")
    if strategy.select and config.unit == "patient":
        raise UserError(f"{name} chooses slice by slice: leave --config.unit at slice")


class Plan(NamedTuple):
    """What the sizes of a configuration come to on a dataset.

    Attributes:
        pool_slices: number of slices of each fold's pool, int [F].
        first_slices: number of slices of the first labelled set of each fold and repeat, int [F, repeats].
        num_rounds: rounds that are run: those before which every pool has slices left to query.
        sizes: sizes that last for all rounds that were asked for, as arguments.
    """

    pool_slices: np.ndarray
    first_slices: np.ndarray
    num_rounds: int
    sizes: str


def make_plan(config: ConfigDict, setup: Setup) -> Plan:
    """Draws all first labelled sets and counts the rounds until the first pool is exhausted.

    Raises:
        UserError: if a fold has one class only to train on or to test on, or fewer slices than the first labelled set
            and a round take.
    """
    slices = setup.slices
    train, test = setup.folds.masks(slices.patient, slices.label)
    for masks, purpose in ((train, "train"), (test, "test")):
        splits.check_classes(slices.label, masks, config.sequence, setup.classes, purpose)
    pool = train.sum(axis=1)
    folds, repeats = range(config.num_folds), range(config.num_repeats)
    keys = jnp.stack([keys_of(_key(config, fold, repeat)).start for fold in folds for repeat in repeats])
    in_pool, label = np.repeat(train, len(repeats), 0), jnp.asarray(slices.label)
    first = _first_slices(keys, jnp.asarray(_patient_index(slices)), in_pool, config.initial_labeled, label)
    first = np.asarray(first).reshape(len(folds), len(repeats))
    smallest, left = int(pool.min()), int((pool[:, None] - first).min())
    per_round = max(1, smallest // max(12, 2 * config.num_rounds))
    sizes = f"--config.initial_labeled={max(1, smallest // 3)} --config.num_acquire={per_round}"
    if smallest < config.initial_labeled + config.num_acquire or not left:
        raise UserError(
            f"a fold of {config.sequence} has {smallest} slices to label, fewer than the first "
            f"{max(config.initial_labeled, smallest - left)} and a round of {config.num_acquire}: say {sizes} "
            "or the like (of a plan: --config.active.initial_labeled, --config.active.num_acquire)"
        )
    # A round of whole patients is smaller or larger than num_acquire: there only the runs themselves can tell.
    lasts = config.num_rounds if config.unit == "patient" else -(-left // config.num_acquire)
    return Plan(pool, first, min(config.num_rounds, lasts), sizes)


_first_slices = parallel.compiled(
    jax.vmap(lambda *args: jnp.sum(driver.initial_labeled(*args)), (0, None, 0, None, None))
)


def describe_end(config: ConfigDict, plan: Plan) -> str:
    """Returns, in words, that a pool is exhausted before all rounds that were asked for; "" if none is."""
    if plan.num_rounds == config.num_rounds:
        return ""
    return (
        f"the smallest pool of {config.sequence}, {plan.pool_slices.min()} slices, is exhausted after "
        f"{plan.num_rounds} of {config.num_rounds} rounds, where all runs end; {plan.sizes} last for all"
    )


def _patient_index(slices: Slices) -> np.ndarray:
    """Returns the number of each slice's patient, int32 [N]."""
    return np.unique(slices.patient, return_inverse=True)[1].astype(np.int32)


def query_config(config: ConfigDict, patient: np.ndarray, in_pool: np.ndarray) -> driver.QueryConfig:
    """Returns the query of a round over slices of `patient`, int [N]; those of `in_pool`, bool [N], may be queried."""
    max_patient_slices = 0
    if config.unit == "patient":
        max_patient_slices = int(np.bincount(patient[in_pool]).max(initial=0))
    return driver.QueryConfig(
        config.num_acquire, config.unit, config.aggregate, config.max_per_patient, max_patient_slices
    )


class _Context(NamedTuple):
    """Inputs shared by all runs of an experiment; `folder` keeps finished runs until all are done."""

    config: ConfigDict
    setup: Setup
    num_rounds: int
    folder: Path
    train: np.ndarray
    query: driver.QueryConfig
    patient: jax.Array


Jobs = dict[tuple[str, ...], list[Name]]  # {strategies that share a program: runs}


def run_active(config: ConfigDict, setup: Setup, workdir: Path) -> dict[str, Any] | None:
    """Computes the active-learning curves of every strategy on the same starts (Figs 9-11).

    Args:
        config: configuration, as of `configs/active.py`.
        setup: from `loading.load`.
        workdir: gets config.json, acquisitions.csv, curves.csv, stops.csv, runs.csv and, last, metrics.json.

    Returns:
        The metrics, or None if this run was finished before.
    """
    check_active(config)
    plan = make_plan(config, setup)
    if rundir.open_run(workdir, setup.run):
        return None
    if end := describe_end(config, plan):
        print(end, file=sys.stderr, flush=True)
    slices = setup.slices
    train, test = setup.folds.masks(slices.patient, slices.label)
    patient = _patient_index(slices)
    query = query_config(config, patient, np.asarray(train.any(0)))
    ctx = _Context(config, setup, plan.num_rounds, workdir / "rounds", train, query, jnp.asarray(patient))
    runs: dict[Name, curves.Scored] = {}
    weights: list[tuple] = []
    for name, info, sha256 in (_run_on_features if config.mode == "frozen" else _run_on_pictures)(ctx, _jobs(config)):
        lasting = info if name.strategy == FULL else curves.until_exhausted(info)
        runs[name] = curves.score(lasting, slices, train[name.fold], test[name.fold])
        weights.append((*name, sha256))
    compared = {name: run for name, run in sorted(runs.items()) if name.strategy != FULL}
    limits = curves.limits(config)
    tables = {
        "acquisitions": (curves.ACQUISITIONS, [curves.acquisition_rows(n, r, slices) for n, r in compared.items()]),
        "curves": (curves.CURVES, [curves.curve_rows(n, r, limits) for n, r in compared.items()]),
        "stops": (curves.STOPS, [curves.stop_rows(n, r, limits) for n, r in compared.items()]),
        "runs": (("fold", "seed", "strategy", parallel.WEIGHTS), [sorted(weights)]),
    }
    for table, (header, rows) in tables.items():
        files.write_csv(workdir / f"{table}.csv", header, itertools.chain.from_iterable(rows))
    counts = {"num_runs": len(compared), "pool_slices": plan.pool_slices.tolist(), "num_rounds": plan.num_rounds}
    result = counts | curves.summarise(runs, config.unit)
    rundir.finish(workdir, result)
    shutil.rmtree(ctx.folder, ignore_errors=True)
    return result


def _jobs(config: ConfigDict) -> Jobs:
    """Returns the runs by program: every fold, repeat and strategy, and as many with all labels.

    Strategies that read predictions only share a program; each other strategy has its own.
    """
    names = tuple(config.strategies)
    on_probs = tuple(name for name in names if STRATEGIES[name].output == "probs")
    groups = [group for group in (on_probs, *((name,) for name in names if name not in on_probs)) if group]
    folds, repeats = range(config.num_folds), range(config.num_repeats)
    jobs = {group: [Name(*job) for job in itertools.product(folds, repeats, group)] for group in groups}
    jobs[groups[0]] += [Name(*job, FULL) for job in itertools.product(folds, repeats)]
    return jobs


def _run_on_features(ctx: _Context, jobs: Jobs) -> Iterator[tuple[Name, RoundInfo, str]]:
    """Yields (name, results, hash of the last weights) of each run; runs are programs, several side by side."""
    config, setup = ctx.config, ctx.setup
    learner, examples = methods.learner_on_features(config, setup, num_samples=config.dropout_samples)
    on_gpu = jax.default_backend() == "gpu"
    counts = {group: config.parallel_runs or (len(names) if on_gpu else 1) for group, names in jobs.items()}

    def batches() -> Iterator[tuple[list[Name], list[tuple[Any, str]]]]:
        for group, names in jobs.items():
            count = counts[group]
            run_batch = parallel.side_by_side(algorithm1(learner, group, ctx.query, ctx.num_rounds), count)
            runs, titles, folder = [_run(ctx, n, group) for n in names], list(map(_title, names)), "-".join(group)
            done = parallel.run_all(run_batch, runs, titles, (examples, ctx.patient), count, ctx.folder / folder)
            yield from zip((names[i : i + count] for i in range(0, len(names), count)), done, strict=True)

    total = sum(-(-len(names) // counts[group]) for group, names in jobs.items())
    for names, results in track(f"active {config.sequence}", batches(), total):
        for name, (info, sha256) in zip(names, results, strict=True):
            yield name, info, sha256


def _run_on_pictures(ctx: _Context, jobs: Jobs) -> Iterator[tuple[Name, RoundInfo, str]]:
    """Yields the same as `_run_on_features`; runs are loops of fits, one run after another."""
    config, label = ctx.config, jnp.asarray(ctx.setup.slices.label)
    trainer = methods.make_trainer(config, ctx.setup, num_samples=config.dropout_samples)
    total, number = sum(map(len, jobs.values())), 0

    def reveal(pool: driver.PoolState, done: Any, label_before: np.ndarray) -> tuple[driver.PoolState, np.ndarray]:
        del done, label_before
        return pool, np.asarray(oracle.reveal(label, pool.labeled))

    with handle_sigterm() as stop:
        for group, names in jobs.items():
            model = rounds.finetuned_model(trainer, stop, config.checkpoint_every)
            query = parallel.compiled(make_query(group, ctx.query))
            spec = rounds.RoundsSpec(model, group, ctx.num_rounds, query, reveal, ctx.patient, stop, hidden=label)
            for name in names:
                path = ctx.folder / "-".join(group) / "_".join(map(str, name))
                number += 1
                if not path.with_suffix(".npz").exists():
                    title = f"active {config.sequence}, run {number} of {total}"
                    info, state = rounds.run_rounds(spec, _run(ctx, name, group), title, path)
                    batch = RoundInfo(*(x[None] for x in info))
                    parallel.save(path.with_suffix(".npz"), batch, [dict(state.params)], [_title(name)])
                    shutil.rmtree(path, ignore_errors=True)
                ((info, sha256),) = parallel.load(path.with_suffix(".npz"))
                yield name, info, sha256


def _title(name: Name) -> str:
    return f"fold {name.fold + 1}, seed {name.seed}, {name.strategy.replace('_', ' ')}"


def _key(config: ConfigDict, fold: int, repeat: int) -> jax.Array:
    """Returns the key of the runs of a fold and repeat."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), fold), repeat)


def _run(ctx: _Context, name: Name, group: tuple[str, ...]) -> Run:
    key = _key(ctx.config, name.fold, name.seed)
    is_full = name.strategy == FULL
    initial = ctx.train.shape[1] if is_full else ctx.config.initial_labeled
    strategy = 0 if is_full else group.index(name.strategy)
    return Run(key, jnp.asarray(ctx.train[name.fold]), jnp.int32(initial), jnp.int32(strategy))
