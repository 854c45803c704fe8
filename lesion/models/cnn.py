"""The small CNNs of Table 7: two in the place of [9], one in that of [10]. What is a guess, `baselines` says."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.models.conv import NO_PADDING, Form
from lesion.models.layers import Conv, Stage, even_padding, max_pool, run_stages

PRELU_START = 0.25  # He et al., ICCV 2015


class Block(NamedTuple):
    """A convolution, a maximum and an activation.

    Attributes:
        features: output channels.
        kernel: side of the kernel.
        stride: of the convolution.
        padding: zeros on either side.
        pool: (side, stride) of the maximum's window; None leaves it out.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: int = 0
    pool: tuple[int, int] | None = None


HNCNN = (Block(8, 3, pool=(3, 1)), Block(16, 3, 2, pool=(3, 2)), Block(32, 4, 3, pool=(4, 3)))
DIAMANT = (Block(32, 5, pool=(4, 4)), Block(64, 3, pool=(4, 4)), Block(128, 3, pool=(4, 4)))
KIRYU = tuple(Block(f, 3, 1, 1, pool) for f in (32, 64, 128) for pool in (None, (2, 2)))


class PReLU(nn.Module):
    """x where it is positive, else a trained share of it, one a channel (He et al., ICCV 2015)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] to the same shape."""
        slope = self.param("slope", nn.initializers.constant(PRELU_START), x.shape[-1:], jnp.float32)
        return jnp.where(x > 0, x, x * slope.astype(x.dtype))


def activation(kind: str, name: str) -> Callable[[jax.Array], jax.Array]:
    """`relu`, `leaky` (slope .01) or `prelu`, whose module bears `name`."""
    if kind == "prelu":
        return lambda x: PReLU(name=name)(x)
    return {"relu": nn.relu, "leaky": nn.leaky_relu}[kind]


class SmallCNN(nn.Module):
    """Blocks of convolution, maximum and activation, without a classifier.

    Attributes:
        blocks: in order.
        kind: of the activation, see `activation`.
        num_classes: None; there is no classifier for another.
        axis_name: of the devices; as there is no BatchNorm, it changes nothing.
        form: how convolutions are computed, see `conv.conv2d`.
    """

    blocks: Sequence[Block]
    kind: str
    num_classes: None = None
    axis_name: str | None = None
    form: Form = "auto"

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """`conv1`, `pool1`, `relu1` (or `leaky1`, `prelu1`), ...; no BatchNorm, so `mask` changes nothing."""

        def of_block(i: int, block: Block) -> list[Stage]:
            def conv(x: jax.Array) -> jax.Array:
                padding = even_padding(block.padding) if block.padding else NO_PADDING
                shape = (block.kernel, block.kernel)
                return Conv(block.features, shape, block.stride, padding, 1, True, self.form, name=f"conv{i}")(x)

            def pool(x: jax.Array) -> jax.Array:
                assert block.pool is not None
                return max_pool(x, *block.pool, form=self.form)

            act = f"{self.kind}{i}"
            pools = [(f"pool{i}", pool)] if block.pool else []
            return [(f"conv{i}", conv), *pools, (act, activation(self.kind, act))]

        return [stage for i, block in enumerate(self.blocks, 1) for stage in of_block(i, block)]

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
        """Images [B, H, W, C] to features [B, D], the last map flattened; see `run_stages`."""
        assert self.num_classes is None, "there is no classifier"
        x, done = run_stages(self.stages(train, mask), images, start, stop)
        return x.reshape(len(x), -1) if done and stop is None else x


class Classifier(nn.Module):
    """A baseline's own dense layers: an activation and dropout after each, then one logit.

    Attributes:
        widths: of the hidden layers.
        dropout: rate after each of them; empty is none.
        kind: of the activation, see `activation`.
        names: of the hidden layers, `fc1`, `fc2`, ... if not given.
    """

    widths: Sequence[int]
    dropout: Sequence[float] = ()
    kind: str = "relu"
    names: Sequence[str] = ()

    @nn.compact
    def __call__(self, features: jax.Array, train: bool = False, embed: bool = False) -> jax.Array:
        """Features [B, D] to the logit of glioma [B], or with `embed` to what the last layer sees, [B, W].

        Dropout wants the key `dropout` when training.
        """
        assert features.ndim == 2, features.shape
        x = features
        names = self.names or [f"fc{i}" for i in range(1, len(self.widths) + 1)]
        rates = self.dropout or [0.0] * len(self.widths)
        for i, (name, width, rate) in enumerate(zip(names, self.widths, rates, strict=True), 1):
            x = activation(self.kind, f"{self.kind}_fc{i}")(nn.Dense(width, name=name)(x))
            x = nn.Dropout(rate, deterministic=not train)(x)
        return x if embed else nn.Dense(1, name="logit")(x)[:, 0]
