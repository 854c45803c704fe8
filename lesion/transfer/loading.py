"""The impure shell of training: loads, checks, runs."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lesion import models
from lesion.dataset import Slices, splits, store
from lesion.errors import UserError
from lesion.runs import resume, rundir
from lesion.transfer import methods
from lesion.transfer.folds import Crossed, FitFold, cases_of, fold_masks, run_folds
from lesion.weights import pretrained


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


LEAST = {"num_epochs": 1, "batch_size": 1, "num_copies": 0, "num_folds": 2, "patience": 0, "checkpoint_every": 1}
CHOICES = {
    "mode": ("frozen", "finetune", "scratch"),
    "batch_norm": ("frozen", "updated"),
    "augmentation": ("fixed", "fresh"),
    "dtype": ("float32", "bfloat16"),
    "data_on": ("auto", "device", "host"),
    "split": ("patient", "leaky"),
    "label_control": ("none", "shuffled"),
    "optim.decay_every": ("epoch", "step"),
    "head.pooling": ("", "mean", "max", "flatten"),
}


def _field(config: ConfigDict, name: str) -> Any:
    return functools.reduce(lambda part, key: part[key], name.split("."), config)


def check_config(config: ConfigDict) -> None:
    """Raises a one-line `UserError` for a value that cannot be run."""
    models.get_spec(config.backbone)
    for name, least in LEAST.items():
        if config[name] < least:
            raise UserError(f"--config.{name}={config[name]}: {least} is the least")
    for name, choices in CHOICES.items():
        if _field(config, name) not in choices:
            known = ", ".join(repr(c) for c in choices)
            raise UserError(f"--config.{name}={_field(config, name)}: choose one of {known}")
    if config.num_copies > 4:
        raise UserError(f"--config.num_copies={config.num_copies}: 4 is the most")
    if not 0 < config.validation < 1:
        raise UserError(f"--config.validation={config.validation}: a share of the patients, between 0 and 1")
    if not 0 <= config.label_smoothing < 1:
        raise UserError(f"--config.label_smoothing={config.label_smoothing}: between 0 and 1")
    if config.mode == "scratch" and config.weights:
        raise UserError("--config.mode=scratch begins from random weights: leave out --config.weights")
    if config.finetune_from:
        if config.mode != "finetune":
            raise UserError(f"--config.finetune_from is for --config.mode=finetune, not {config.mode}")
        models.stage_before(config.backbone, config.finetune_from)
    elif config.cache_activations:
        raise UserError("--config.cache_activations needs --config.finetune_from: the stages below it are cached")
    if config.cache_activations and config.augmentation == "fresh":
        raise UserError("--config.cache_activations needs --config.augmentation=fixed: fresh copies cannot be cached")
    if config.mode == "frozen" and config.augmentation == "fresh":
        raise UserError("--config.augmentation=fresh needs --config.mode=finetune: frozen features are computed once")
    _check_baseline(config)


def _check_baseline(config: ConfigDict) -> None:
    """The same, for a network of Table 7."""
    if config.backbone not in models.BASELINES:
        return
    spec = models.BASELINES[config.backbone]
    if config.mode not in spec.modes:
        raise UserError(f"{config.backbone} is a baseline: --config.mode={' or '.join(spec.modes)}, not {config.mode}")
    if config.head.widths or config.head.dropout or config.head.pooling:
        raise UserError(f"{config.backbone} has a classifier of its own, no head: --config=configs/baselines.py")
    if spec.loss != "bce" and config.label_smoothing:
        raise UserError(
            f"--config.label_smoothing smooths cross-entropy, {config.backbone} has {spec.loss} loss: leave 0"
        )
    if spec.head is None:
        _check_svm(config, spec.model.feature_width)


def _check_svm(config: ConfigDict, width: int) -> None:
    if "svm" not in config:
        raise UserError(f"{config.backbone} needs the fields svm.*: begin from --config=configs/baselines.py")
    if config.patience:
        raise UserError("--config.patience: a support vector machine has no epochs to stop at, leave it at 0")
    if not 1 <= config.svm.num_features <= width:
        raise UserError(f"--config.svm.num_features={config.svm.num_features}: there are 1 to {width}")
    if not config.svm.c > 0:
        raise UserError(f"--config.svm.c={config.svm.c}: above 0")


def cohort_folds(data_dir: Path, num_folds: int, seed: int, keep: bool = True) -> splits.Splits:
    """One deal of the cohort's patients for all its sequences, so that results on them can be compared and fused."""
    present = [name for name, counts in store.load_info(data_dir)["sequences"].items() if counts]
    loaded = [store.load_slices(data_dir, name) for name in present]
    label = np.concatenate([s.label for s in loaded])
    patient = np.concatenate([s.patient for s in loaded])
    return splits.load_or_make(data_dir, label, patient, num_folds, seed, keep)


