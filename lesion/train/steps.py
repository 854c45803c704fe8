"""One pure training step; `jit` and `pmap` are applied elsewhere."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lesion.train.state import TrainState


class Batch(NamedTuple):
    """Examples with their weights.

    Attributes:
        inputs: [B, ...].
        label: int32 [B]; read only where `mask` is true.
        mask: bool [B]: false for padding.
    """

    inputs: jax.Array
    label: jax.Array
    mask: jax.Array


def masked_bce(logit: jax.Array, label: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum of the binary cross-entropy in nats over the masked, and their count: logit [B] float32, both [] float32."""
    assert logit.shape == label.shape == mask.shape, (logit.shape, label.shape, mask.shape)
    target = jnp.where(mask, label, 0).astype(logit.dtype)
    loss = optax.sigmoid_binary_cross_entropy(logit, target)
    return jnp.sum(jnp.where(mask, loss, 0.0)), jnp.sum(mask, dtype=logit.dtype)


def train_step(
    key: jax.Array,
    state: TrainState,
    batch: Batch,
    *,
    apply_fn: Callable[..., jax.Array],
    tx: optax.GradientTransformation,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """One step of gradient descent on the mean loss over the global batch.

    Args:
        key: for dropout.
        state: before the step.
        batch: this device's part.
        apply_fn: (params, inputs, key) -> logit [B].
        tx: what `state.opt_state` belongs to.
        axis_name: of the devices the batch is spread over, None on one.

    Returns:
        The state after the step, and {"loss": nats []}, the mean over the global batch.
    """

    def loss_fn(params):
        total, count = masked_bce(apply_fn(params, batch.inputs, key), batch.label, batch.mask)
        # Divided by the global count, so that the sum of the devices' gradients is the global batch's.
        count = count if axis_name is None else jax.lax.psum(count, axis_name)
        return total / jnp.maximum(count, 1.0)

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    if axis_name is not None:
        loss, grads = jax.lax.psum((loss, grads), axis_name)
    # 2026-11: optax's bias correction raises a float to an int32 power, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt_state), {"loss": loss}
