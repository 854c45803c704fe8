"""One pure training step and one pure evaluation step; `jit` and `pmap` are applied elsewhere."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lesion.train.state import TrainState


class Batch(NamedTuple):
    """This device's part of the examples of a step.

    Attributes:
        inputs: [B, ...].
        label: int32 [B]; read only where `mask` is true.
        mask: bool [B]: false for padding.
    """

    inputs: jax.Array
    label: jax.Array
    mask: jax.Array


class Objective(NamedTuple):
    """What is minimised beside plain binary cross-entropy.

    Attributes:
        class_weight: float32 [2], factors on the loss of encephalitis and glioma, whatever the loss.
        label_smoothing: labels 0 and 1 become s / 2 and 1 − s / 2; not of a network with a loss of its own.
    """

    class_weight: jax.Array | tuple[float, float] = (1.0, 1.0)
    label_smoothing: float = 0.0


PLAIN = Objective()


def balanced(label: jax.Array, mask: jax.Array) -> jax.Array:
    """Weights [2] under which both classes of the masked labels [N] weigh the same and the mean weight is 1."""
    assert label.shape == mask.shape, (label.shape, mask.shape)
    count = jnp.stack([jnp.sum(mask & (label == c), dtype=jnp.float32) for c in (0, 1)])
    return jnp.sum(count) / (2.0 * jnp.maximum(count, 1.0))


def masked_bce(
    logit: jax.Array, label: jax.Array, mask: jax.Array, objective: Objective = PLAIN
) -> tuple[jax.Array, jax.Array]:
    """Sum of the binary cross-entropy in nats over the masked, and their count: logit [B] float32, both [] float32."""
    target = jnp.where(mask, label, 0).astype(logit.dtype)
    smooth = target * (1.0 - objective.label_smoothing) + objective.label_smoothing / 2.0
    return masked_sum(optax.sigmoid_binary_cross_entropy(logit, smooth), label, mask, objective)


def masked_sum(
    loss: jax.Array, label: jax.Array, mask: jax.Array, objective: Objective = PLAIN
) -> tuple[jax.Array, jax.Array]:
    """Sum of the losses [B] of the masked, each times its class's weight, and their count: both [] float32."""
    assert loss.shape == label.shape == mask.shape, (loss.shape, label.shape, mask.shape)
    weight = jnp.asarray(objective.class_weight, loss.dtype)[jnp.where(mask, label, 0)]
    return jnp.sum(jnp.where(mask, weight * loss, 0.0)), jnp.sum(mask, dtype=loss.dtype)


def train_step(
    key: jax.Array,
    state: TrainState,
    batch: Batch,
    *,
    apply_fn: Callable[..., tuple[jax.Array, Any]],
    tx: optax.GradientTransformation,
    own_loss: Callable[..., tuple[jax.Array, jax.Array, Any]] | None = None,
    objective: Objective = PLAIN,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """One step of gradient descent on the mean loss over the global batch.

    Args:
        key: for dropout.
        state: before the step.
        batch: this device's part.
        apply_fn: (params, batch_stats, inputs, mask, key) -> (logit [B] float32, batch_stats).
        tx: what `state.opt_state` belongs to.
        own_loss: see `Network.loss`; it takes the place of `apply_fn` and cross-entropy.
        objective: what is minimised.
        axis_name: of the devices the batch is spread over, None on one.

    Returns:
        The state after the step, and {"loss": nats [], "logit": [B]}; the loss is the mean over the global batch.
    """

    def loss_fn(params):
        if own_loss is None:
            logit, batch_stats = apply_fn(params, state.batch_stats, batch.inputs, batch.mask, key)
            total, count = masked_bce(logit, batch.label, batch.mask, objective)
        else:
            known = jnp.where(batch.mask, batch.label, 0)
            each, logit, batch_stats = own_loss(params, state.batch_stats, batch.inputs, known, batch.mask, key)
            total, count = masked_sum(each, known, batch.mask, objective)
        # Divided by the global count, so that the sum of the devices' gradients is the global batch's.
        count = count if axis_name is None else jax.lax.psum(count, axis_name)
        return total / jnp.maximum(count, 1.0), (logit, batch_stats)

    (loss, (logit, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    if axis_name is not None:
        loss, grads = jax.lax.psum((loss, grads), axis_name)
    # 2026-11: optax's bias correction raises a float to an int32 power, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, batch_stats, opt_state), {"loss": loss, "logit": logit}


def eval_step(state: TrainState, inputs: jax.Array, *, apply_fn: Callable[..., jax.Array]) -> jax.Array:
    """Probabilities of both classes, float32 [B, 2].

    Args:
        state: its parameters and statistics are used.
        inputs: [B, ...]; rows of padding give numbers that nobody reads.
        apply_fn: (params, batch_stats, inputs) -> logit [B] float32.
    """
    return probabilities(apply_fn(state.params, state.batch_stats, inputs))


def probabilities(logit: jax.Array) -> jax.Array:
    """Logits of glioma [...] to probabilities of both classes [..., 2]."""
    return jax.nn.sigmoid(jnp.stack([-logit, logit], axis=-1))
