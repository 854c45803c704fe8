"""The protocol between training and everything that uses it, and the learner on frozen features."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lesion.train import recipe as recipes
from lesion.train import steps
from lesion.train.network import Network
from lesion.train.recipe import Recipe
from lesion.train.state import TrainState, create, with_learning_rate


class Examples(NamedTuple):
    """What a learner is shown of N slices.

    Attributes:
        inputs: [N, 1 + copies, ...]: of the slice itself, then of its augmented copies; or a tree of such arrays.
        label: int32 [N]: 0 encephalitis, 1 glioma, -1 hidden.
    """

    inputs: Any
    label: jax.Array

    @property
    def shape(self) -> tuple[int, int]:
        """N, 1 + copies."""
        n, copies = jax.tree.leaves(self.inputs)[0].shape[:2]
        return n, copies

    @property
    def own(self) -> Any:
        """Inputs [N, ...] of the slices themselves."""
        return jax.tree.map(lambda x: x[:, 0], self.inputs)

    @property
    def all(self) -> Any:
        """Inputs [N · (1 + copies), ...], slice by slice, copy by copy."""
        n, copies = self.shape
        return jax.tree.map(lambda x: x.reshape(n * copies, *x.shape[2:]), self.inputs)


class Learner(NamedTuple):
    """How to train, as functions; nothing is remembered between calls.

    Attributes:
        init: (key, examples) -> state.
        fit: (key, state, examples, mask [N] bool, validation [N] bool or None) -> (state, info), trained on the slices
            where `mask` is true; `validation` is for early stopping.
            info["loss"]: mean training loss of every epoch, nats, float32 [num_epochs]; NaN after an early stop.
            info["num_epochs"]: int32 [], those that were trained.
            info["bad_step"]: int32 [num_epochs], the first whose loss was not finite; -1 where all were.
            info["logit"]: float32 [num_epochs, N], of every slice itself after each epoch, if it was asked for.
        predict: (state, examples) -> probabilities [N, 2] float32, of every slice itself.
        look: (key, state, examples, part) -> what active labelling may ask of every slice: `probs` as predicted;
            `copies` [N, 1 + copies, 2], of its augmented copies too; `samples` [N, S, 2], drawn with dropout;
            `embedding` [N, W], what the last layer sees.
    """

    init: Callable[..., Any]
    fit: Callable[..., Any]
    predict: Callable[..., jax.Array]
    look: Callable[..., jax.Array]


def epoch_order(key: jax.Array, mask: jax.Array) -> jax.Array:
    """A random order of [M] in which the masked come first: int32 [M]."""
    assert mask.ndim == 1, mask.shape
    return jnp.argsort(jnp.where(mask, jax.random.uniform(key, mask.shape), 2.0)).astype(jnp.int32)


def epoch_keys(key: jax.Array, epoch: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """The keys of an epoch's order and of its steps."""
    order, step = (jax.random.fold_in(jax.random.fold_in(key, purpose), epoch) for purpose in (0, 1))
    return order, step


def batch_of(key: jax.Array, epoch: int, step: int, mask: np.ndarray, batch_size: int) -> np.ndarray:
    """The examples that a fit with `key` shows in a step: int [B], of the masked of `mask` [M]."""
    order = np.asarray(epoch_order(epoch_keys(key, epoch)[0], jnp.asarray(mask)))[: int(mask.sum())]
    return order[step * batch_size : (step + 1) * batch_size]


