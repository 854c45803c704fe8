"""Every primitive of the networks in bfloat16 beside float32: its output and each of its gradients, at real sizes."""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lesion import trees
from lesion.models import capsnet, conv, heads, layers
from lesion.train.network import pool_features

LIMIT = 0.01  # relative error that bfloat16 may have
BATCH_SIZE = 32


class Primitive(NamedTuple):
    """A part of a network.

    Attributes:
        apply: module, or function of an array.
        shape: shape of the input, without the batch.
    """

    apply: nn.Module | Callable[[jax.Array], jax.Array]
    shape: tuple[int, ...]


def _conv(features: int, kernel_size: int | tuple[int, int], stride: int = 1, **options: Any) -> layers.Conv:
    size = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
    return layers.Conv(features, size, stride, **options)


def _attention(x: jax.Array) -> heads.Bags:
    """Returns bags whose second half of patients lacks half of its slices."""
    mask = jnp.ones(x.shape[:3], bool).at[len(x) // 2 :, :, x.shape[2] // 2 :].set(False)
    return heads.Bags(x, mask)


class _OfBags(nn.Module):
    """A head of bags, as a module of an array [B, M, S, D]."""

    head: nn.Module

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(_attention(x))


class _MaskedNorm(nn.Module):
    """A BatchNorm in training that leaves the last quarter of the examples out."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return layers.BatchNorm(False, 0.9, 1e-3, name="norm")(x, jnp.arange(len(x)) < len(x) * 3 // 4)


class _CapsuleLoss(nn.Module):
    """CapsNet's own loss, as a module of features."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        head, label = capsnet.CapsuleHead(name="head"), jnp.arange(len(x)) % 2
        head(x)
        return head.loss(x, jnp.full((len(x), 64, 64, 1), 0.5), label)[0]


PRIMITIVES: dict[str, Primitive] = {
    "dense 7x7, stride 2": Primitive(_conv(64, 7, 2), (224, 224, 3)),
    "dense 3x3": Primitive(_conv(64, 3), (56, 56, 64)),
    "dense 3x3, stride 2": Primitive(_conv(128, 3, 2), (56, 56, 128)),
    "dense 1x7": Primitive(_conv(192, (1, 7)), (17, 17, 192)),
    "pointwise, wider": Primitive(_conv(256, 1), (56, 56, 64)),
    "pointwise, narrower": Primitive(_conv(24, 1), (56, 56, 144)),
    "pointwise, stride 2": Primitive(_conv(512, 1, 2), (56, 56, 256)),
    "depthwise 3x3": Primitive(_conv(32, 3, groups=32), (112, 112, 32)),
    "depthwise 5x5, stride 2": Primitive(_conv(144, 5, 2, groups=144), (56, 56, 144)),
    "two groups": Primitive(_conv(256, 5, groups=2), (27, 27, 96)),
    "convolution with bias": Primitive(_conv(32, 5, use_bias=True), (56, 56, 32)),
    "BatchNorm in training": Primitive(layers.BatchNorm(False, 0.9, 1e-3), (112, 112, 32)),
    "BatchNorm, masked": Primitive(_MaskedNorm(), (112, 112, 32)),
    "BatchNorm, running": Primitive(layers.BatchNorm(True, 0.9, 1e-3), (112, 112, 32)),
    "max pool": Primitive(lambda x: layers.max_pool(x, 3, 2, conv.symmetric_padding(1)), (112, 112, 64)),
    "mean pool": Primitive(lambda x: layers.avg_pool(x, 3, 1, conv.symmetric_padding(1), False), (35, 35, 192)),
    "adaptive mean pool": Primitive(lambda x: layers.adaptive_avg_pool(x, 6), (13, 13, 256)),
    "mean over places": Primitive(lambda x: pool_features(x, "mean"), (7, 7, 1280)),
    "response normalisation": Primitive(lambda x: layers.local_response_norm(30 * x), (55, 55, 96)),
    "PReLU": Primitive(layers.PReLU(), (110, 110, 32)),
    "dense head": Primitive(heads.Head(), (1280,)),
    "dense head with PReLU": Primitive(heads.BaselineHead((256,), kind="prelu"), (512,)),
    "early fusion": Primitive(_OfBags(heads.EarlyFusion()), (3, 20, 1280)),
    "gated attention": Primitive(_OfBags(heads.GatedAttention()), (3, 20, 1280)),
    "capsules": Primitive(capsnet.CapsuleHead(), (147456,)),
    "capsules' own loss": Primitive(_CapsuleLoss(), (147456,)),
}


def _rounded(x: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), x)


def errors(name: str, batch_size: int = BATCH_SIZE, shrink: int = 1) -> dict[str, float]:
    """Returns the relative L2 error, in bfloat16, of a primitive's output and of each of its gradients.

    Parameters are float32, as in training; they, the input and the output's gradient have values that bfloat16 holds,
    so that the reference, float32 in full, is given the same numbers.

    Args:
        name: key of `PRIMITIVES`.
        batch_size: number of examples.
        shrink: divisor of the sides of images, for a quick check.

    Returns:
        {"output", "input" or a parameter's path: error}.
    """
    apply, shape = PRIMITIVES[name]
    if len(shape) == 3 and shape[0] == shape[1]:  # of images
        shape = (max(shape[0] // shrink, 7), max(shape[0] // shrink, 7), shape[2])
    keys = jax.random.split(jax.random.key(zlib.crc32(name.encode())), 3)
    x = _rounded(jax.random.normal(keys[0], (batch_size, *shape)) + 0.5)
    variables: dict = {}
    if isinstance(apply, nn.Module):
        variables = dict(jax.jit(apply.init)(keys[1], x[:1]))
    params = _rounded(variables.pop("params", {}))

    def output(params: Any, x: jax.Array) -> jax.Array:
        if not isinstance(apply, nn.Module):
            return apply(x)
        return apply.apply({"params": params, **variables}, x, mutable=["batch_stats"])[0]

    weight = _rounded(jax.random.normal(keys[2], jax.eval_shape(output, params, x).shape) + 0.5)

    @jax.jit
    def results(params: Any, x: jax.Array, weight: jax.Array) -> dict[str, Any]:
        def loss(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            out = output(params, x)
            return jnp.sum(out.astype(jnp.float32) * weight), out

        (_, out), (by_params, by_x) = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
        return {"output": out, "input": by_x, **by_params}

    with jax.default_matmul_precision("highest"):
        wanted = trees.flatten(jax.device_get(results(params, x, weight)))
    found = trees.flatten(jax.device_get(results(params, x.astype(jnp.bfloat16), weight)))
    return {path: _relative(found[path], wanted[path]) for path in wanted}


def _relative(got: np.ndarray, wanted: np.ndarray) -> float:
    got, wanted = (np.asarray(x, np.float64) for x in (got, wanted))
    return float(np.linalg.norm(got - wanted)) / max(float(np.linalg.norm(wanted)), 1e-30)  # 0 where both are zeros
