"""The learner of a head on features computed beforehand: its whole fit is one compilable function."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lesion.train import step as steps
from lesion.train.epoch import BestEpoch, epoch_keys, epoch_order, example_keys, is_over
from lesion.train.network import Network
from lesion.train.step import Recipe, TrainState, create_state, learning_rate, with_learning_rate


class Examples(NamedTuple):
    """Inputs and labels of N slices.

    Attributes:
        inputs: [N, 1 + copies, ...], of each slice itself, then of its augmented copies; or a tree of such arrays.
        label: int32 [N]: 0 encephalitis, 1 glioma, -1 hidden.
    """

    inputs: Any
    label: jax.Array

    @property
    def shape(self) -> tuple[int, int]:
        """The pair N, 1 + copies."""
        n, copies = jax.tree.leaves(self.inputs)[0].shape[:2]
        return n, copies

    @property
    def own(self) -> Any:
        """Inputs [N, ...] of the slices themselves."""
        return jax.tree.map(lambda x: x[:, 0], self.inputs)

    @property
    def all(self) -> Any:
        """Inputs [N · (1 + copies), ...] of the slices and their copies: slice by slice, copy by copy."""
        n, copies = self.shape
        return jax.tree.map(lambda x: x.reshape(n * copies, *x.shape[2:]), self.inputs)


class Learner(NamedTuple):
    """Pure functions that train and predict.

    Attributes:
        init: (key, examples) -> state.
        fit: (key, state, examples, mask bool [N], validation bool [N] or None) -> (state, info); trains on the slices
            where `mask` is true, stops early by the loss on those where `validation` is true.
            info["loss"]: mean training loss of every epoch, nats, float32 [num_epochs]; NaN after an early stop.
            info["num_epochs"]: number of epochs trained, int32 [].
            info["bad_step"]: first step of each epoch whose loss was not finite, int32 [num_epochs]; -1 for none.
            info["validation_loss"]: loss on the validation slices after each epoch, nats, float32 [num_epochs], with
            patience only.
            info["logit"]: logits of the slices themselves after each epoch, float32 [num_epochs, N], if requested.
            info["step_logit"]: logits of all examples trained on, slice by slice, copy by copy, each as its step
            computed it, float32 [num_epochs, N · (1 + copies)], if requested; NaN for the others.
        predict: (state, examples) -> probabilities float32 [N, 2] of the slices themselves.
        pool_outputs: (key, state, examples, name) -> an output for every slice, which acquisition needs: `probs`, as
            `predict`; `augmented_probs` [N, 1 + copies, 2], of the augmented copies too; `mc_probs` [N, S, 2],
            samples with dropout; `embedding` [N, W], inputs of the last layer.
    """

    init: Callable[..., Any]
    fit: Callable[..., Any]
    predict: Callable[..., jax.Array]
    pool_outputs: Callable[..., jax.Array]


def frozen_learner(network: Network, recipe: Recipe, *, with_logits: bool = False, num_samples: int = 10) -> Learner:
    """Builds the learner of a head on frozen features.

    Every shape depends on N only, so that one compilation serves every fold, round and labelled set: the number of
    steps in an epoch is counted at run time.

    Args:
        network: network whose inputs are features [B, D], or a tree like the examples' inputs.
        recipe: how to train; `fit` restarts schedule and optimizer and continues from the state's parameters.
        with_logits: whether `fit` returns the logits of each epoch.
        num_samples: S, the number of samples in `mc_probs`.
    """
    tx = steps.optimizer(recipe)
    train_step = functools.partial(steps.train_step, network=network, tx=tx)
    size = recipe.batch_size

    def init(key: jax.Array, examples: Examples) -> TrainState:
        return create_state(*network.init(key, jax.tree.map(lambda x: x[:1], examples.own)), tx)

    def fit(
        key: jax.Array, state: TrainState, examples: Examples, mask: jax.Array, validation: jax.Array | None = None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        n, copies = examples.shape
        assert mask.shape == examples.label.shape == (n,), (mask.shape, examples.label.shape)
        assert not recipe.patience or validation is not None, "patience needs validation slices"
        held = jnp.zeros(n, bool) if validation is None else validation
        class_weight = steps.balanced_weights(examples.label, mask) if recipe.class_weights else (1.0, 1.0)
        objective = steps.Objective(class_weight, recipe.label_smoothing)
        inputs, label, mask = examples.all, jnp.repeat(examples.label, copies), jnp.repeat(mask, copies)
        num_steps = (jnp.sum(mask) + size - 1) // size
        padding = jnp.zeros(size, jnp.int32)  # dynamic_slice moves back a window that reaches past the end

        def logits(state: TrainState) -> jax.Array:
            return network.predict(state.params, state.batch_stats, examples.own)

        def epoch(state: TrainState, index: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
            key_order, key_step = epoch_keys(key, index)
            order = jnp.concatenate([epoch_order(key_order, mask), padding])

            def step(i: jax.Array, carry: tuple[TrainState, jax.Array, jax.Array, jax.Array]):
                state, total, bad_step, seen = carry
                state = with_learning_rate(state, learning_rate(recipe, index, i, num_steps))
                rows = jax.lax.dynamic_slice(order, (i * size,), (size,))
                in_batch = (i * size + jnp.arange(size) < n * copies) & mask[rows]
                # Padding rows are zeros, so that no slice outside the mask is ever seen.
                batch_inputs = jax.tree.map(lambda x: _zeros_unless(in_batch, x[rows]), inputs)
                keys = example_keys(jax.random.fold_in(key_step, i), 0, size)
                batch = steps.Batch(batch_inputs, label[rows], in_batch)
                state, info = train_step(keys, state, batch, objective=objective)
                bad_step = jnp.where((bad_step < 0) & ~jnp.isfinite(info["loss"]), i, bad_step)
                if with_logits:
                    seen = seen.at[jnp.where(in_batch, rows, n * copies)].set(info["logit"], mode="drop")
                return state, total + info["loss"] * jnp.sum(in_batch, dtype=jnp.float32), bad_step, seen

            start = state, jnp.float32(0), jnp.int32(-1), jnp.full(n * copies if with_logits else 0, jnp.nan)
            state, total, bad_step, seen = jax.lax.fori_loop(0, num_steps, step, start)
            loss = total / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)
            info = {"loss": loss, "bad_step": bad_step}
            return state, info | ({"logit": logits(state), "step_logit": seen} if with_logits else {})

        def epoch_unless_over(carry: tuple[TrainState, TrainState, BestEpoch, jax.Array], index: jax.Array):
            def train(state: TrainState, best_state: TrainState, best: BestEpoch):
                state, info = epoch(state, index)
                total, count = steps.masked_bce(info["logit"] if with_logits else logits(state), examples.label, held)
                now = BestEpoch(total / jnp.maximum(count, 1.0), index)
                better = now.loss < best.loss
                best_state, best = jax.tree.map(
                    lambda old, new: jnp.where(better, new, old), (best_state, best), (state, now)
                )
                over = is_over(recipe, best, index)
                return (state, best_state, best, over), info | {"validation_loss": now.loss}

            def skip(state: TrainState, best_state: TrainState, best: BestEpoch):
                info = jax.eval_shape(epoch, state, index)[1]
                info = {k: jnp.full(x.shape, -1 if k == "bad_step" else jnp.nan, x.dtype) for k, x in info.items()}
                info["validation_loss"] = jnp.float32(jnp.nan)
                return (state, best_state, best, over), info

            *before, over = carry
            after, info = jax.lax.cond(over, skip, train, *before)
            return after, info | {"num_epochs": ~over}

        state, epochs = create_state(state.params, state.batch_stats, tx), jnp.arange(recipe.num_epochs)
        if not recipe.patience:
            state, info = jax.lax.scan(epoch, state, epochs)
            return state, info | {"num_epochs": jnp.int32(recipe.num_epochs)}
        start = state, state, BestEpoch(jnp.float32(jnp.inf), jnp.int32(0)), jnp.bool_(False)
        (_, best_state, *_), info = jax.lax.scan(epoch_unless_over, start, epochs)
        return best_state, info | {"num_epochs": jnp.sum(info["num_epochs"], dtype=jnp.int32)}

    def predict(state: TrainState, examples: Examples) -> jax.Array:
        return steps.eval_step(state, examples.own, network=network)

    def pool_outputs(key: jax.Array, state: TrainState, examples: Examples, name: str) -> jax.Array:
        n, copies = examples.shape
        variables = state.params, state.batch_stats
        if name == "probs":
            return predict(state, examples)
        if name == "embedding":
            return network.embed(*variables, examples.own)
        if name == "augmented_probs":
            return steps.probabilities(network.predict(*variables, examples.all).reshape(n, copies))
        assert name == "mc_probs", name
        keys = jax.vmap(example_keys, (0, None, None))(jax.random.split(key, num_samples), 0, n)
        logit = jax.lax.map(lambda keys: network.sample(*variables, examples.own, keys), keys)
        return steps.probabilities(logit.T)

    return Learner(init, fit, predict, pool_outputs)


def _zeros_unless(mask: jax.Array, x: jax.Array) -> jax.Array:
    """Returns `x` [B, ...] where `mask` [B] is true, zeros elsewhere."""
    return jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros((), x.dtype))
