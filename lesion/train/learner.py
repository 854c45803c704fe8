"""The protocol between training and everything that uses it, and the learner on frozen features."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from lesion.train import steps
from lesion.train.state import TrainState, create, with_learning_rate


class Examples(NamedTuple):
    """What a learner is shown of N slices.

    Attributes:
        inputs: float32 [N, 1 + copies, D]: features of the slice itself, then of its augmented copies.
        label: int32 [N]: 0 encephalitis, 1 glioma, -1 hidden.
    """

    inputs: jax.Array
    label: jax.Array


class Learner(NamedTuple):
    """How to train, as functions; nothing is remembered between calls.

    Attributes:
        init: (key, examples) -> state.
        fit: (key, state, examples, mask [N] bool) -> (state, info), trained on the slices where `mask` is true.
            info["loss"]: mean training loss of every epoch, float32 [num_epochs], nats.
        predict: (state, examples) -> probabilities [N, 2] float32, of every slice itself.
    """

    init: Callable[..., Any]
    fit: Callable[..., Any]
    predict: Callable[..., jax.Array]


class Recipe(NamedTuple):
    """How the paper trains (section 2).

    Attributes:
        num_epochs: passes over the training slices and their copies.
        batch_size: examples a step.
        lr: Adam's learning rate in the first epoch.
        lr_decay: factor on it after every epoch ("after each update": read as per epoch).
    """

    num_epochs: int = 50
    batch_size: int = 32
    lr: float = 1e-3
    lr_decay: float = 0.9


def epoch_order(key: jax.Array, mask: jax.Array) -> jax.Array:
    """A random order of [M] in which the masked come first: int32 [M]."""
    assert mask.ndim == 1, mask.shape
    return jnp.argsort(jnp.where(mask, jax.random.uniform(key, mask.shape), 2.0)).astype(jnp.int32)


def frozen(head: nn.Module, recipe: Recipe) -> Learner:
    """A head trained on features that were computed once.

    Every shape is fixed by N, so that one compilation serves every fold, round and labelled set: an epoch takes as
    many steps as the masked examples fill, counted at run time.

    Args:
        head: features [B, D] to logit [B].
        recipe: how to train. `fit` begins its schedule and optimizer anew and continues from the state's parameters.
    """
    # Only the learning rate changes: the rest stay Python numbers.
    static_args = ("b1", "b2", "eps", "eps_root")
    tx = optax.inject_hyperparams(optax.adam, static_args=static_args)(learning_rate=recipe.lr)

    def apply_fn(params: Any, inputs: jax.Array, key: jax.Array) -> jax.Array:
        return head.apply({"params": params}, inputs, train=True, rngs={"dropout": key})  # type: ignore[return-value]

    step_fn = functools.partial(steps.train_step, apply_fn=apply_fn, tx=tx)

    def init(key: jax.Array, examples: Examples) -> TrainState:
        return create(head.init(key, examples.inputs[:1, 0])["params"], tx)

    def fit(key: jax.Array, state: TrainState, examples: Examples, mask: jax.Array) -> tuple[TrainState, dict]:
        n, copies = examples.inputs.shape[:2]
        assert mask.shape == examples.label.shape == (n,), (mask.shape, examples.label.shape)
        inputs = examples.inputs.reshape(n * copies, -1)
        label = jnp.repeat(examples.label, copies)
        mask = jnp.repeat(mask, copies)
        size = recipe.batch_size
        num_steps = (jnp.sum(mask) + size - 1) // size
        padding = jnp.zeros(size, jnp.int32)  # a slice that reaches past the end would be moved back

        def epoch(state: TrainState, index: jax.Array) -> tuple[TrainState, jax.Array]:
            key_order, key_step = (jax.random.fold_in(jax.random.fold_in(key, purpose), index) for purpose in (0, 1))
            order = jnp.concatenate([epoch_order(key_order, mask), padding])
            state = with_learning_rate(state, recipe.lr * recipe.lr_decay ** index.astype(jnp.float32))

            def body(i: jax.Array, carry: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
                state, total = carry
                at = jax.lax.dynamic_slice(order, (i * size,), (size,))
                real = (i * size + jnp.arange(size) < n * copies) & mask[at]
                # Padding shows zeros, not a slice that is not to be trained on.
                batch = steps.Batch(jnp.where(real[:, None], inputs[at], 0.0), label[at], real)
                state, info = step_fn(jax.random.fold_in(key_step, i), state, batch)
                return state, total + info["loss"] * jnp.sum(real, dtype=jnp.float32)

            state, total = jax.lax.fori_loop(0, num_steps, body, (state, jnp.float32(0)))
            return state, total / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)

        state = create(state.params, tx)
        state, loss = jax.lax.scan(epoch, state, jnp.arange(recipe.num_epochs))
        return state, {"loss": loss}

    def predict(state: TrainState, examples: Examples) -> jax.Array:
        logit = head.apply({"params": state.params}, examples.inputs[:, 0])
        return jax.nn.sigmoid(jnp.stack([-logit, logit], axis=-1))  # type: ignore[operator, list-item]

    return Learner(init, fit, predict)
