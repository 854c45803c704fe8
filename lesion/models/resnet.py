"""ResNet-50, v1.5 (torchvision) and v1 (Keras).

Sources: He et al., CVPR 2016; torchvision's `resnet50`, which strides in the 3x3 convolution (v1.5) and whose names are
used; keras.applications' `ResNet50`, which strides in the first 1x1 as the paper does (v1), has biases in every
convolution and 1.001e-5 in its BatchNorm.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.models.conv import symmetric_padding
from lesion.models.layers import BatchNorm, Conv, max_pool
from lesion.models.stages import Backbone, Stage

# (number of blocks, channels inside a block, stride of the first block)
LAYERS = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
EXPANSION = 4
BRANCH_SCALE = sum(repeats for repeats, _, _ in LAYERS) ** -0.5  # see `BatchNorm`


class Bottleneck(nn.Module):
    """A block: narrowing 1x1, 3x3, widening 1x1 convolution, plus the input.

    Attributes:
        features: channels inside the block; the output has four times as many.
        strides: strides of the first and second convolution.
        downsample: whether a convolution brings the input to the output's shape.
        conv: function that builds a convolution.
        norm: function that builds a BatchNorm of a name.
    """

    features: int
    strides: tuple[int, int]
    downsample: bool
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, H / stride, W / stride, 4 features] for [B, H, W, C]."""
        wide = EXPANSION * self.features
        y = nn.relu(self.norm(name="bn1")(self.conv(self.features, (1, 1), self.strides[0], name="conv1")(x)))
        y = self.conv(self.features, (3, 3), self.strides[1], symmetric_padding(1), name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.norm(name="bn3", initial_scale=BRANCH_SCALE)(self.conv(wide, (1, 1), name="conv3")(y))
        if self.downsample:
            stride = max(self.strides)
            x = self.norm(name="downsample_1")(self.conv(wide, (1, 1), stride, name="downsample_0")(x))
        return nn.relu(x + y)


class ResNet50(Backbone):
    """ResNet-50: features [B, 2048].

    Attributes:
        v1: whether a block strides in its first 1x1 convolution instead of its 3x3.
        conv_bias: whether convolutions have biases.
        epsilon: constant that BatchNorm adds to the variance.
        momentum: momentum of BatchNorm's running statistics.
    """

    v1: bool = False
    conv_bias: bool = False
    epsilon: float = 1e-5
    momentum: float = 0.9

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """Returns the stages: torchvision's modules up to the global mean, each block a stage of its own."""
        conv = functools.partial(Conv, use_bias=self.conv_bias, impl=self.impl)

        def norm(name: str, initial_scale: float = 1.0) -> Callable:
            module = BatchNorm(not train, self.momentum, self.epsilon, True, initial_scale, self.axis_name, name=name)
            return functools.partial(module, mask=mask)

        def block(name: str, features: int, stride: int, downsample: bool) -> Stage:
            strides = (stride, 1) if self.v1 else (1, stride)
            return name, lambda x: Bottleneck(features, strides, downsample, conv, norm, name=name)(x)

        stages: list[Stage] = [
            ("conv1", lambda x: conv(64, (7, 7), 2, symmetric_padding(3), name="conv1")(x)),
            ("bn1", lambda x: norm(name="bn1")(x)),
            ("relu", nn.relu),
            ("maxpool", lambda x: max_pool(x, 3, 2, symmetric_padding(1), self.impl)),
        ]
        for layer, (repeats, features, stride) in enumerate(LAYERS, 1):
            for i in range(repeats):
                stages.append(block(f"layer{layer}_{i}", features, stride if i == 0 else 1, i == 0))
        return [*stages, ("avgpool", lambda x: jnp.mean(x, axis=(1, 2), dtype=jnp.float32))]
