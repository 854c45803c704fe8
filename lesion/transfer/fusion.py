"""Fusion of a patient's sequences under cross-validation over patients, each way of it beside each sequence alone.

features of each sequence → bags, a patient each → only_SEQUENCE, early, attention     trained
                            only_SEQUENCE → late, best_single                           from their predictions
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

from lesion.dataset import Slices, splits, store
from lesion.errors import Interrupted, UserError
from lesion.models.fusion import Bags, Early, GatedAttention, mean_over_slices
from lesion.models.head import Head
from lesion.runs import resume, rundir
from lesion.train import learner, network
from lesion.transfer import bags, folds, fusion_folds, loading, methods
from lesion.transfer.folds import Cases, FitFold, Fitted

LATE = ("probability", "logit")
LEAST = {"attention_width": 1, "inner_folds": 2}


class FusionSetup(NamedTuple):
    """What fusion starts from.

    Attributes:
        data_dir: what `launch/prepare` wrote.
        slices: of each of M sequences.
        patients: P of them.
        folds: the cohort's, as every experiment's.
        variables: of each sequence's backbone.
        weights: their provenance.
        run: see `rundir.identity`.
    """

    data_dir: Path
    slices: dict[str, Slices]
    patients: bags.Patients
    folds: splits.Splits
    variables: dict[str, dict]
    weights: dict[str, dict[str, Any]]
    run: dict[str, Any]


class Part(NamedTuple):
    """One way to tell patients apart: how a fold of it is fitted, and what its notes come to."""

    name: str
    build: Callable[[], FitFold]
    summarise: Callable[[list[dict[str, Any]]], dict[str, Any]]


def sequence_config(config: ConfigDict, sequence: str) -> ConfigDict:
    """The config by which features of one sequence are made: its own backbone and weights, or the shared ones."""
    one = ConfigDict({k: v for k, v in config.items() if k != "fusion"})
    own = config.fusion.backbones[sequence]
    one.update({"sequence": sequence, "backbone": own.backbone or config.backbone})
    one.weights = own.weights or config.weights
    return one.lock()


def check(config: ConfigDict) -> None:
    """Raises a one-line `UserError` for a value that cannot be run."""
    wanted, known = tuple(config.fusion.sequences), tuple(config.fusion.backbones)
    if len(set(wanted)) < max(2, len(wanted)):
        raise UserError(f"--config.fusion.sequences={wanted}: fusion needs two or more, each once")
    for sequence in wanted:
        if sequence not in known:
            raise UserError(f"--config.fusion.sequences: {sequence!r} is unknown: choose among {', '.join(known)}")
        loading.check_config(sequence_config(config, sequence))
    if config.mode != "frozen":
        raise UserError(f"--config.mode={config.mode}: fusion is of frozen features, leave it at frozen")
    if config.split != "patient" or config.label_control != "none":
        raise UserError("--config.split and --config.label_control are for one sequence: leave patient and none")
    if not config.head.widths:
        raise UserError("--config.head.widths=(): attention comes after the head's first layer, name one at least")
    if config.fusion.late not in LATE:
        raise UserError(f"--config.fusion.late={config.fusion.late}: choose one of {', '.join(LATE)}")
    for name, least in LEAST.items():
        if config.fusion[name] < least:
            raise UserError(f"--config.fusion.{name}={config.fusion[name]}: {least} is the least")


def load(config: ConfigDict, data_dir: Path, *, keep: bool = True) -> FusionSetup:
    """Reads and checks what fusion needs; writes the dataset's split, and without `keep` nothing.

    Raises:
        UserError: if a value cannot be run, a sequence is not in the dataset, nobody has two, or a class of a fold has
            too few training patients with one of them.
    """
    check(config)
    slices = {name: store.load_slices(data_dir, name) for name in config.fusion.sequences}
    dealt = loading.cohort_folds(data_dir, config.num_folds, config.seed, keep)
    return prepare(config, data_dir, store.load_info(data_dir), slices, dealt)


def prepare(
    config: ConfigDict, data_dir: Path, info: dict[str, Any], slices: dict[str, Slices], dealt: splits.Splits
) -> FusionSetup:
    """Checks what was read and takes the weights: `info` of the dataset, `slices` of M sequences, the folds."""
    patients = bags.find_patients(slices)
    train, _ = dealt.masks(patients.patient, patients.label)
    bags.check_classes(patients, train, config.fusion.inner_folds, 2 if config.patience else 1)
    variables, weights = {}, {}
    for name in slices:
        variables[name], weights[name] = loading.load_weights(sequence_config(config, name))
    run = rundir.identity(config, info, dealt.hash, _joined(weights), jax.devices()[0].device_kind)
    return FusionSetup(data_dir, slices, patients, dealt, variables, weights, run)


def _joined(weights: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The backbones' provenance as one: that of all where it is the same."""
    first = next(iter(weights.values()))
    if all(one == first for one in weights.values()):
        return first
    hashes = json.dumps({name: one["sha256"] for name, one in weights.items()}, sort_keys=True)
    pretrained = all(one["pretrained"] for one in weights.values())
    return {"sha256": hashlib.sha256(hashes.encode()).hexdigest(), "pretrained": pretrained, "sequences": {**weights}}


