"""Inception-V3, torchvision's and Keras', from one table.

Sources: Szegedy et al., CVPR 2016; torchvision's `inception_v3`, whose names are used; keras.applications'
`InceptionV3`: the same graph, without BatchNorm's scale and with average pools that do not count the padding.
torchvision's auxiliary classifier, which only training from scratch needs, is left out.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.models.conv import NO_PADDING, Padding, symmetric_padding
from lesion.models.layers import BatchNorm, Conv, avg_pool, max_pool
from lesion.models.stages import Backbone, Stage


class Unit(NamedTuple):
    """The table's entry for a convolution with BatchNorm and ReLU; `name` is that of its module."""

    name: str
    features: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: Padding = NO_PADDING


def _square(name: str, features: int, k: int) -> Unit:
    return Unit(name, features, (k, k), 1, symmetric_padding(k // 2))


def _line(name: str, features: int, height: int, width: int) -> Unit:
    return Unit(name, features, (height, width), 1, symmetric_padding(height // 2, width // 2))


def _strided(name: str, features: int) -> Unit:
    return Unit(name, features, (3, 3), 2)


# A branch is a chain of units; a tuple of units is a fork with concatenated outputs; "avg" and "max" are pools.
def _mixed_a(pool: int) -> tuple:
    double = (Unit("branch3x3dbl_1", 64), _square("branch3x3dbl_2", 96, 3), _square("branch3x3dbl_3", 96, 3))
    five = (Unit("branch5x5_1", 48), _square("branch5x5_2", 64, 5))
    return (Unit("branch1x1", 64),), five, double, ("avg", Unit("branch_pool", pool))


def _mixed_b() -> tuple:
    double = (Unit("branch3x3dbl_1", 64), _square("branch3x3dbl_2", 96, 3), _strided("branch3x3dbl_3", 96))
    return (_strided("branch3x3", 384),), double, ("max",)


def _mixed_c(c: int) -> tuple:
    seven = (Unit("branch7x7_1", c), _line("branch7x7_2", c, 1, 7), _line("branch7x7_3", 192, 7, 1))
    double = (
        Unit("branch7x7dbl_1", c),
        _line("branch7x7dbl_2", c, 7, 1),
        _line("branch7x7dbl_3", c, 1, 7),
        _line("branch7x7dbl_4", c, 7, 1),
        _line("branch7x7dbl_5", 192, 1, 7),
    )
    return (Unit("branch1x1", 192),), seven, double, ("avg", Unit("branch_pool", 192))


def _mixed_d() -> tuple:
    three = (Unit("branch3x3_1", 192), _strided("branch3x3_2", 320))
    lines = (_line("branch7x7x3_2", 192, 1, 7), _line("branch7x7x3_3", 192, 7, 1))
    return three, (Unit("branch7x7x3_1", 192), *lines, _strided("branch7x7x3_4", 192)), ("max",)


def _mixed_e() -> tuple:
    def fork(name: str, number: int) -> tuple[Unit, Unit]:
        return _line(f"{name}_{number}a", 384, 1, 3), _line(f"{name}_{number}b", 384, 3, 1)

    three = (Unit("branch3x3_1", 384), fork("branch3x3", 2))
    double = (Unit("branch3x3dbl_1", 448), _square("branch3x3dbl_2", 384, 3), fork("branch3x3dbl", 3))
    return (Unit("branch1x1", 320),), three, double, ("avg", Unit("branch_pool", 192))


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
    _strided("Conv2d_1a_3x3", 32),
    Unit("Conv2d_2a_3x3", 32, (3, 3)),
    _square("Conv2d_2b_3x3", 64, 3),
    "maxpool1",
    Unit("Conv2d_3b_1x1", 80),
    Unit("Conv2d_4a_3x3", 192, (3, 3)),
    "maxpool2",
)


def unit_names() -> list[str]:
    """Returns the module paths of all units, in the order in which both libraries create them."""
    names = [unit.name for unit in STEM if isinstance(unit, Unit)]
    for mixed, branches in MIXED.items():
        for part in (part for branch in branches for part in branch):
            units = (part,) if isinstance(part, Unit) else part if isinstance(part, tuple) else ()
            names += [f"{mixed}/{unit.name}" for unit in units]
    return names


def unit_names_by_depth() -> list[str]:
    """Returns the module paths of all units in the order of Keras' `model.layers`, by distance from a block's end."""
    names = [unit.name for unit in STEM if isinstance(unit, Unit)]
    for mixed, branches in MIXED.items():
        depths: list[tuple[int, str]] = []
        for branch in branches:
            ends_in_fork = isinstance(branch[-1], tuple) and not isinstance(branch[-1], Unit)  # joined by a layer more
            for i, part in enumerate(branch):
                units = (part,) if isinstance(part, Unit) else part if isinstance(part, tuple) else ()
                depths += [(i - len(branch) - ends_in_fork, f"{mixed}/{unit.name}") for unit in units]
        names += [name for _, name in sorted(depths, key=lambda pair: pair[0])]
    return names


class BasicConv(nn.Module):
    """The convolution, BatchNorm and ReLU of a `Unit`; `conv` and `norm` build the first two."""

    unit: Unit
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, H', W', unit.features] for [B, H, W, C]."""
        _, features, kernel_size, stride, padding = self.unit
        return nn.relu(self.norm(name="bn")(self.conv(features, kernel_size, stride, padding, name="conv")(x)))


class Mixed(nn.Module):
    """Parallel branches whose outputs are concatenated in the table's order; `build` makes the module of a `Unit`."""

    branches: tuple
    build: Callable
    pools: dict[str, Callable]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, H', W', sum of the branches' features] for [B, H, W, C]."""
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


class InceptionV3(Backbone):
    """Inception-V3: features [B, 2048].

    Attributes:
        bn_scale: whether BatchNorm has a scale.
        count_padding: whether the pooling branches count the padding in their means.
        momentum: momentum of BatchNorm's running statistics.
    """

    bn_scale: bool = True
    count_padding: bool = True
    dropout: float = 0.5
    momentum: float = 0.9

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """Returns the stages, which are torchvision's modules up to the global mean."""
        conv = functools.partial(Conv, impl=self.impl)
        pools = {
            "avg": lambda x: avg_pool(x, 3, 1, symmetric_padding(1), self.count_padding, self.impl),
            "max": lambda x: max_pool(x, 3, 2, impl=self.impl),
        }

        def norm(name: str) -> Callable:
            module = BatchNorm(not train, self.momentum, 1e-3, self.bn_scale, axis_name=self.axis_name, name=name)
            return functools.partial(module, mask=mask)

        def build(unit: Unit) -> nn.Module:
            return BasicConv(unit, conv, norm, name=unit.name)

        def stem(part: Unit | str) -> Stage:
            return (part, pools["max"]) if isinstance(part, str) else (part.name, lambda x: build(part)(x))

        def mixed(name: str, branches: tuple) -> Stage:
            return name, lambda x: Mixed(branches, build, pools, name=name)(x)

        stem_stages, mixed_stages = map(stem, STEM), [mixed(name, branches) for name, branches in MIXED.items()]
        return [*stem_stages, *mixed_stages, ("avgpool", lambda x: jnp.mean(x, axis=(1, 2), dtype=jnp.float32))]
