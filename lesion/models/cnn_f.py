"""CNN-F, the fast network of Chatfield, Simonyan, Vedaldi & Zisserman, BMVC 2014 (arXiv:1405.3531), Table 1."""

from collections.abc import Callable

import jax
import numpy as np
from flax import linen as nn

from lesion.models.conv import NO_PADDING, Form
from lesion.models.layers import Conv, Stage, even_padding, local_response_norm, max_pool, run_stages

HIDDEN = 4096
CELLS = 6  # height and width of the last pool, that the dense layers are made for
MEAN_RGB = (123.68, 116.779, 103.939)  # ImageNet's; what a file's own mean differs by, its conversion puts into conv1


def minus_mean(x: jax.Array) -> jax.Array:
    """ImageNet's mean 0, in grey values, red first."""
    return x - np.array(MEAN_RGB, np.float32)


class CNNF(nn.Module):
    """Five convolutions and three dense layers, 60,834,536 parameters at 1000 classes.

    The names are MatConvNet's. Its response normalisation is Krizhevsky's: k = 2 and, by its own formula, 1e-4 times
    the sum over five channels.

    Attributes:
        num_classes: width of the classifier; None returns the features, see `dense_stages`.
        dense_stages: whether fc6 and fc7 are stages, so that the features are fc7's [B, 4096], after its ReLU, instead
            of the last pool's [B, 9216].
        axis_name: of the devices; as there is no BatchNorm, it changes nothing.
        form: how convolutions are computed, see `conv.conv2d`.
    """

    num_classes: int | None = 1000
    dense_stages: bool = False
    axis_name: str | None = None
    form: Form = "auto"

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """MatConvNet's layers up to the last pool, or to fc7's ReLU; no BatchNorm, so `mask` changes nothing."""

        def conv(i: int, features: int, k: int, stride: int = 1, padding: int = 0) -> list[Stage]:
            def run(x: jax.Array) -> jax.Array:
                pad = even_padding(padding) if padding else NO_PADDING
                return Conv(features, (k, k), stride, pad, use_bias=True, form=self.form, name=f"conv{i}")(x)

            return [(f"conv{i}", run), (f"relu{i}", nn.relu)]

        def norm(i: int) -> Stage:
            return f"norm{i}", lambda x: local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)

        def pool(i: int) -> Stage:
            return f"pool{i}", lambda x: max_pool(x, 3, 2, ((0, 1), (0, 1)), self.form)

        stages = [*conv(1, 64, 11, 4), norm(1), pool(1), *conv(2, 256, 5, 1, 2), norm(2), pool(2)]
        stages += [stage for i in (3, 4, 5) for stage in conv(i, 256, 3, 1, 1)] + [pool(5)]
        return stages + (_dense_stages() if self.dense_stages else [])

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
        """Images [B, 224, 224, 3], preprocessed, to logits [B, num_classes] or features [B, D]; see `run_stages`."""
        x, done = run_stages(self.stages(train, mask), images, start, stop)
        if not done or stop is not None:
            return x
        if self.num_classes is None:
            return x.reshape(len(x), -1)
        if not self.dense_stages:
            for name, stage in _dense_stages():
                x = stage(x)
                if name.startswith("relu"):
                    x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="fc8")(x)


def _dense_stages() -> list[Stage]:
    """fc6 and fc7; modules are created when they run, in the `compact` method that calls them."""

    def fc6(x: jax.Array) -> jax.Array:
        assert x.shape[1:3] == (CELLS, CELLS), f"{x.shape}: the dense layers want 6x6 cells, that is pictures of 224"
        return nn.Dense(HIDDEN, name="fc6")(x.reshape(len(x), -1))

    fc7: Callable[[jax.Array], jax.Array] = lambda x: nn.Dense(HIDDEN, name="fc7")(x)  # noqa: E731
    return [("fc6", fc6), ("relu6", nn.relu), ("fc7", fc7), ("relu7", nn.relu)]