def example_keys(key: jax.Array, first: jax.Array | int, size: int) -> jax.Array:
    """Keys [size] of the examples `first`, `first + 1`, ... of a step's global batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(size))


def _shown(x: jax.Array, real: jax.Array) -> jax.Array:
    """`x` [B, ...] where `real` [B], zeros elsewhere."""
    return jnp.where(real.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros((), x.dtype))


def objective(recipe: Recipe, label: jax.Array, mask: jax.Array) -> steps.Objective:
    """What the recipe minimises over the masked labels [N]."""
    weight = steps.balanced(label, mask) if recipe.class_weights else (1.0, 1.0)
    return steps.Objective(weight, recipe.label_smoothing)


def frozen(network: Network, recipe: Recipe, *, watched: bool = False, num_samples: int = 10) -> Learner:
    """A head trained on features that were computed once.

    Every shape is fixed by N, so that one compilation serves every fold, round and labelled set: an epoch takes as
    many steps as the masked examples fill, counted at run time.

    Args:
        network: on features [B, D], or on whatever the examples' inputs are.
        recipe: how to train. `fit` begins its schedule and optimizer anew and continues from the state's parameters.
        watched: whether `fit` tells the logits after each epoch.
        num_samples: S, of `look`.
    """
    tx = recipes.optimizer(recipe)
    step_fn = functools.partial(steps.train_step, apply_fn=network.apply, tx=tx)

    def init(key: jax.Array, examples: Examples) -> TrainState:
        return create(*network.init(key, jax.tree.map(lambda x: x[:1], examples.own)), tx)

    def fit(
        key: jax.Array, state: TrainState, examples: Examples, mask: jax.Array, validation: jax.Array | None = None
    ) -> tuple[TrainState, dict]:
        n, copies = examples.shape
        assert mask.shape == examples.label.shape == (n,), (mask.shape, examples.label.shape)
        assert not recipe.patience or validation is not None, "patience needs validation slices"
        held = jnp.zeros(n, bool) if validation is None else validation
        inputs = examples.all
        label, aim = jnp.repeat(examples.label, copies), objective(recipe, examples.label, mask)
        mask = jnp.repeat(mask, copies)
        size = recipe.batch_size
        num_steps = (jnp.sum(mask) + size - 1) // size
        padding = jnp.zeros(size, jnp.int32)  # a slice that reaches past the end would be moved back

        def predicted(state: TrainState) -> jax.Array:
            return network.predict(state.params, state.batch_stats, examples.own)

        def epoch(state: TrainState, index: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
            key_order, key_step = epoch_keys(key, index)
            order = jnp.concatenate([epoch_order(key_order, mask), padding])

            def body(i: jax.Array, carry: tuple[TrainState, jax.Array, jax.Array]):
                state, total, bad = carry
                state = with_learning_rate(state, recipes.learning_rate(recipe, index, i, num_steps))
                at = jax.lax.dynamic_slice(order, (i * size,), (size,))
                real = (i * size + jnp.arange(size) < n * copies) & mask[at]
                # Padding shows zeros, not a slice that is not to be trained on.
                batch = steps.Batch(jax.tree.map(lambda x: _shown(x[at], real), inputs), label[at], real)
                keys = example_keys(jax.random.fold_in(key_step, i), 0, size)
                state, info = step_fn(keys, state, batch, objective=aim)
                bad = jnp.where((bad < 0) & ~jnp.isfinite(info["loss"]), i, bad)
                return state, total + info["loss"] * jnp.sum(real, dtype=jnp.float32), bad

            start = state, jnp.float32(0), jnp.int32(-1)
            state, total, bad = jax.lax.fori_loop(0, num_steps, body, start)
            info = {"loss": total / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0), "bad_step": bad}
            return state, info | ({"logit": predicted(state)} if watched else {})

        def unless_over(carry: tuple[TrainState, recipes.Best, jax.Array], index: jax.Array):
            """An epoch, unless patience has ended before it."""

            def run(state: TrainState, best: recipes.Best):
                state, info = epoch(state, index)
                logit = info["logit"] if watched else predicted(state)
                total, count = steps.masked_bce(logit, examples.label, held)
                best = recipes.keep_best(best, state, total / jnp.maximum(count, 1.0), index)
                return (state, best, recipes.is_over(recipe, best, index)), info

            def rest(state: TrainState, best: recipes.Best):
                nothing = {"loss": jnp.nan, "logit": jnp.nan, "bad_step": -1}
                info = jax.eval_shape(epoch, state, index)[1]
                return (state, best, over), {k: jnp.full(x.shape, nothing[k], x.dtype) for k, x in info.items()}

            state, best, over = carry
            after, info = jax.lax.cond(over, rest, run, state, best)
            return after, info | {"num_epochs": ~over}

        state, epochs = create(state.params, state.batch_stats, tx), jnp.arange(recipe.num_epochs)
        if not recipe.patience:
            state, info = jax.lax.scan(epoch, state, epochs)
            return state, info | {"num_epochs": jnp.int32(recipe.num_epochs)}
        start = state, recipes.begin(state), jnp.bool_(False)
        (_, best, _), info = jax.lax.scan(unless_over, start, epochs)
        return best.state, info | {"num_epochs": jnp.sum(info["num_epochs"], dtype=jnp.int32)}

    def predict(state: TrainState, examples: Examples) -> jax.Array:
        return steps.eval_step(state, examples.own, apply_fn=network.predict)

    def look(key: jax.Array, state: TrainState, examples: Examples, part: str) -> jax.Array:
        n, copies = examples.shape
        own = state.params, state.batch_stats
        if part == "probs":
            return predict(state, examples)
        if part == "embedding":
            return network.embed(*own, examples.own)
        if part == "copies":
            return steps.probabilities(network.predict(*own, examples.all).reshape(n, copies))
        assert part == "samples", part
        keys = jax.vmap(example_keys, (0, None, None))(jax.random.split(key, num_samples), 0, n)
        logit = jax.lax.map(lambda keys: network.sample(*own, examples.own, keys), keys)
        return steps.probabilities(logit.T)

    return Learner(init, fit, predict, look)