def _folds(config: ConfigDict, data_dir: Path, slices: Slices, keep: bool) -> splits.Splits:
    """The cohort's deal of patients; or, to measure what a leak is worth, a deal of slices that is kept nowhere."""
    if config.split == "leaky":
        return splits.make(slices.label, slices.slice_id, config.num_folds, config.seed)
    return cohort_folds(data_dir, config.num_folds, config.seed, keep)


@functools.cache  # several experiments of one process share them
def _weights(backbone: str, directory: str, seed: int, untaught: bool) -> tuple[dict, dict[str, Any]]:
    if directory:
        return pretrained.load(backbone, directory)
    return pretrained.random_variables(backbone, seed, untaught)


def load_weights(config: ConfigDict) -> tuple[dict, dict[str, Any]]:
    """The backbone's variables and provenance: converted where `config.weights` names a folder, else random."""
    untaught = config.mode == "scratch" and config.backbone in models.BASELINES
    return _weights(config.backbone, config.weights, config.seed, untaught)


def load(config: ConfigDict, data_dir: Path, *, with_folds: bool = True, keep: bool = True) -> Setup:
    """Reads and checks what an experiment needs; writes the dataset's split, and without `keep` nothing.

    Without folds nothing is held back, and few labels are enough.
    """
    check_config(config)
    slices = store.load_slices(data_dir, config.sequence)
    if config.label_control == "shuffled":
        slices = slices._replace(label=splits.shuffled(slices.label, slices.patient, config.seed))
    info = store.load_info(data_dir)
    folds = splits.Splits({}, 0, config.seed)
    if with_folds:
        folds = _folds(config, data_dir, slices, keep)
    if config.patience and with_folds:
        for train in fold_masks(config, folds, cases_of(slices))[0]:
            splits.hold_out(slices.patient, slices.label, train, config.validation, config.seed)
    variables, weights = load_weights(config)
    run = rundir.identity(config, info, folds.hash, weights, jax.devices()[0].device_kind)
    if config.backbone in models.BASELINES:
        run["baseline"] = models.describe(config.backbone)
    return Setup(data_dir, slices, folds, variables, run)


def run_transfer(config: ConfigDict, setup: Setup, workdir: Path) -> dict[str, Any] | None:
    """Cross-validation over patients on one sequence (Tables 3-5).

    Args:
        config: of `configs/transfer.py`.
        setup: of `load`.
        workdir: gets config.json, checkpoints/, tensorboard/, predictions.csv and, last, metrics.json.

    Returns:
        The metrics, or None if this run was finished before.
    """
    slices = setup.slices

    def build() -> FitFold:
        return methods.build(config, setup.data_dir, slices, setup.variables, setup.run["weights"]["sha256"])

    what = Crossed(f"transfer {config.sequence}", cases_of(slices), setup.folds, setup.run)
    with resume.heed_sigterm() as bell:
        return run_folds(config, what, workdir, build, bell)
