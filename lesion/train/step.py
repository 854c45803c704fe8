"""One pure training step and one pure evaluation step; `jit` and `pmap` are applied elsewhere."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lesion.train.network import Network


class Recipe(NamedTuple):
    """How to train; the defaults are the paper's (section 2).

    Attributes:
        num_epochs: passes over the training slices and their copies.
        batch_size: examples a step, of all devices together.
        lr: Adam's learning rate in the first epoch.
        backbone_lr: of a backbone that is trained too; None is `lr`.
        lr_decay: factor on both after every epoch ("after each update": read as per epoch).
        decay_every: `epoch` or `step`.
        class_weights: whether both classes weigh the same in the loss.
        label_smoothing: labels 0 and 1 become s / 2 and 1 − s / 2.
        patience: stop after so many epochs without a lower loss on the validation slices and take the best epoch's
            weights; 0 trains all epochs.
    """

    num_epochs: int = 50
    batch_size: int = 32
    lr: float = 1e-3
    backbone_lr: float | None = None
    lr_decay: float = 0.9
    decay_every: str = "epoch"
    class_weights: bool = False
    label_smoothing: float = 0.0
    patience: int = 0


class TrainState(NamedTuple):
    """What a training step needs next: parameters, BatchNorm's running statistics and the optimizer's state.

    Attributes:
        params: nested dictionaries of float32 arrays: what is trained.
        batch_stats: nested dictionaries of float32 arrays; empty where nothing is normalised.
        opt_state: of `tx`, an `optax.inject_hyperparams` whose `learning_rate` is set from outside.
    """

    params: Mapping[str, Any]
    batch_stats: Mapping[str, Any]
    opt_state: Any


class Batch(NamedTuple):
    """This device's part of the examples of a step.

    Attributes:
        inputs: [B, ...].
        label: int32 [B]; read only where `mask` is true.
        mask: bool [B]: false for padding.
    """

    inputs: Any
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


def create_state(params: Mapping[str, Any], batch_stats: Mapping[str, Any], tx: optax.GradientTransformation):
    """Creates the state before the first step."""
    return TrainState(params, batch_stats, tx.init(params))


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Builds Adam whose `learning_rate` is set from outside, slower or faster on the part `backbone`."""
    ratio = 1.0 if recipe.backbone_lr is None else recipe.backbone_lr / recipe.lr

    def in_backbone(params: Any) -> Any:
        return {part: jax.tree.map(lambda _, part=part: part == "backbone", tree) for part, tree in params.items()}

    def make(learning_rate: Any) -> optax.GradientTransformation:
        if ratio == 1.0:
            return optax.adam(learning_rate)
        return optax.chain(optax.adam(learning_rate), optax.masked(optax.scale(ratio), in_backbone))

    return optax.inject_hyperparams(make)(learning_rate=recipe.lr)


def learning_rate(recipe: Recipe, epoch: jax.Array, step: jax.Array, num_steps: jax.Array) -> jax.Array:
    """Returns the head's learning rate, float32 [], at step `step` of `num_steps` of epoch `epoch`, all int32 []."""
    updates = epoch if recipe.decay_every == "epoch" else epoch * num_steps + step
    return jnp.float32(recipe.lr) * jnp.float32(recipe.lr_decay) ** updates.astype(jnp.float32)


def with_learning_rate(state: TrainState, learning_rate: Any) -> TrainState:
    """Returns the state with another learning rate, float32 []."""
    hyperparams = {**state.opt_state.hyperparams, "learning_rate": learning_rate}
    return state._replace(opt_state=state.opt_state._replace(hyperparams=hyperparams))


def balanced_weights(label: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns class weights [2] by which both classes of the masked labels [N] weigh the same; their mean is 1."""
    assert label.shape == mask.shape, (label.shape, mask.shape)
    count = jnp.stack([jnp.sum(mask & (label == c), dtype=jnp.float32) for c in (0, 1)])
    return jnp.sum(count) / (2.0 * jnp.maximum(count, 1.0))


def masked_bce(
    logit: jax.Array, label: jax.Array, mask: jax.Array, objective: Objective = PLAIN
) -> tuple[jax.Array, jax.Array]:
    """Returns the sum of the cross-entropy of logits [B] over the masked, in nats, and their count: float32 []."""
    target = jnp.where(mask, label, 0).astype(logit.dtype)
    smooth = target * (1.0 - objective.label_smoothing) + objective.label_smoothing / 2.0
    return masked_sum(optax.sigmoid_binary_cross_entropy(logit, smooth), label, mask, objective)


def masked_sum(
    loss: jax.Array, label: jax.Array, mask: jax.Array, objective: Objective = PLAIN
) -> tuple[jax.Array, jax.Array]:
    """Returns the sum of the masked losses [B], each times its class's weight, and their count: both float32 []."""
    assert loss.shape == label.shape == mask.shape, (loss.shape, label.shape, mask.shape)
    weight = jnp.asarray(objective.class_weight, loss.dtype)[jnp.where(mask, label, 0)]
    return jnp.sum(jnp.where(mask, weight * loss, 0.0)), jnp.sum(mask, dtype=loss.dtype)


def train_step(
    key: jax.Array,
    state: TrainState,
    batch: Batch,
    *,
    network: Network,
    tx: optax.GradientTransformation,
    objective: Objective = PLAIN,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """Makes one step of gradient descent on the mean loss over the global batch.

    Args:
        key: keys [B] of the examples, for dropout.
        state: before the step.
        batch: this device's part.
        network: what is trained.
        tx: what `state.opt_state` belongs to.
        objective: what is minimised.
        axis_name: of the devices the batch is spread over, None on one.

    Returns:
        The state after the step, and {"loss": nats [], "logit": [B]}; the loss is the mean over the global batch.
    """

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        if network.own_loss:
            label = jnp.where(batch.mask, batch.label, 0)
            loss, logit, batch_stats = network.loss(params, state.batch_stats, batch.inputs, label, batch.mask)
            total, count = masked_sum(loss, label, batch.mask, objective)
        else:
            logit, batch_stats = network.apply(params, state.batch_stats, batch.inputs, batch.mask, key)
            total, count = masked_bce(logit, batch.label, batch.mask, objective)
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


def eval_step(state: TrainState, inputs: Any, *, network: Network) -> jax.Array:
    """Returns the probabilities of both classes, float32 [B, 2], of inputs [B, ...]; those of padding mean nothing."""
    return probabilities(network.predict(state.params, state.batch_stats, inputs))


def probabilities(logit: jax.Array) -> jax.Array:
    """Returns the probabilities of both classes, [..., 2], from logits of glioma [...]."""
    return jax.nn.sigmoid(jnp.stack([-logit, logit], axis=-1))
