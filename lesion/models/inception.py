"""Inception-V3, torchvision's and Keras', from one table.

Sources: Szegedy et al., CVPR 2016; torchvision's `inception_v3`, whose names are used; keras.applications'
`InceptionV3`: the same graph without auxiliary head, without BatchNorm's scale, and with means that do not count the
padding.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.models.conv import NO_PADDING, Form, Padding
from lesion.models.layers import BatchNorm, Conv, Stage, even_padding, max_pool, mean_pool, run_stages

TORCH_MEAN, TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Unit(NamedTuple):
    """Convolution, BatchNorm, ReLU."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: Padding = NO_PADDING


def _square(name: str, features: int, k: int) -> Unit:
    return Unit(name, features, (k, k), 1, even_padding(k // 2))


def _line(name: str, features: int, height: int, width: int) -> Unit:
    return Unit(name, features, (height, width), 1, even_padding(height // 2, width // 2))


def _half(name: str, features: int) -> Unit:
    return Unit(name, features, (3, 3), 2)


# A branch is a chain of units; a tuple of units is a fork whose outputs are concatenated; "mean" and "max" are pools.
def _mixed_a(pool: int) -> tuple:
    double = (Unit("branch3x3dbl_1", 64), _square("branch3x3dbl_2", 96, 3), _square("branch3x3dbl_3", 96, 3))
    five = (Unit("branch5x5_1", 48), _square("branch5x5_2", 64, 5))
    return (Unit("branch1x1", 64),), five, double, ("mean", Unit("branch_pool", pool))


def _mixed_b() -> tuple:
    double = (Unit("branch3x3dbl_1", 64), _square("branch3x3dbl_2", 96, 3), _half("branch3x3dbl_3", 96))
    return (_half("branch3x3", 384),), double, ("max",)


def _mixed_c(c: int) -> tuple:
    seven = (Unit("branch7x7_1", c), _line("branch7x7_2", c, 1, 7), _line("branch7x7_3", 192, 7, 1))
    double = (
        Unit("branch7x7dbl_1", c),
        _line("branch7x7dbl_2", c, 7, 1),
        _line("branch7x7dbl_3", c, 1, 7),
        _line("branch7x7dbl_4", c, 7, 1),
        _line("branch7x7dbl_5", 192, 1, 7),
    )
    return (Unit("branch1x1", 192),), seven, double, ("mean", Unit("branch_pool", 192))


def _mixed_d() -> tuple:
    three = (Unit("branch3x3_1", 192), _half("branch3x3_2", 320))
    lines = (_line("branch7x7x3_2", 192, 1, 7), _line("branch7x7x3_3", 192, 7, 1))
    return three, (Unit("branch7x7x3_1", 192), *lines, _half("branch7x7x3_4", 192)), ("max",)


def _mixed_e() -> tuple:
    def fork(name: str, number: int) -> tuple[Unit, Unit]:
        return _line(f"{name}_{number}a", 384, 1, 3), _line(f"{name}_{number}b", 384, 3, 1)

    three = (Unit("branch3x3_1", 384), fork("branch3x3", 2))
    double = (Unit("branch3x3dbl_1", 448), _square("branch3x3dbl_2", 384, 3), fork("branch3x3dbl", 3))
    return (Unit("branch1x1", 320),), three, double, ("mean", Unit("branch_pool", 192))


MIXED = {
    "Mixed_5b": _mixed_a(32),
    "Mixed_5c": _mixed_a(64),
    "Mixed_5d": _mixed_a(64),
    "Mixed_6a": _mixed_b(),
    "Mixed_6b": _mixed_c(128),
    "Mixed_6c": _mixed_c(160),
    "Mixed_6d": _mixed_c(160),
    "Mixed_6e": _mixed_c(192),
    "Mixed_7a": _mixed_d(),
    "Mixed_7b": _mixed_e(),
    "Mixed_7c": _mixed_e(),
}
STEM: tuple[Unit | str, ...] = (
    _half("Conv2d_1a_3x3", 32),
    Unit("Conv2d_2a_3x3", 32, (3, 3)),
    _square("Conv2d_2b_3x3", 64, 3),
    "maxpool1",
    Unit("Conv2d_3b_1x1", 80),
    Unit("Conv2d_4a_3x3", 192, (3, 3)),
    "maxpool2",
)


def unit_names() -> list[str]:
    """Module paths of all units but the auxiliary head's, in the order in which both libraries create them."""
    names = [unit.name for unit in STEM if isinstance(unit, Unit)]
    for mixed, branches in MIXED.items():
        for part in (part for branch in branches for part in branch):
            units = (part,) if isinstance(part, Unit) else part if isinstance(part, tuple) else ()
            names += [f"{mixed}/{unit.name}" for unit in units]
    return names


class BasicConv(nn.Module):
    """One `Unit`."""

    unit: Unit
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H', W', unit.features]."""
        _, features, kernel, stride, padding = self.unit
        return nn.relu(self.norm(name="bn")(self.conv(features, kernel, stride, padding, name="conv")(x)))


class Mixed(nn.Module):
    """Branches side by side, concatenated in the table's order."""

    branches: tuple
    build: Callable
    pools: dict[str, Callable]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H', W', sum of the branches' features]."""
        outputs = []
        for branch in self.branches:
            y = x
            for part in branch:
                if isinstance(part, str):
                    y = self.pools[part](y)
                elif isinstance(part, Unit):
                    y = self.build(part)(y)
                else:
                    y = jnp.concatenate([self.build(unit)(y) for unit in part], -1)
            outputs.append(y)
        return jnp.concatenate(outputs, -1)


class AuxLogits(nn.Module):
    """The auxiliary classifier on `Mixed_6e`; wants at least 17x17 cells, that is pictures of 299."""

    num_classes: int
    build: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, 17, 17, 768] to [B, num_classes]."""
        x = mean_pool(x, 5, 3, NO_PADDING, True)
        x = self.build(Unit("conv0", 128))(x)
        if min(x.shape[1:3]) < 5:
            raise ValueError("the auxiliary head needs pictures of 299: leave out aux_head for smaller ones")
        x = self.build(Unit("conv1", 768, (5, 5)))(x)
        return nn.Dense(self.num_classes, name="fc")(jnp.mean(x, axis=(1, 2)))


class InceptionV3(nn.Module):
    """Inception-V3.

    Attributes:
        num_classes: width of the classifier; None returns the features before it.
        aux_head: with the auxiliary classifier. Its logits are sown as `intermediates/aux_logits`, computed only where
            that collection is mutable: `model.apply(..., mutable=["intermediates"])`.
        transform_input: whether pictures normalised with torch's mean and deviation are brought to [-1, 1] first.
        bn_scale: whether BatchNorm has a scale.
        count_padding: whether the means of the pooling branches count the padding.
        dropout: rate before the classifier.
        momentum: of BatchNorm's running statistics.
        axis_name: of the devices over which BatchNorm takes its statistics, None on one.
        form: how convolutions are computed, see `conv.conv2d`.
    """

    num_classes: int | None = 1000
    aux_head: bool = False
    transform_input: bool = False
    bn_scale: bool = True
    count_padding: bool = True
    dropout: float = 0.5
    momentum: float = 0.9
    axis_name: str | None = None
    form: Form = "auto"

    def _builder(self, train: bool, mask: jax.Array | None) -> Callable[[Unit], nn.Module]:
        def norm(name: str) -> Callable:
            one = BatchNorm(not train, self.momentum, 1e-3, self.bn_scale, self.axis_name, name=name)
            return functools.partial(one, mask=mask)

        conv = functools.partial(Conv, form=self.form)
        return lambda unit: BasicConv(unit, conv, norm, name=unit.name)

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """torchvision's modules up to the global mean; mask [B] of what BatchNorm counts."""
        build = self._builder(train, mask)
        pools = {
            "mean": lambda x: mean_pool(x, 3, 1, even_padding(1), self.count_padding, self.form),
            "max": lambda x: max_pool(x, 3, 2, form=self.form),
        }

        def stem(part: Unit | str) -> Stage:
            return (part, pools["max"]) if isinstance(part, str) else (part.name, lambda x: build(part)(x))

        def mixed(name: str, branches: tuple) -> Stage:
            return name, lambda x: Mixed(branches, build, pools, name=name)(x)

        stages = [stem(part) for part in STEM] + [mixed(*item) for item in MIXED.items()]
        return [*stages, ("avgpool", lambda x: jnp.mean(x, axis=(1, 2)))]

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
        """Images [B, H, W, 3], preprocessed, to logits [B, num_classes] or features [B, 2048]; see `run_stages`."""
        x, stages = images, self.stages(train, mask)
        if self.transform_input and start is None:
            mean, std = (jnp.asarray(v, x.dtype) for v in (TORCH_MEAN, TORCH_STD))
            x = x * (std / 0.5) + (mean - 0.5) / 0.5
        wants_aux = self.is_initializing() or self.is_mutable_collection("intermediates")
        if self.aux_head and wants_aux and start is None and stop is None:
            x, _ = run_stages(stages, x, None, "Mixed_6e")
            aux = AuxLogits(self.num_classes or 1000, self._builder(train, mask), name="AuxLogits")(x)
            self.sow("intermediates", "aux_logits", aux)
            start = "Mixed_6e"
        x, done = run_stages(stages, x, start, stop)
        if not done or stop is not None or self.num_classes is None:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="fc")(x)
