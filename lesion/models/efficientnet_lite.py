"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation and with ReLU6.

Source: Tan & Le, ICML 2019, and the EfficientNet-Lite release in TensorFlow's TPU repository. Submodules bear the
names of lukemelas' PyTorch port without their leading underscores, in which the public weights come.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.models.conv import Form
from lesion.models.layers import BatchNorm, Conv, run_stages
from lesion.models.layers import Stage as Step


class Stage(NamedTuple):
    """Inverted-residual blocks of one output size."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    features: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Block(nn.Module):
    """An inverted residual: widen 1x1, depthwise kxk, narrow 1x1, plus the input where the shapes agree."""

    stage: Stage
    stride: int
    norm: Callable
    form: Form = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H / stride, W / stride, stage.features]."""
        wide, k = x.shape[-1] * self.stage.expand, self.stage.kernel
        y = x
        if self.stage.expand > 1:
            y = Conv(wide, (1, 1), form=self.form, name="expand_conv")(y)
            y = nn.relu6(self.norm(name="bn0")(y))
        y = Conv(wide, (k, k), self.stride, groups=wide, form=self.form, name="depthwise_conv")(y)
        y = nn.relu6(self.norm(name="bn1")(y))
        y = Conv(self.stage.features, (1, 1), form=self.form, name="project_conv")(y)
        y = self.norm(name="bn2")(y)
        return x + y if self.stride == 1 and x.shape == y.shape else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0.

    Attributes:
        num_classes: width of the classifier; None returns the features before it.
        axis_name: of the devices over which BatchNorm takes its statistics, None on one.
        form: how convolutions are computed, see `conv.conv2d`.
    """

    num_classes: int | None = 1000
    axis_name: str | None = None
    form: Form = "auto"

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Step]:
        """The stem, the blocks, the last convolution, the global mean; mask [B] of what BatchNorm counts."""

        def norm(name: str) -> Callable:
            one = BatchNorm(not train, momentum=0.99, epsilon=1e-3, axis_name=self.axis_name, name=name)
            return functools.partial(one, mask=mask)

        def block(name: str, stage: Stage, stride: int) -> Step:
            return name, lambda x: Block(stage, stride, norm, self.form, name=name)(x)

        blocks = [(stage, stage.stride if i == 0 else 1) for stage in STAGES for i in range(stage.repeats)]
        return [
            ("conv_stem", lambda x: Conv(32, (3, 3), 2, form=self.form, name="conv_stem")(x)),
            ("bn0", lambda x: nn.relu6(norm(name="bn0")(x))),
            *(block(f"blocks_{i}", *one) for i, one in enumerate(blocks)),
            ("conv_head", lambda x: Conv(1280, (1, 1), form=self.form, name="conv_head")(x)),
            ("bn1", lambda x: nn.relu6(norm(name="bn1")(x))),
            ("avgpool", lambda x: jnp.mean(x, axis=(1, 2))),
        ]

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
        """Images [B, H, W, 3], preprocessed, to logits [B, num_classes] or features [B, 1280]; see `run_stages`."""
        x, done = run_stages(self.stages(train, mask), images, start, stop)
        if not done or stop is not None or self.num_classes is None:
            return x
        x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="fc")(x)
