"""Grad-CAM, pure: which places of a map speak for glioma, and which for encephalitis.

Selvaraju et al., Grad-CAM, ICCV 2017 (arXiv:1610.02391), equations 1 and 2. With a linear head on mean features the map
is CAM's (Zhou et al., CVPR 2016) but for the ReLU and a factor.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.train.network import pool_features

GLIOMA, ENCEPHALITIS = 1.0, -1.0  # signs: what is explained is sign · logit


def weigh(activation: jax.Array, gradient: jax.Array) -> jax.Array:
    """A map of the channels, each weighted by the mean of its gradient (eq. 1), what speaks against left out (eq. 2).

    Args:
        activation: [B, h, w, C].
        gradient: of the score by it, the same shape.

    Returns:
        float32 [B, h, w], at least 0.
    """
    assert activation.ndim == 4 and activation.shape == gradient.shape, (activation.shape, gradient.shape)
    weight = gradient.astype(jnp.float32).mean((1, 2))
    return nn.relu(jnp.einsum("bhwc,bc->bhw", activation.astype(jnp.float32), weight))


def grad_cam(
    logit_of: Callable[[jax.Array], jax.Array], activation: jax.Array, sign: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The map of what speaks for one class.

    Args:
        logit_of: [B, h, w, C] to the logit of glioma [B], each example by itself.
        activation: [B, h, w, C].
        sign: float32 [B], `GLIOMA` or `ENCEPHALITIS`: the class whose evidence is asked for. None: the class that each
            example is called.

    Returns:
        Map float32 [B, h, w], at least 0, and logit float32 [B].
    """
    assert sign is None or sign.shape == activation.shape[:1], (sign, activation.shape)
    logit, pull = jax.vjp(logit_of, activation)
    sign = called(logit) if sign is None else sign
    (gradient,) = pull(sign.astype(logit.dtype))  # examples do not mix: one pull gives each its own gradient
    return weigh(activation, gradient), logit


def called(logit: jax.Array) -> jax.Array:
    """The sign of the class that each is called, glioma where the probability is above one half: [B] to [B]."""
    return jnp.where(logit > 0, GLIOMA, ENCEPHALITIS)


class Explainer(NamedTuple):
    """How a network is looked into, as functions.

    Attributes:
        activate: (variables, inputs [B, H, W, 3], preprocessed) -> activation [B, h, w, C].
        explain: (variables, head_params, activation, sign [B] or None) -> (map [B, h, w], logit [B]), see `grad_cam`.
    """

    activate: Callable[..., jax.Array]
    explain: Callable[..., tuple[jax.Array, jax.Array]]


def explainer(model: nn.Module, head: nn.Module, *, stage: str, last_map: str, pooling: str) -> Explainer:
    """Builds an `Explainer` of a backbone with its head.

    Args:
        model: without classifier; `apply(variables, x, start=, stop=)` as in `lesion.models`.
        head: features [B, D] to logit [B].
        stage: whose output is looked at.
        last_map: the stage whose output is pooled.
        pooling: see `network.pool_features`.
    """

    def activate(variables: Any, inputs: jax.Array) -> jax.Array:
        return jnp.asarray(model.apply(variables, inputs, stop=stage))

    def explain(variables: Any, head_params: Any, activation: jax.Array, sign: jax.Array | None = None):
        def logit_of(x: jax.Array) -> jax.Array:
            x = jnp.asarray(model.apply(variables, x, start=stage, stop=last_map))
            return jnp.asarray(head.apply({"params": head_params}, pool_features(x, pooling).astype(jnp.float32)))

        return grad_cam(logit_of, activation, sign)

    return Explainer(activate, explain)
