"""Fusion of a patient's sequences, cross-validated over patients: four ways of it, beside each sequence alone.

features of each sequence → one bag for each patient → only_SEQUENCE, early, attention     (trained)
                            predictions of only_SEQUENCE → late, best_single               (combined)
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lesion.classes import Classes
from lesion.dataset import Slices, splits, store
from lesion.errors import Interrupted, UserError
from lesion.models.heads import Bags, EarlyFusion, GatedAttention, Head, mean_over_slices
from lesion.runs import rundir
from lesion.runs.processes import handle_sigterm
from lesion.train.frozen import Examples, frozen_learner
from lesion.train.network import Network
from lesion.transfer import bags, fusion_folds, methods
from lesion.transfer.checks import check_config, check_fields
from lesion.transfer.folds import CrossValidation, FitFold, FoldResult, Units, run_folds
from lesion.transfer.loading import Setup, cohort_folds, load_weights

CHOICES = {"fusion.late": ("probability", "logit")}
LAST_PART = "attention"


class FusionSetup(NamedTuple):
    """The data and weights of a fusion experiment.

    Attributes:
        data_dir: folder of the dataset that launch.prepare wrote.
        slices: {sequence: its slices} for M sequences.
        patients: P patients.
        folds: the cohort's folds, the same for every experiment.
        variables: {sequence: variables of its backbone}.
        weights: {sequence: provenance of the variables}.
        run: see `rundir.identity`.
    """

    data_dir: Path
    slices: dict[str, Slices]
    patients: bags.Patients
    folds: splits.Splits
    variables: dict[str, dict]
    weights: dict[str, dict[str, Any]]
    run: dict[str, Any]

    @property
    def units(self) -> Units:
        """The P patients as units."""
        return Units(self.patients.label, self.patients.patient, np.full(len(self.patients.label), ""))

    def of_sequence(self, name: str) -> Setup:
        """Returns the setup from which one sequence's features are computed."""
        return Setup(
            self.data_dir, self.slices[name], self.folds, self.variables[name], {"weights": self.weights[name]}
        )


class Part(NamedTuple):
    """One way to classify patients: its name, the builder of a fold's fit, and the summary of the folds' notes."""

    name: str
    build: Callable[[], FitFold]
    summarise: Callable[[list[dict[str, Any]]], dict[str, Any]]


def part_names(config: ConfigDict) -> list[str]:
    """Returns the names of all parts in the order of running: each sequence alone, then each way of fusion."""
    return [*(f"only_{name}" for name in config.fusion.sequences), "early", "late", "best_single", LAST_PART]


def sequence_config(config: ConfigDict, sequence: str) -> ConfigDict:
    """Returns the config of one sequence's features, with its own backbone and weights or the shared ones."""
    result = ConfigDict({k: v for k, v in config.items() if k != "fusion"})
    own = config.fusion.backbones[sequence]
    result.update({"sequence": sequence, "backbone": own.backbone or config.backbone})
    result.weights = own.weights or config.weights
    return result.lock()


def check(config: ConfigDict) -> None:
    """Raises a one-line `UserError` if a value is invalid or excludes another one."""
    sequences, known = tuple(config.fusion.sequences), tuple(config.fusion.backbones)
    if len(set(sequences)) < max(2, len(sequences)):
        raise UserError(f"--config.fusion.sequences={','.join(sequences)}: fusion needs two or more, each once")
    for sequence in sequences:
        if sequence not in known:
            raise UserError(f"--config.fusion.sequences: {sequence!r} is unknown: choose among {', '.join(known)}")
        check_config(sequence_config(config, sequence))
    if config.mode != "frozen":
        raise UserError(f"--config.mode={config.mode}: fusion is of frozen features, leave it at frozen")
    if config.split != "patient" or config.label_control != "none":
        raise UserError("--config.split and --config.label_control are for one sequence: leave patient and none")
    if not config.head.widths:
        raise UserError("--config.head.widths=: attention comes after the head's first layer, name one at least")
    check_fields(config, CHOICES)


def load(config: ConfigDict, data_dir: Path, *, keep: bool = True) -> FusionSetup:
    """Reads and checks the data and weights of a fusion experiment; with `keep` stores the split in the dataset.

    Raises:
        UserError: if a value is invalid, a sequence is not in the dataset, no patient has two sequences, or a fold has
            too few training patients of a class with one of them.
    """
    check(config)
    slices = {name: store.load_slices(data_dir, name) for name in config.fusion.sequences}
    folds = cohort_folds(data_dir, config.num_folds, config.seed, keep)
    return make_setup(config, data_dir, store.load_info(data_dir), slices, folds)


