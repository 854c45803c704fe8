"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation and with ReLU6.

Source: Tan & Le, ICML 2019, and the EfficientNet-Lite release in TensorFlow's TPU repository. Submodules bear the
names of lukemelas' PyTorch port without their leading underscores, in which the public weights come.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.models.layers import Conv, Form


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


def _norm(train: bool, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.99, epsilon=1e-3, name=name)


class Block(nn.Module):
    """An inverted residual: widen 1x1, depthwise kxk, narrow 1x1, plus the input where the shapes agree."""

    stage: Stage
    stride: int
    form: Form = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] to [B, H / stride, W / stride, stage.features]."""
        wide, k = x.shape[-1] * self.stage.expand, self.stage.kernel
        y = x
        if self.stage.expand > 1:
            y = Conv(wide, (1, 1), form=self.form, name="expand_conv")(y)
            y = nn.relu6(_norm(train, "bn0")(y))
        y = Conv(wide, (k, k), self.stride, depthwise=True, form=self.form, name="depthwise_conv")(y)
        y = nn.relu6(_norm(train, "bn1")(y))
        y = Conv(self.stage.features, (1, 1), form=self.form, name="project_conv")(y)
        y = _norm(train, "bn2")(y)
        return x + y if self.stride == 1 and x.shape == y.shape else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0.

    Attributes:
        num_classes: width of the classifier; None returns the features before it.
        form: how convolutions are computed, see `layers.conv2d`.
    """

    num_classes: int | None = 1000
    form: Form = "auto"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Images [B, H, W, 3], preprocessed, to logits [B, num_classes] or features [B, 1280]."""
        assert images.ndim == 4 and images.shape[-1] == 3, images.shape
        x = Conv(32, (3, 3), 2, form=self.form, name="conv_stem")(images)
        x = nn.relu6(_norm(train, "bn0")(x))
        index = 0
        for stage in STAGES:
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                x = Block(stage, stride, self.form, name=f"blocks_{index}")(x, train)
                index += 1
        x = Conv(1280, (1, 1), form=self.form, name="conv_head")(x)
        x = nn.relu6(_norm(train, "bn1")(x))
        x = jnp.mean(x, axis=(1, 2))
        if self.num_classes is None:
            return x
        x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="fc")(x)
