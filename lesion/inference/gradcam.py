"""Grad-CAM as pure functions: which places of a map are evidence for glioma, and which for encephalitis.

Selvaraju et al., Grad-CAM, ICCV 2017 (arXiv:1610.02391), equations 1 and 2. With a linear head on mean features the map
is CAM's (Zhou et al., CVPR 2016) up to the ReLU and a factor.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.train.network import Network

GLIOMA, ENCEPHALITIS = 1.0, -1.0  # signs: the score that is explained is sign · logit


def weigh_channels(activation: jax.Array, gradient: jax.Array) -> jax.Array:
    """Sums the channels, each weighted by the mean of its gradient (eq. 1), and drops negative evidence (eq. 2).

    Args:
        activation: [B, h, w, C], output of a stage.
        gradient: gradient of the score by `activation`, the same shape.

    Returns:
        Map float32 [B, h, w], at least 0.
    """
    assert activation.ndim == 4 and activation.shape == gradient.shape, (activation.shape, gradient.shape)
    weight = gradient.astype(jnp.float32).mean((1, 2))
    return nn.relu(jnp.einsum("bhwc,bc->bhw", activation.astype(jnp.float32), weight))


def grad_cam(
    logit_of: Callable[[jax.Array], jax.Array], activation: jax.Array, sign: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Computes the map of evidence for one class.

    Args:
        logit_of: function of an activation [B, h, w, C] to the logit of glioma [B], each example by itself.
        activation: [B, h, w, C], output of a stage.
        sign: float32 [B], `GLIOMA` or `ENCEPHALITIS`: the class whose evidence is mapped. None: the predicted class
            of each example.

    Returns:
        Map float32 [B, h, w], at least 0, and logit float32 [B].
    """
    assert sign is None or sign.shape == activation.shape[:1], (sign, activation.shape)
    logit, pull = jax.vjp(logit_of, activation)
    sign = called_sign(logit) if sign is None else sign
    (gradient,) = pull(sign.astype(logit.dtype))  # examples do not mix: one pull gives each its own gradient
    return weigh_channels(activation, gradient), logit


def called_sign(logit: jax.Array) -> jax.Array:
    """Returns the sign [B] of the predicted class: glioma where the probability is above one half, a logit above 0."""
    return jnp.where(logit > 0, GLIOMA, ENCEPHALITIS)


def explain(
    network: Network,
    params: Any,
    batch_stats: Any,
    activation: jax.Array,
    stage: str,
    sign: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Computes the map of a network from the output of one of its stages.

    Args:
        network: a backbone and its head.
        params: see `Network`.
        batch_stats: see `Network`.
        activation: [B, h, w, C], the output of `stage`.
        stage: stage whose output is explained.
        sign: see `grad_cam`.

    Returns:
        Map [B, h, w] and logit [B], see `grad_cam`.
    """
    above = dataclasses.replace(network, start=stage)
    return grad_cam(lambda x: above.predict(params, batch_stats, x), activation, sign)