def run_fusion(config: ConfigDict, setup: FusionSetup, workdir: Path) -> dict[str, Any] | None:
    """Every way of fusion, and every sequence alone, on the same patients and folds.

    Args:
        config: of `configs/fusion.py`.
        setup: of `load`.
        workdir: gets only_SEQUENCE/, early/, late/, best_single/ and attention/, each with config.json, checkpoints/,
            predictions.csv (a row a patient) and, last, metrics.json; those trained here tensorboard/ too.

    Returns:
        {part: metrics} of those that were not finished before, or None if all were.

    Raises:
        UserError: if a fit diverged, or a folder is another run's.
        Interrupted: on SIGTERM; everything is saved before.
    """
    patients = setup.patients
    cases = Cases(patients.label, patients.patient, np.full(len(patients.label), ""))
    parts = parts_of(config, setup, cases, workdir)
    results: dict[str, Any] = {}
    with resume.heed_sigterm() as bell:
        for number, (name, build, summarise) in enumerate(parts):
            run = setup.run | {"part": name}
            what = folds.Crossed(f"fusion {name}", cases, setup.folds, run)
            found = folds.run_folds(config, what, workdir / name, build, bell, summarise)
            results |= {name: found} if found else {}
            if bell.heard() and number + 1 < len(parts):
                raise Interrupted(f"stopped after {name}, part {number + 1} of {len(parts)}, all saved")
    return results or None


def parts_of(config: ConfigDict, setup: FusionSetup, cases: Cases, workdir: Path) -> list[Part]:
    """What is run, in this order; features are computed when the first part that trains asks for them."""
    patients, how, dropout = setup.patients, methods.recipe_of(config), config.head.dropout
    widths, label = tuple(config.head.widths), jnp.asarray(patients.label)

    def fit_of(head: Any) -> Callable[..., Fitted]:
        return methods.fit_on_features(config, learner.frozen(network.of_head(head), how, watched=True))

    @functools.cache
    def features_of(name: str) -> np.ndarray:
        given = setup.data_dir, setup.slices[name], setup.variables[name], setup.weights[name]["sha256"]
        return methods.frozen_features(sequence_config(config, name), *given)

    @functools.cache
    def whole() -> Bags:
        return bags.assemble(patients, setup.slices, {name: features_of(name) for name in setup.slices})

    @functools.cache
    def means() -> Bags:
        return mean_over_slices(Bags(*map(jnp.asarray, whole())))

    @functools.cache  # one program for all sequences whose features are as wide
    def fit_alone() -> Callable[..., Fitted]:
        return fit_of(Head(widths, dropout))

    def alone(name: str) -> fusion_folds.Alone:
        width = features_of(name).shape[-1]
        inputs = means().features[:, :, patients.sequences.index(name), 0, :width]
        return fusion_folds.Alone(fit_alone(), learner.Examples(inputs, label), cases, patients.have(name))

    def only(name: str) -> Part:
        return Part(f"only_{name}", lambda: fusion_folds.only(config, alone(name)), fusion_folds.total)

    def early() -> FitFold:
        return fusion_folds.together(config, fit_of(Early(widths, dropout)), learner.Examples(means(), label), cases)

    def attention() -> FitFold:
        head = GatedAttention(widths, config.fusion.attention_width, dropout)
        examples = learner.Examples(Bags(*map(jnp.asarray, whole())), label)
        fit_fold = fusion_folds.together(config, fit_of(head), examples, cases)
        return fusion_folds.with_shares(fit_fold, head, examples, patients)

    def best() -> FitFold:
        return fusion_folds.best(config, workdir, patients, alone)

    return [
        *map(only, patients.sequences),
        Part("early", early, fusion_folds.total),
        Part("late", lambda: fusion_folds.late(config, workdir, patients), fusion_folds.total),
        Part("best_single", best, fusion_folds.choices),
        Part("attention", attention, fusion_folds.mean_shares),
    ]