def make_setup(
    config: ConfigDict, data_dir: Path, info: dict[str, Any], slices: dict[str, Slices], folds: splits.Splits
) -> FusionSetup:
    """Checks the dataset's `info`, the slices of M sequences and the folds, and adds the weights; see `load`."""
    if several := info.get("patients_of_several_visits"):
        mend = "run launch.prepare again without --visits=all"
        raise UserError(f"{data_dir} has several visits of {several} patients, fusion needs one of each: {mend}")
    patients = bags.find_patients(slices)
    train, _ = folds.masks(patients.patient, patients.label)
    bags.check_classes(patients, train, config.fusion.inner_folds, 2 if config.patience else 1, Classes.of(info))
    variables, weights = {}, {}
    for name in slices:
        variables[name], weights[name] = load_weights(sequence_config(config, name))
    run = rundir.identity(config, info, folds.hash, _joint_provenance(weights), jax.devices()[0].device_kind)
    return FusionSetup(data_dir, slices, patients, folds, variables, weights, run)


def _joint_provenance(weights: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns one record of all backbones' provenance: the common one if they are equal."""
    first = next(iter(weights.values()))
    if all(record == first for record in weights.values()):
        return first
    hashes = json.dumps({name: record["sha256"] for name, record in weights.items()}, sort_keys=True)
    is_pretrained = all(record["pretrained"] for record in weights.values())
    sha256 = hashlib.sha256(hashes.encode()).hexdigest()
    return {"sha256": sha256, "pretrained": is_pretrained, "sequences": {**weights}}


def run_fusion(config: ConfigDict, setup: FusionSetup, workdir: Path) -> dict[str, Any] | None:
    """Runs every sequence alone and every way of fusion on the same patients and folds.

    Args:
        config: a configuration of `configs/fusion.py`.
        setup: the result of `load`.
        workdir: gets only_SEQUENCE/, early/, late/, best_single/ and attention/, each with config.json, checkpoints/,
            predictions.csv (a row for each patient), metrics.json (last) and, if a network is trained, tensorboard/.

    Returns:
        {part: metrics} of the parts that were not finished before, or None if all were.

    Raises:
        UserError: if a fit diverged, or a folder is another run's.
        Interrupted: on SIGTERM; everything is saved before.
    """
    parts = parts_of(config, setup, workdir)
    results: dict[str, Any] = {}
    with handle_sigterm() as stop:
        for number, part in enumerate(parts, 1):
            run = setup.run | {"part": part.name}
            validation = CrossValidation(f"fusion {part.name}", setup.units, setup.folds, run)
            metrics = run_folds(config, validation, workdir / part.name, part.build, stop, part.summarise)
            results |= {part.name: metrics} if metrics else {}
            store.copy_source_digests(setup.data_dir, workdir / part.name)
            if stop.requested() and number < len(parts):
                raise Interrupted(f"stopped after {part.name}, part {number} of {len(parts)}, all saved")
    return results or None


def parts_of(config: ConfigDict, setup: FusionSetup, workdir: Path) -> list[Part]:
    """Returns all parts in the order of running; features are computed when the first part needs them."""
    patients, recipe, dropout = setup.patients, methods.recipe_of(config), config.head.dropout
    widths, label = tuple(config.head.widths), jnp.asarray(patients.label)

    def fit_of(head: Any) -> Callable[..., FoldResult]:
        return methods.fit_on_features(config, frozen_learner(Network(head), recipe, with_logits=True))

    @functools.cache
    def features_of(name: str) -> np.ndarray:
        return methods.frozen_features(sequence_config(config, name), setup.of_sequence(name))

    @functools.cache
    def slice_bags() -> Bags:
        return bags.make_bags(patients, setup.slices, {name: features_of(name) for name in setup.slices})

    @functools.cache
    def mean_bags() -> Bags:
        return mean_over_slices(Bags(*map(jnp.asarray, slice_bags())))

    @functools.cache  # shared, so that sequences with equally wide features share one compilation
    def fit_alone() -> Callable[..., FoldResult]:
        return fit_of(Head(widths, dropout))

    def single(name: str) -> fusion_folds.SingleSequence:
        width = features_of(name).shape[-1]
        x = mean_bags().features[:, :, patients.sequences.index(name), 0, :width]
        return fusion_folds.SingleSequence(fit_alone(), Examples(x, label), setup.units, patients.have(name))

    def only(name: str) -> Part:
        return Part(f"only_{name}", lambda: fusion_folds.only(single(name)), fusion_folds.total)

    def early() -> FitFold:
        examples = Examples(mean_bags(), label)
        return methods.fold_on_features(fit_of(EarlyFusion(widths, dropout)), examples, setup.units)

    def attention() -> FitFold:
        head = GatedAttention(widths, config.fusion.attention_width, dropout)
        examples = Examples(Bags(*map(jnp.asarray, slice_bags())), label)
        fit_fold = methods.fold_on_features(fit_of(head), examples, setup.units)
        return fusion_folds.with_attention_shares(fit_fold, head, examples, patients)

    return [
        *map(only, patients.sequences),
        Part("early", early, fusion_folds.total),
        Part("late", lambda: fusion_folds.late(config, workdir, patients), fusion_folds.total),
        Part("best_single", lambda: fusion_folds.best_single(config, workdir, patients, single), fusion_folds.choices),
        Part(LAST_PART, attention, fusion_folds.mean_shares),
    ]
