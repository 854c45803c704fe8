"""Networks as lists of stages: any part can be run, from one stage to another, with or without the classifier."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.models.conv import ConvImpl, symmetric_padding
from lesion.models.layers import Conv

Stage = tuple[str, Callable[[Any], Any]]


def find_stages(names: Sequence[str], name: str) -> list[int]:
    """Returns the positions of the stages called `name`, or `name` and an underscore (`layer3` finds `layer3_0`)."""
    return [i for i, stage in enumerate(names) if stage == name or stage.startswith(f"{name}_")]


def run_stages(stages: Sequence[Stage], x: Any, start: str | None, stop: str | None) -> tuple[Any, bool]:
    """Runs a network's stages, or those after `start` up to `stop`; `find_stages` looks the names up.

    Args:
        stages: (name, function) of each stage, in order.
        x: the network's input, or the output of stage `start`.
        start: stage whose output `x` is; None runs from the beginning.
        stop: last stage to run; None runs to the end.

    Returns:
        The output, and whether the last stage was run.

    Raises:
        ValueError: if no stage has a name, or `stop` comes before `start`.
    """
    names = [name for name, _ in stages]

    def last_index(name: str) -> int:
        positions = find_stages(names, name)
        if not positions:
            raise ValueError(f"no stage {name!r}: choose one of {', '.join(names)}")
        return positions[-1]

    begin = 0 if start is None else last_index(start) + 1
    end = len(stages) if stop is None else last_index(stop) + 1
    if end < begin:
        raise ValueError(f"stage {stop!r} comes before {start!r}")
    for _, run in stages[begin:end]:
        x = run(x)
    return x, end == len(stages)


class Backbone(nn.Module, kw_only=True):
    """The base class of all networks that take slices as input.

    A subclass defines `stages`, and `hidden_layers` if its classifier is more than dropout and one dense layer.

    Attributes:
        num_classes: width of the classifier; None for a network that returns the features before it.
        axis_name: name of the `pmap` axis over which BatchNorm takes its statistics, None on one device.
        dropout: dropout rate in the classifier.
        impl: how convolutions and pools are computed, see `conv.conv2d`.
    """

    num_classes: int | None = None
    axis_name: str | None = None
    dropout: float = 0.0
    impl: ConvImpl = "auto"

    classifier: ClassVar[str | None] = "fc"  # module name of the classifier's last layer; None for no classifier

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """Returns (name, function) of each stage in order; a stage with parameters has its module's name.

        Args:
            train: whether BatchNorm uses the batch's statistics and updates the running ones.
            mask: bool [B], true for the examples that BatchNorm counts; None counts all.
        """
        raise NotImplementedError

    def conv_stage(
        self, name: str, features: int, kernel_size: int, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> Stage:
        """Returns the stage of a convolution with bias, a square kernel and the same padding on all sides."""

        def conv(x: jax.Array) -> jax.Array:
            size, pads = (kernel_size, kernel_size), symmetric_padding(padding)
            return Conv(features, size, stride, pads, groups, use_bias=True, impl=self.impl, name=name)(x)

        return name, conv

    def flatten(self, x: jax.Array) -> jax.Array:
        """Flattens the last stage's output to features [B, D], a map [B, H, W, C] in the order H, W, C."""
        return x.reshape(len(x), -1)

    def hidden_layers(self, features: jax.Array, train: bool) -> jax.Array:
        """Returns the input [B, W] of the classifier's last layer for features [B, D]."""
        return nn.Dropout(self.dropout, deterministic=not train)(features)

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        *,
        mask: jax.Array | None = None,
        start: str | None = None,
        stop: str | None = None,
    ) -> jax.Array:
        """Runs the network, or its stages from `start` to `stop`, see `run_stages`.

        Args:
            images: [B, H, W, channels], preprocessed; with `start` the output of that stage.
            train: whether to train: BatchNorm as in `stages`, and dropout, which needs a random key named `dropout`.
            mask: bool [B], see `stages`.
            start: stage whose output `images` is.
            stop: stage whose output is returned.

        Returns:
            Logits float32 [B, num_classes], features float32 [B, D] if `num_classes` is None, or the output of stage
            `stop`.
        """
        x, finished = run_stages(self.stages(train, mask), images, start, stop)
        if not finished or stop is not None:
            return x
        features = self.flatten(x).astype(jnp.float32)
        if self.num_classes is None:
            return features
        assert self.classifier is not None, "this network has no classifier: num_classes=None gives its features"
        return nn.Dense(self.num_classes, name=self.classifier)(self.hidden_layers(features, train))
