"""Slices, folds and weights for an experiment on one sequence, read and checked."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lesion import models
from lesion.classes import Classes
from lesion.dataset import Slices, splits, store
from lesion.errors import UserError
from lesion.runs import rundir
from lesion.transfer.checks import check_config
from lesion.transfer.folds import Units, fold_masks
from lesion.weights import pretrained


class Setup(NamedTuple):
    """The data and weights of an experiment on one sequence.

    Attributes:
        data_dir: folder of the dataset that launch.prepare wrote.
        slices: N slices.
        folds: folds of the slices' patients (of slices with `split=leaky`).
        variables: variables of the backbone.
        run: see `rundir.identity`.
    """

    data_dir: Path
    slices: Slices
    folds: splits.Splits
    variables: dict
    run: dict[str, Any]

    @property
    def weights_sha256(self) -> str:
        """Hash of the backbone's variables."""
        return self.run["weights"]["sha256"]

    @property
    def classes(self) -> Classes:
        """Names of the dataset's classes."""
        return Classes.of(self.run["data"])


def cohort_folds(data_dir: Path, num_folds: int, seed: int, keep: bool = True) -> splits.Splits:
    """Returns folds of the cohort's patients, the same for all sequences, so that results can be compared and fused.

    Folds that the user gave in patients.csv are the folds, and groups stay together. The folds are read from the
    dataset if it has them; else they are made and, with `keep`, written there.
    """
    info = store.load_info(data_dir)
    present = [name for name, counts in info["sequences"].items() if counts]
    loaded = [store.load_slices(data_dir, name) for name in present]
    label = np.concatenate([slices.label for slices in loaded])
    patient = np.concatenate([slices.patient for slices in loaded])
    return splits.load_or_make(data_dir, label, patient, num_folds, seed, keep, Classes.of(info))


def _folds(config: ConfigDict, data_dir: Path, slices: Slices, keep: bool, classes: Classes) -> splits.Splits:
    """Returns folds of patients, or of slices to measure the effect of a leak; the latter are not written."""
    if config.split == "leaky":
        return splits.make(slices.label, slices.slice_id, config.num_folds, config.seed, classes=classes)
    return cohort_folds(data_dir, config.num_folds, config.seed, keep)


def deal_again(config: ConfigDict, setup: Setup, deal: int, keep: bool = True) -> Setup:
    """Returns the setup with the folds that `config.seed + deal` gives; all else stays.

    Raises:
        UserError: if the folds are given in patients.csv, or a fold has one class only to train on.
    """
    dealt = ConfigDict(config.to_dict() | {"seed": config.seed + deal})
    folds = _folds(dealt, setup.data_dir, setup.slices, keep, setup.classes)
    if folds.test_fold == setup.folds.test_fold:
        raise UserError("--config.num_deals: patients.csv deals the patients to folds, leave it at 1")
    splits.check_classes(
        setup.slices.label,
        fold_masks(config, folds, Units.of_slices(setup.slices))[0],
        config.sequence,
        setup.classes,
    )
    return setup._replace(folds=folds, run=setup.run | {"split_hash": folds.hash})


@functools.cache  # shared by all experiments of one process
def _weights(backbone: str, directory: str, seed: int, from_scratch: bool) -> tuple[dict, dict[str, Any]]:
    if directory:
        return pretrained.load(backbone, directory)
    return pretrained.random_variables(backbone, seed, from_scratch)


def load_weights(config: ConfigDict) -> tuple[dict, dict[str, Any]]:
    """Returns the backbone's variables and provenance: from the folder `config.weights`, or random if that is empty."""
    from_scratch = config.mode == "scratch" and config.backbone in models.BASELINES
    return _weights(config.backbone, config.weights, config.seed, from_scratch)


def load(config: ConfigDict, data_dir: Path, *, with_folds: bool = True, keep: bool = True) -> Setup:
    """Reads and checks an experiment's data and weights; with `keep` stores the split in the dataset.

    Without `with_folds` there is no split, for which a dataset may have too few labels.
    """
    check_config(config)
    slices = store.load_slices(data_dir, config.sequence)
    if config.label_control == "shuffled":
        slices = slices._replace(label=splits.shuffled(slices.label, slices.patient, config.seed))
    info = store.load_info(data_dir)
    classes, folds = Classes.of(info), splits.Splits({}, 0, config.seed)
    if with_folds:
        folds = _folds(config, data_dir, slices, keep, classes)
        train_masks, _ = fold_masks(config, folds, Units.of_slices(slices))
        splits.check_classes(slices.label, train_masks, config.sequence, classes)
        if config.patience:
            for train in train_masks:
                splits.hold_out(slices.patient, slices.label, train, config.validation, config.seed, classes)
    variables, weights = load_weights(config)
    run = rundir.identity(config, info, folds.hash, weights, jax.devices()[0].device_kind)
    if config.backbone in models.BASELINES:
        run["baseline"] = models.describe(config.backbone)
    setup = Setup(data_dir, slices, folds, variables, run)
    for deal in range(1, config.get("num_deals", 1) if with_folds else 1):  # before anything is trained
        deal_again(config, setup, deal, keep=False)
    return setup
