"""Checks of a configuration's values: ranges, choices, and combinations that exclude each other."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lesion import cli, models
from lesion.errors import UserError


class Range(NamedTuple):
    """The values that a field may have: a predicate, and its meaning in words."""

    holds: Callable[[Any], bool]
    text: str


def _numbers(holds: Callable[[float], bool], text: str) -> Range:
    return Range(lambda value: isinstance(value, int | float) and holds(value), text)


def _count(least: int, most: int = 1_000_000) -> Range:
    """Returns the range of whole numbers from `least` to `most`, which no run of use exceeds."""
    return Range(lambda value: type(value) is int and least <= value <= most, f"{least} to {most}")


_LAYER = _count(1, 65536)  # units
# The values of every number in configs/, whatever the dataset; one that a configuration lacks is not looked for.
RANGES = {
    "seed": _count(0, 2**32 - 1),
    "num_folds": _count(2, 1000),
    "num_copies": _count(0, 4),
    "num_epochs": _count(1, 100_000),
    "batch_size": _count(1, 65536),
    "label_smoothing": _numbers(lambda value: 0 <= value < 1, "0 or more, below 1"),
    "patience": _count(0),
    "validation": _numbers(lambda value: 0 < value < 1, "above 0 and below 1"),
    "checkpoint_every": _count(1),
    "optim.lr": _numbers(lambda value: 0 < value < math.inf, "above 0"),
    "optim.backbone_lr": _numbers(lambda value: 0 <= value < math.inf, "0 or more"),
    "optim.lr_decay": _numbers(lambda value: 0 < value <= 1, "above 0, at most 1"),
    "head.dropout": _numbers(lambda value: 0 <= value < 1, "0 or more, below 1"),
    "head.widths": Range(lambda widths: all(map(_LAYER.holds, widths)), f"numbers from {_LAYER.text}"),
    "svm.num_features": _count(1),
    "svm.c": _numbers(lambda value: 0 < value < math.inf, "above 0"),
    "fusion.attention_width": _LAYER,
    "fusion.inner_folds": _count(2, 1000),
    "num_deals": _count(1, 1000),
    "num_repeats": _count(1, 1000),
    "num_rounds": _count(1, 10_000),
    "initial_labeled": _count(1),
    "num_acquire": _count(1),
    "max_per_patient": _count(0),
    "dropout_samples": _count(1, 10_000),
    "parallel_runs": _count(0),
    "budget_slices": _count(0),
    "budget_patients": _count(0),
    "entropy_threshold": _numbers(lambda value: 0 <= value <= math.log(2), "0 to 0.693 nats, the entropy of a coin"),
    "stabilizing_predictions": _numbers(lambda value: 0 <= value <= 1, "0 to 1"),
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


def check_fields(config: ConfigDict, choices: Mapping[str, Sequence[str]]) -> None:
    """Raises a one-line `UserError` if a number is out of its range, or a field's value not among its choices."""
    fields = cli.flatten(config)
    for name, allowed in RANGES.items():
        if name in fields and not allowed.holds(fields[name]):
            raise UserError(f"--config.{name}={_text(fields[name])}: it must be {allowed.text}")
    for name, values in choices.items():
        if fields[name] not in values:
            raise UserError(f"--config.{name}={fields[name]}: choose one of {', '.join(map(repr, values))}")


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check_config(config: ConfigDict) -> None:
    """Raises a one-line `UserError` if a value is invalid or excludes another one."""
    models.get_spec(config.backbone)
    check_fields(config, CHOICES)
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
    if config.svm.num_features > width:
        raise UserError(f"--config.svm.num_features={config.svm.num_features}: {config.backbone} has {width}")
