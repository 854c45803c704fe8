"""AlexNet and relatives: the paper's single tower, the original's two groups, torchvision's later variant, CNN-F.

Sources: Krizhevsky, Sutskever & Hinton, NIPS 2012; Caffe's `bvlc_alexnet` for the layer order, the response
normalisation's constants and the layers' names; torchvision's `alexnet` after Krizhevsky 2014 (arXiv:1404.5997);
Chatfield, Simonyan, Vedaldi & Zisserman, BMVC 2014 (arXiv:1405.3531), Table 1, for CNN-F.
"""

import jax
from flax import linen as nn

from lesion.models.conv import ConvImpl
from lesion.models.layers import adaptive_avg_pool, local_response_norm, max_pool
from lesion.models.stages import Backbone, Stage

HIDDEN = 4096  # width of the hidden dense layers
CELLS = 6  # height and width of the map that the dense layers take


def flatten_cells(x: jax.Array) -> jax.Array:
    """Flattens [B, 6, 6, C] to [B, 36 C] in the order H, W, C, which the converted kernels follow."""
    assert x.shape[1:3] == (CELLS, CELLS), f"{x.shape}: the dense layers want 6x6 cells, that is images of about 224"
    return x.reshape(len(x), -1)


def fc6_fc7(features: jax.Array, dropout: float, train: bool) -> jax.Array:
    """Applies fc6 and fc7, each followed by ReLU and dropout, to features [B, D]; returns [B, 4096]."""
    x = features
    for name in ("fc6", "fc7"):
        x = nn.relu(nn.Dense(HIDDEN, name=name)(x))
        x = nn.Dropout(dropout, deterministic=not train)(x)
    return x


class AlexNet(Backbone):
    """The single tower (`groups=1`, 62,378,344 parameters) and the original (`groups=2`, 60,965,224).

    The first convolution is not padded and pools round up, as in Caffe: images of 224 and 227 both end in 6x6.
    The two groups' kernels, placed on the block diagonal of the single tower's, give exactly the same network. It has
    no BatchNorm, so `axis_name` and `mask` have no effect.

    Attributes:
        groups: number of groups of the second, fourth and fifth convolution.
    """

    groups: int = 1
    dropout: float = 0.5

    classifier = "fc8"

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """Returns the stages, which are Caffe's layers up to the last pool."""
        conv, groups = self.conv_stage, self.groups

        def norm(i: int) -> Stage:
            return f"norm{i}", local_response_norm

        first = [conv("conv1", 96, 11, 4), relu(1), norm(1), ceil_pool(1, self.impl)]
        second = [conv("conv2", 256, 5, 1, 2, groups), relu(2), norm(2), ceil_pool(2, self.impl)]
        third = [conv("conv3", 384, 3, 1, 1), relu(3), conv("conv4", 384, 3, 1, 1, groups), relu(4)]
        return first + second + third + [conv("conv5", 256, 3, 1, 1, groups), relu(5), ceil_pool(5, self.impl)]

    def flatten(self, x: jax.Array) -> jax.Array:
        """Returns features [B, 9216]."""
        return flatten_cells(x)

    def hidden_layers(self, features: jax.Array, train: bool) -> jax.Array:
        """Returns fc7's output [B, 4096]."""
        return fc6_fc7(features, self.dropout, train)


class AlexNetTorchvision(Backbone):
    """torchvision's `alexnet`: narrower, without response normalisation or BatchNorm; 61,100,840 parameters."""

    dropout: float = 0.5

    classifier = "classifier_6"

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """Returns the stages: the numbered layers of torchvision's `features`, then `avgpool`."""

        def conv(i: int, features: int, kernel_size: int, stride: int, padding: int) -> list[Stage]:
            return [
                self.conv_stage(f"features_{i}", features, kernel_size, stride, padding),
                (f"features_{i + 1}", nn.relu),
            ]

        def pool(i: int) -> Stage:
            return f"features_{i}", lambda x: max_pool(x, 3, 2, impl=self.impl)

        first = [*conv(0, 64, 11, 4, 2), pool(2), *conv(3, 192, 5, 1, 2), pool(5), *conv(6, 384, 3, 1, 1)]
        second = [*conv(8, 256, 3, 1, 1), *conv(10, 256, 3, 1, 1), pool(12)]
        return [*first, *second, ("avgpool", lambda x: adaptive_avg_pool(x, CELLS))]

    def hidden_layers(self, features: jax.Array, train: bool) -> jax.Array:
        """Returns the second dense layer's output [B, 4096]; dropout is before each layer here, not after it."""
        x = features
        for name in ("classifier_1", "classifier_4"):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.relu(nn.Dense(HIDDEN, name=name)(x))
        return x


class CNNF(Backbone):
    """CNN-F, the fast network of Chatfield 2014: 60,834,536 parameters at 1000 classes, no BatchNorm.

    Stages have MatConvNet's names. The response normalisation is Krizhevsky's: k = 2, and alpha = 1e-4 times the sum
    over five channels, not their mean.

    Attributes:
        dense_stages: whether fc6 and fc7 are stages; the features are then fc7's output [B, 4096] after its ReLU, else
            the last pool's [B, 9216].
    """

    dense_stages: bool = False
    dropout: float = 0.5

    classifier = "fc8"

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """Returns the stages, which are MatConvNet's layers up to the last pool or, if dense, to fc7's ReLU."""
        conv = self.conv_stage

        def norm(i: int) -> Stage:
            return f"norm{i}", lambda x: local_response_norm(x, alpha=5e-4, k=2.0)

        first = [conv("conv1", 64, 11, 4), relu(1), norm(1), ceil_pool(1, self.impl)]
        second = [conv("conv2", 256, 5, 1, 2), relu(2), norm(2), ceil_pool(2, self.impl)]
        third = [stage for i in (3, 4, 5) for stage in (conv(f"conv{i}", 256, 3, 1, 1), relu(i))]
        stages = [*first, *second, *third, ceil_pool(5, self.impl)]
        if self.dense_stages:
            stages += [("fc6", lambda x: nn.Dense(HIDDEN, name="fc6")(flatten_cells(x))), relu(6)]
            stages += [("fc7", lambda x: nn.Dense(HIDDEN, name="fc7")(x)), relu(7)]
        return stages

    def flatten(self, x: jax.Array) -> jax.Array:
        """Returns features [B, 9216], or [B, 4096] with `dense_stages`."""
        return x if self.dense_stages else flatten_cells(x)

    def hidden_layers(self, features: jax.Array, train: bool) -> jax.Array:
        """Returns fc7's output [B, 4096]; with `dense_stages` these are the features themselves, without dropout."""
        return features if self.dense_stages else fc6_fc7(features, self.dropout, train)


def relu(i: int) -> Stage:
    """Returns the stage of the i-th ReLU."""
    return f"relu{i}", nn.relu


def ceil_pool(i: int, impl: ConvImpl) -> Stage:
    """Returns the stage of the i-th max pool, which rounds up: the end is padded by one row and one column."""
    return f"pool{i}", lambda x: max_pool(x, 3, 2, ((0, 1), (0, 1)), impl)
