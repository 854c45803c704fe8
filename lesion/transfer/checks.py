"""Checks of a configuration's values: ranges, choices, and combinations that exclude each other."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lesion import models
from lesion.errors import UserError


class Range(NamedTuple):
    """The values that a field may have: a predicate, and its meaning in words."""

    holds: Callable[[Any], bool]
    text: str


def at_least(least: float) -> Range:
    """Returns the range of finite numbers from `least` on."""
    return Range(lambda value: least <= value < math.inf, f"{least} or more")


POSITIVE = Range(lambda value: 0 < value < math.inf, "above 0")
SHARE = Range(lambda value: 0 < value < 1, "above 0 and below 1")
BELOW_ONE = Range(lambda value: 0 <= value < 1, "0 or more, below 1")

RANGES = {
    "num_epochs": at_least(1),
    "batch_size": at_least(1),
    "num_copies": Range(lambda value: 0 <= value <= 4, "0 to 4"),
    "num_folds": at_least(2),
    "patience": at_least(0),
    "validation": SHARE,
    "checkpoint_every": at_least(1),
    "label_smoothing": BELOW_ONE,
    "optim.lr": POSITIVE,
    "optim.backbone_lr": at_least(0),
    "optim.lr_decay": POSITIVE,
    "head.dropout": BELOW_ONE,
    "head.widths": Range(lambda widths: all(type(width) is int and width >= 1 for width in widths), "numbers from 1"),
}
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


def check_fields(config: ConfigDict, ranges: Mapping[str, Range], choices: Mapping[str, Sequence[str]]) -> None:
    """Raises a one-line `UserError` if a field's value is out of its range or not among its choices."""

    def field(name: str) -> Any:
        return functools.reduce(lambda group, key: group[key], name.split("."), config)

    for name, allowed in ranges.items():
        if not allowed.holds(field(name)):
            raise UserError(f"--config.{name}={field(name)}: it must be {allowed.text}")
    for name, values in choices.items():
        if field(name) not in values:
            raise UserError(f"--config.{name}={field(name)}: choose one of {', '.join(map(repr, values))}")


def check_config(config: ConfigDict) -> None:
    """Raises a one-line `UserError` if a value is invalid or excludes another one."""
    models.get_spec(config.backbone)
    check_fields(config, RANGES, CHOICES)
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
    if config.backbone in models.BASELINES:
        _check_baseline(config)


def _check_baseline(config: ConfigDict) -> None:
    """Raises a one-line `UserError` if a value is invalid for a network of Table 7."""
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
    num_features = Range(lambda value: 1 <= value <= width, f"1 to {width}")
    check_fields(config, {"svm.num_features": num_features, "svm.c": POSITIVE}, {})
