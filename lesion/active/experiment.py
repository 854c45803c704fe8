"""Algorithm 1 against its comparisons on one sequence, every fold and seed; the impure shell around `program`."""

import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score

from lesion.active import acquisition
from lesion.active.program import RoundInfo, algorithm1
from lesion.data import Slices
from lesion.errors import UserError
from lesion.progress import track
from lesion.train import rundir
from lesion.train.loop import Setup
from lesion.train.methods import frozen_learner

ACQUISITIONS = ("fold", "seed", "strategy", "round", "rank", "patient", "slice", "score")
CURVES = (
    "fold",
    "seed",
    "strategy",
    "round",
    "labeled_slices",
    "labeled_patients",
    "accuracy",
    "auc",
    "max_entropy",
    "mean_entropy",
    "stopped",
)


def check(config: ConfigDict, setup: Setup) -> None:
    """Raises a one-line `UserError` for a value that cannot be run on this dataset."""
    unknown = [s for s in config.strategies if s not in acquisition.STRATEGIES]
    if unknown:
        raise UserError(f"no strategy {unknown[0]!r}: choose from {', '.join(acquisition.STRATEGIES)}")
    if config.mode != "frozen":
        raise UserError(f"--config.mode={config.mode}: active labelling trains on frozen features in this version")
    if config.patience:
        raise UserError("--config.patience: a round of active labelling trains all its epochs, leave it at 0")
    for name in ("num_acquire", "initial_labeled", "num_rounds", "seeds"):
        if config[name] < 1:
            raise UserError(f"--config.{name}={config[name]}: 1 is the least")
    train, _ = setup.folds.masks(setup.slices.patient, setup.slices.label)
    smallest = int(train.sum(axis=1).min())
    if smallest < config.initial_labeled + config.num_acquire:
        raise UserError(
            f"a fold of {config.sequence} has {smallest} slices to label, fewer than the first "
            f"{config.initial_labeled} and a round of {config.num_acquire}: "
            "lower --config.initial_labeled or --config.num_acquire"
        )


def _curve_rows(setup: Setup, test: np.ndarray, info: RoundInfo, threshold: float, head: tuple) -> list[tuple]:
    """One row a round: costs and test scores of the model before it asks."""
    label, rows = setup.slices.label[test], []
    stopped = False
    for r, probs in enumerate(info.probs):
        stopped = stopped or bool(info.max_entropy[r] < threshold)
        accuracy = float(((probs[test] > 0.5) == label).mean())
        auc = float(roc_auc_score(label, probs[test])) if len(np.unique(label)) == 2 else float("nan")
        costs = int(info.labeled_slices[r]), int(info.labeled_patients[r])
        entropies = float(info.max_entropy[r]), float(info.mean_entropy[r])
        rows.append((*head, r, *costs, accuracy, auc, *entropies, int(stopped)))
    return rows


def _acquisition_rows(slices: Slices, info: RoundInfo, head: tuple) -> list[tuple]:
    """One row a slice asked for."""
    return [
        (*head, r, rank, slices.patient[i], slices.slice_id[i], float(score))
        for r, (indices, scores) in enumerate(zip(info.indices, info.scores, strict=True))
        for rank, (i, score) in enumerate(zip(indices, scores, strict=True))
        if score > -np.inf
    ]


def run_active(config: ConfigDict, setup: Setup, workdir: Path) -> dict[str, Any] | None:
    """Labelling curves of every strategy on the same starts (Figs 9-11).

    Args:
        config: of `configs/active.py`.
        setup: of `loop.load`.
        workdir: gets config.json, acquisitions.csv, curves.csv and, last, metrics.json.

    Returns:
        The metrics, or None if this run was finished before.
    """
    check(config, setup)
    if rundir.open_run(workdir, setup.run):
        return None
    slices = setup.slices
    weights = setup.run["weights"]["sha256"]
    method, examples = frozen_learner(config, setup.data_dir, slices, setup.variables, weights)
    train, test = setup.folds.masks(slices.patient, slices.label)
    patient = jnp.asarray(np.unique(slices.patient, return_inverse=True)[1], jnp.int32)
    run = jax.jit(algorithm1(method, config.strategies, config.num_acquire, config.initial_labeled, config.num_rounds))
    curves: list[tuple] = []
    acquired: list[tuple] = []
    runs = list(itertools.product(range(config.num_folds), range(config.seeds), enumerate(config.strategies)))
    for fold, seed, (index, strategy) in track(f"active {config.sequence}", runs, len(runs)):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), fold), seed)
        askable = jnp.asarray(train[fold])
        info = jax.device_get(run(key, examples, patient, askable, jnp.int32(index)))
        head = (fold, seed, strategy)
        curves += _curve_rows(setup, test[fold], info, config.entropy_threshold, head)
        acquired += _acquisition_rows(slices, info, head)
    rundir.write_csv(workdir / "acquisitions.csv", ACQUISITIONS, acquired)
    rundir.write_csv(workdir / "curves.csv", CURVES, curves)
    result = {"num_runs": len(runs), "pool_slices": [int(n) for n in train.sum(axis=1)]}
    rundir.finish(workdir, result)
    return result
