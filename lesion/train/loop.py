"""The impure shell of training: loads, compiles, runs the folds, writes the results."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lesion import metrics, models, trees
from lesion.data import Slices, cohort, splits
from lesion.errors import UserError
from lesion.models.head import Head
from lesion.progress import track
from lesion.train import checkpoint, features, learner, pretrained, rundir

PREDICTIONS = ("fold", "patient", "slice", "label", "probability")


class Setup(NamedTuple):
    """What every experiment on one sequence starts from.

    Attributes:
        data_dir: what `launch/prepare` wrote.
        slices: N of them.
        folds: over their patients.
        variables: of the backbone.
        run: see `rundir.identity`.
    """

    data_dir: Path
    slices: Slices
    folds: splits.Splits
    variables: dict
    run: dict[str, Any]


def check_config(config: ConfigDict) -> None:
    """Raises a one-line `UserError` for a value that cannot be run."""
    models.get_spec(config.backbone)
    if config.mode != "frozen":
        raise UserError(f"--config.mode={config.mode}: this version trains on frozen features only, use frozen")
    for name, least in (("num_epochs", 1), ("batch_size", 1), ("num_copies", 0), ("num_folds", 2)):
        if config[name] < least:
            raise UserError(f"--config.{name}={config[name]}: {least} is the least")
    if config.num_copies > 4:
        raise UserError(f"--config.num_copies={config.num_copies}: 4 is the most")


def cohort_folds(data_dir: Path, num_folds: int, seed: int) -> splits.Splits:
    """One deal of the cohort's patients for all its sequences, so that results on them can be compared and fused."""
    present = [name for name, counts in cohort.load_info(data_dir)["sequences"].items() if counts]
    loaded = [cohort.load_slices(data_dir, name) for name in present]
    label = np.concatenate([s.label for s in loaded])
    patient = np.concatenate([s.patient for s in loaded])
    return splits.load_or_make(data_dir, label, patient, num_folds, seed)


@functools.cache  # several experiments of one process share them
def _weights(backbone: str, directory: str, seed: int) -> tuple[dict, dict[str, Any]]:
    if directory:
        return pretrained.load(backbone, directory)
    return pretrained.random_variables(backbone, seed)


def load_weights(config: ConfigDict) -> tuple[dict, dict[str, Any]]:
    """The backbone's variables and provenance: converted where `config.weights` names a folder, else random."""
    return _weights(config.backbone, config.weights, config.seed)


def load(config: ConfigDict, data_dir: Path) -> Setup:
    """Reads and checks what an experiment needs; writes nothing but the dataset's split."""
    check_config(config)
    slices = cohort.load_slices(data_dir, config.sequence)
    info = cohort.load_info(data_dir)
    folds = cohort_folds(data_dir, config.num_folds, config.seed)
    variables, weights = load_weights(config)
    run = rundir.identity(config, info, folds.hash, weights, jax.devices()[0].device_kind)
    return Setup(data_dir, slices, folds, variables, run)


def build(config: ConfigDict, setup: Setup) -> tuple[learner.Learner, learner.Examples]:
    """The learner of the config, and the features [N, 1 + copies, D] and labels [N] it learns from, on the device."""
    inputs = features.load_or_compute(
        setup.data_dir / "features",
        setup.slices,
        config.backbone,
        setup.variables,
        setup.run["weights"]["sha256"],
        num_copies=config.num_copies,
        seed=config.seed,
        stage=f"features {config.sequence}",
    )
    recipe = learner.Recipe(config.num_epochs, config.batch_size, config.optim.lr, config.optim.lr_decay)
    frozen = learner.frozen(Head(tuple(config.head.widths), config.head.dropout), recipe)
    return frozen, learner.Examples(jnp.asarray(inputs), jnp.asarray(setup.slices.label))


def _fit_fold(method: learner.Learner) -> Callable:
    @jax.jit
    def fit_fold(key: jax.Array, examples: learner.Examples, mask: jax.Array):
        key_init, key_fit = (jax.random.fold_in(key, purpose) for purpose in range(2))
        # Test labels are hidden from the learner, not only masked.
        seen = examples._replace(label=jnp.where(mask, examples.label, -1))
        state, info = method.fit(key_fit, method.init(key_init, examples), seen, mask)
        return state.params, method.predict(state, examples)[:, 1], info["loss"]

    return fit_fold


def run_transfer(config: ConfigDict, setup: Setup, workdir: Path) -> dict[str, Any] | None:
    """Cross-validation over patients on one sequence (Tables 3-5).

    Args:
        config: of `configs/transfer.py`.
        setup: of `load`.
        workdir: gets config.json, checkpoints/, predictions.csv and, last, metrics.json.

    Returns:
        The metrics, or None if this run was finished before.
    """
    if rundir.open_run(workdir, setup.run):
        return None
    method, examples = build(config, setup)
    slices, fit_fold = setup.slices, _fit_fold(method)
    train, test = setup.folds.masks(slices.patient, slices.label)
    rows, losses = [], []
    probability = np.full(len(slices.label), np.nan)
    for fold in track(f"transfer {config.sequence}", range(config.num_folds), config.num_folds):
        key = jax.random.fold_in(jax.random.key(config.seed), fold)
        params, probs, loss = jax.device_get(fit_fold(key, examples, jnp.asarray(train[fold])))
        if not np.isfinite(loss).all():
            epoch = int(np.argmin(np.isfinite(loss)))
            raise UserError(f"the loss of fold {fold} is not finite in epoch {epoch}: lower --config.optim.lr")
        losses.append([float(x) for x in loss])
        probability[test[fold]] = probs[test[fold]]
        provenance = {"fold": fold, "split_hash": setup.run["split_hash"], "backbone": setup.run["weights"]["sha256"]}
        checkpoint.save_variables(workdir / "checkpoints" / f"fold_{fold}", {"params": params}, provenance)
        rows += [
            (fold, slices.patient[i], slices.slice_id[i], int(slices.label[i]), float(probs[i]))
            for i in np.flatnonzero(test[fold])
        ]
    rundir.write_csv(workdir / "predictions.csv", PREDICTIONS, rows)
    tested = test.any(axis=0)
    scores = metrics.evaluate(slices.label[tested], probability[tested], slices.patient[tested])
    result = scores | {"train_loss": losses, "head_params": trees.num_params(params)}
    rundir.finish(workdir, result)
    return result
