"""AlexNet, three times: the paper's single tower, the original's two groups, and torchvision's later variant.

Sources: Krizhevsky, Sutskever & Hinton, NIPS 2012; Caffe's `bvlc_alexnet` for the layer order, the response
normalisation's constants and the layers' names; torchvision's `alexnet` after Krizhevsky 2014 (arXiv:1404.5997).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.models.conv import NO_PADDING, Form
from lesion.models.layers import (
    Conv,
    Stage,
    adaptive_mean_pool,
    even_padding,
    local_response_norm,
    max_pool,
    run_stages,
)

HIDDEN = 4096
CELLS = 6  # height and width of the last pool, that the dense layers are made for


def _flatten(x: jax.Array) -> jax.Array:
    """[B, 6, 6, C] to [B, 36 C]; the order is H, W, C, in which the converted kernels are."""
    assert x.shape[1:3] == (CELLS, CELLS), f"{x.shape}: the dense layers want 6x6 cells, that is pictures of about 224"
    return x.reshape(x.shape[0], -1)


class AlexNet(nn.Module):
    """The single tower (`groups=1`, 62,378,344 parameters) and the original (`groups=2`, 60,965,224).

    The first convolution is not padded and pools round up, as Caffe does: pictures of 224 and 227 both end in 6x6.
    The kernels of two groups, laid on the diagonal of the single tower's, give exactly the same network.

    Attributes:
        num_classes: width of the classifier; None returns the features before all dense layers.
        groups: of the second, fourth and fifth convolution.
        axis_name: of the devices; as there is no BatchNorm, it changes nothing.
        form: how convolutions are computed, see `conv.conv2d`.
    """

    num_classes: int | None = 1000
    groups: int = 1
    axis_name: str | None = None
    form: Form = "auto"

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """Caffe's layers up to the last pool; no BatchNorm, so `mask` changes nothing."""

        def conv(name: str, features: int, k: int, groups: int = 1) -> tuple[str, Callable]:
            padding = even_padding(k // 2)
            return name, lambda x: Conv(features, (k, k), 1, padding, groups, True, self.form, name=name)(x)

        def relu(i: int) -> Stage:
            return f"relu{i}", nn.relu

        def pool(i: int) -> Stage:
            # One more row and column than there are: rounding up.
            return f"pool{i}", lambda x: max_pool(x, 3, 2, ((0, 1), (0, 1)), self.form)

        def norm(i: int) -> Stage:
            return f"norm{i}", local_response_norm

        def conv1(x: jax.Array) -> jax.Array:
            return Conv(96, (11, 11), 4, NO_PADDING, use_bias=True, form=self.form, name="conv1")(x)

        first = [("conv1", conv1), relu(1), norm(1), pool(1)]
        second = [conv("conv2", 256, 5, self.groups), relu(2), norm(2), pool(2)]
        third = [conv("conv3", 384, 3), relu(3), conv("conv4", 384, 3, self.groups), relu(4)]
        return first + second + third + [conv("conv5", 256, 3, self.groups), relu(5), pool(5)]

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
        """Images [B, H, W, 3], preprocessed, to logits [B, num_classes] or features [B, 9216]; see `run_stages`."""
        x, done = run_stages(self.stages(train, mask), images, start, stop)
        if not done or stop is not None:
            return x
        x = _flatten(x)
        if self.num_classes is None:
            return x
        for name in ("fc6", "fc7"):
            x = nn.relu(nn.Dense(HIDDEN, name=name)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="fc8")(x)


class AlexNetTorchvision(nn.Module):
    """torchvision's `alexnet`: narrower, no response normalisation, 61,100,840 parameters.

    Attributes:
        num_classes: width of the classifier; None returns the features before all dense layers.
        axis_name: of the devices; as there is no BatchNorm, it changes nothing.
        form: how convolutions are computed, see `conv.conv2d`.
    """

    num_classes: int | None = 1000
    axis_name: str | None = None
    form: Form = "auto"

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """torchvision's `features` by number, then `avgpool`; no BatchNorm, so `mask` changes nothing."""
        table = ((0, 64, 11, 4, 2), (3, 192, 5, 1, 2), (6, 384, 3, 1, 1), (8, 256, 3, 1, 1), (10, 256, 3, 1, 1))
        pools = (2, 5, 12)

        def conv(i: int, features: int, k: int, stride: int, padding: int) -> list[Stage]:
            name = f"features_{i}"

            def run(x: jax.Array) -> jax.Array:
                return Conv(features, (k, k), stride, even_padding(padding), 1, True, self.form, name=name)(x)

            return [(name, run), (f"features_{i + 1}", nn.relu)]

        stages: list[Stage] = []
        for row in table:
            stages += conv(*row)
            if len(stages) in pools:
                stages.append((f"features_{len(stages)}", lambda x: max_pool(x, 3, 2, form=self.form)))
        return [*stages, ("avgpool", lambda x: adaptive_mean_pool(x, CELLS))]

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
        """Images [B, H, W, 3], preprocessed, to logits [B, num_classes] or features [B, 9216]; see `run_stages`."""
        x, done = run_stages(self.stages(train, mask), images, start, stop)
        if not done or stop is not None:
            return x
        x = _flatten(x)
        if self.num_classes is None:
            return x
        # Dropout comes before these layers here, after them in the original.
        for name in ("classifier_1", "classifier_4"):
            x = nn.Dropout(0.5, deterministic=not train)(x)
            x = nn.relu(nn.Dense(HIDDEN, name=name)(x))
        return jnp.asarray(nn.Dense(self.num_classes, name="classifier_6")(x))
