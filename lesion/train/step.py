"""A pure training step and a pure evaluation step; `devices.py` applies `jit` or `pmap`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lesion.train.network import Network


class Recipe(NamedTuple):
    """Hyperparameters of training; the defaults are the paper's (section 2).

    Attributes:
        num_epochs: number of passes over the training slices and their copies.
        batch_size: number of examples in a step, on all devices together.
        lr: Adam's learning rate in the first epoch.
        backbone_lr: learning rate of a trained backbone in the first epoch; None means `lr`.
        lr_decay: factor on both learning rates after every epoch ("after each update": read as per epoch).
        decay_every: when the factor applies: `epoch` or `step`.
        class_weights: whether both classes weigh the same in the loss.
        label_smoothing: smoothing s in [0, 1): labels 0 and 1 become s / 2 and 1 − s / 2.
        patience: number of epochs without a lower validation loss after which training stops and the best epoch's
            weights are taken; 0 trains all epochs.
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
    """The state that a training step takes and returns.

    Attributes:
        params: trained parameters, nested dictionaries of float32 arrays.
        batch_stats: BatchNorm's running statistics, nested dictionaries of float32 arrays; empty without BatchNorm.
        opt_state: state of `optimizer(recipe)`, in which `with_learning_rate` sets the learning rate.
    """

    params: Mapping[str, Any]
    batch_stats: Mapping[str, Any]
    opt_state: Any


class Batch(NamedTuple):
    """One device's share of a step's examples.

    Attributes:
        inputs: inputs of the network, [B, ...].
        label: int32 [B]; read only where `mask` is true.
        mask: bool [B], false for padding.
    """

    inputs: Any
    label: jax.Array
    mask: jax.Array


class Objective(NamedTuple):
    """Modifications of the loss.

    Attributes:
        class_weight: factors on the losses of encephalitis and glioma, float32 [2]; apply to a network's own loss too.
        label_smoothing: smoothing s of the cross-entropy, see `Recipe`; ignored by a network with a loss of its own.
    """

    class_weight: jax.Array | tuple[float, float] = (1.0, 1.0)
    label_smoothing: float = 0.0


PLAIN = Objective()


def create_state(params: Mapping[str, Any], batch_stats: Mapping[str, Any], tx: optax.GradientTransformation):
    """Creates the state before the first step, with a new optimizer state."""
    return TrainState(params, batch_stats, tx.init(params))


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Builds Adam whose learning rate is part of its state; on the part `backbone` it is scaled by backbone_lr / lr."""
    ratio = 1.0 if recipe.backbone_lr is None else recipe.backbone_lr / recipe.lr

    def in_backbone(params: Any) -> Any:
        return {part: jax.tree.map(lambda _, part=part: part == "backbone", tree) for part, tree in params.items()}

    def make(learning_rate: Any) -> optax.GradientTransformation:
        if ratio == 1.0:
            return optax.adam(learning_rate)
        return optax.chain(optax.adam(learning_rate), optax.masked(optax.scale(ratio), in_backbone))

    return optax.inject_hyperparams(make)(learning_rate=recipe.lr)


def learning_rate(recipe: Recipe, epoch: jax.Array, step: jax.Array, num_steps: jax.Array) -> jax.Array:
    """Returns the head's learning rate, float32 [], in a step, counted from 0 in its epoch; arguments are int32 []."""
    updates = epoch if recipe.decay_every == "epoch" else epoch * num_steps + step
    return jnp.float32(recipe.lr) * jnp.float32(recipe.lr_decay) ** updates.astype(jnp.float32)


def with_learning_rate(state: TrainState, learning_rate: Any) -> TrainState:
    """Returns the state with the learning rate, float32 [], set in it."""
    hyperparams = {**state.opt_state.hyperparams, "learning_rate": learning_rate}
    return state._replace(opt_state=state.opt_state._replace(hyperparams=hyperparams))


def balanced_weights(label: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns class weights [2] by which both classes of the masked labels [N] weigh the same; 1 on average."""
    assert label.shape == mask.shape, (label.shape, mask.shape)
    count = jnp.stack([jnp.sum(mask & (label == c), dtype=jnp.float32) for c in (0, 1)])
    return jnp.sum(count) / (2.0 * jnp.maximum(count, 1.0))


def masked_bce(
    logit: jax.Array, label: jax.Array, mask: jax.Array, objective: Objective = PLAIN
) -> tuple[jax.Array, jax.Array]:
    """Returns the weighted sum of the masked logits' cross-entropy, in nats, and their count: [B] to float32 []."""
    target = jnp.where(mask, label, 0).astype(logit.dtype)
    smooth = target * (1.0 - objective.label_smoothing) + objective.label_smoothing / 2.0
    return masked_sum(optax.sigmoid_binary_cross_entropy(logit, smooth), label, mask, objective)


def masked_sum(
    loss: jax.Array, label: jax.Array, mask: jax.Array, objective: Objective = PLAIN
) -> tuple[jax.Array, jax.Array]:
    """Returns the sum of the masked losses, each times its class's weight, and their count: [B] to float32 []."""
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
    batch_size: int | None = None,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """Makes one step of gradient descent on the mean loss over the global batch.

    Args:
        key: keys [B] of the examples, for dropout.
        state: state before the step.
        batch: this device's share of the global batch.
        network: network to train.
        tx: optimizer that `state.opt_state` belongs to.
        objective: modifications of the loss.
        batch_size: number of examples in a full global batch: one of n changes BatchNorm's running statistics by
            n / batch_size of what a full one would; None: every batch is full.
        axis_name: name of the axis of devices that share the global batch; None on one device.

    Returns:
        The state after the step, and {"loss": nats [], "logit": [B]}; the loss is the mean over the global batch.
    """

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any, jax.Array]]:
        if network.own_loss:
            label = jnp.where(batch.mask, batch.label, 0)
            loss, logit, batch_stats = network.loss(params, state.batch_stats, batch.inputs, label, batch.mask)
            total, count = masked_sum(loss, label, batch.mask, objective)
        else:
            logit, batch_stats = network.apply(params, state.batch_stats, batch.inputs, batch.mask, key)
            total, count = masked_bce(logit, batch.label, batch.mask, objective)
        # Divided by the global count, so that the devices' gradients add up to that of the global batch.
        count = count if axis_name is None else jax.lax.psum(count, axis_name)
        return total / jnp.maximum(count, 1.0), (logit, batch_stats, count)

    (loss, (logit, batch_stats, count)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    if axis_name is not None:
        loss, grads = jax.lax.psum((loss, grads), axis_name)
    # 2026-11: optax's bias correction raises a float to an int32 power, which strict dtype promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    if batch_size is not None and network.update_statistics:
        share = count / batch_size
        batch_stats = jax.tree.map(lambda old, new: share * new + (1.0 - share) * old, state.batch_stats, batch_stats)
    return TrainState(params, batch_stats, opt_state), {"loss": loss, "logit": logit}


def eval_step(state: TrainState, inputs: Any, *, network: Network) -> jax.Array:
    """Returns the probabilities of both classes, float32 [B, 2], for inputs [B, ...]; those of padding mean nothing."""
    return probabilities(network.predict(state.params, state.batch_stats, inputs))


def probabilities(logit: jax.Array) -> jax.Array:
    """Returns the probabilities of both classes, [..., 2], from logits of glioma [...]."""
    return jax.nn.sigmoid(jnp.stack([-logit, logit], axis=-1))
