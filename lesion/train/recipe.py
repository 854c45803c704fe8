"""How the paper trains (section 2), and what may be varied: optimizer, schedule, objective, early stopping."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lesion.train.state import TrainState


class Recipe(NamedTuple):
    """How to train; the defaults are the paper's.

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


def _is_backbone(part: str, leaf: Any) -> bool:
    del leaf
    return part == "backbone"


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Adam whose `learning_rate` is set from outside, slower or faster on the part `backbone`."""
    ratio = 1.0 if recipe.backbone_lr is None else recipe.backbone_lr / recipe.lr

    def in_backbone(params: Any) -> Any:
        return {part: jax.tree.map(functools.partial(_is_backbone, part), tree) for part, tree in params.items()}

    def make(learning_rate: Any) -> optax.GradientTransformation:
        if ratio == 1.0:
            return optax.adam(learning_rate)
        return optax.chain(optax.adam(learning_rate), optax.masked(optax.scale(ratio), in_backbone))

    return optax.inject_hyperparams(make)(learning_rate=recipe.lr)


def learning_rate(recipe: Recipe, epoch: jax.Array, step: jax.Array, num_steps: jax.Array) -> jax.Array:
    """The head's at step `step` of `num_steps` of epoch `epoch`, all int32 []: float32 []."""
    updates = epoch if recipe.decay_every == "epoch" else epoch * num_steps + step
    return jnp.float32(recipe.lr) * jnp.float32(recipe.lr_decay) ** updates.astype(jnp.float32)


class Best(NamedTuple):
    """The state of the epoch with the lowest validation loss so far."""

    state: TrainState
    loss: jax.Array
    epoch: jax.Array


def begin(state: TrainState) -> Best:
    """Before the first epoch: anything is better."""
    return Best(state, jnp.float32(jnp.inf), jnp.int32(0))


def keep_best(best: Best, state: TrainState, loss: jax.Array, epoch: jax.Array) -> Best:
    """`best`, or this epoch where its loss is lower."""
    return jax.tree.map(lambda old, new: jnp.where(loss < best.loss, new, old), best, Best(state, loss, epoch))


def is_over(recipe: Recipe, best: Best, epoch: jax.Array) -> jax.Array:
    """Whether epoch `epoch` was the last that patience allows."""
    return epoch - best.epoch >= recipe.patience
