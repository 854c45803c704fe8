"""Training on pictures, as pure functions of a batch: pictures to inputs, and the two programs of a step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from lesion.train import augment, steps
from lesion.train import recipe as recipes
from lesion.train.learner import example_keys
from lesion.train.network import Network
from lesion.train.state import TrainState, with_learning_rate


class Data(NamedTuple):
    """N slices, wherever they lie: NumPy, a memory map, or a device.

    Attributes:
        source: pictures uint8 [N, S, S]; or activations [N, 1 + copies, ...] of a stage, computed before.
        word: uint32 [N], of the slice's id: its augmentation depends on it and not on its place.
        label: int32 [N].
    """

    source: Any
    word: Any
    label: Any


class Rows(NamedTuple):
    """Examples of a batch before they are augmented: source [B, ...], word [B], label [B], and copy int32 [B]."""

    source: Any
    word: Any
    label: Any
    copy: Any


class Clock(NamedTuple):
    """Where training is: int32 [] each."""

    epoch: Any
    step: Any
    num_steps: Any


def take(data: Data, at: Any, copies: int) -> Rows:
    """Examples `at` int32 [B] of the N · `copies` there are: slice by slice, copy by copy."""
    row, copy = at // copies, at % copies
    source = data.source[row] if data.source.ndim == 3 else data.source[row, copy]
    return Rows(source, data.word[row], data.label[row], copy)


def from_pictures(
    model: nn.Module,
    preprocess: Callable[[jax.Array], jax.Array],
    *,
    stop: str | None,
    seed: int,
    fresh: bool,
    dtype: Any,
) -> Callable[[Any, Rows, jax.Array], jax.Array]:
    """Builds `prepare(constants, rows, epoch) -> inputs [B, ...]`: augmented, preprocessed, through the frozen stages.

    Args:
        model: a backbone.
        preprocess: uint8 [B, S, S] to float32 [B, H, W, C].
        stop: the last frozen stage, whose variables are `constants`; None where all is trained.
        seed: of the augmentation.
        fresh: whether every epoch draws its copies anew.
        dtype: of the arithmetic.
    """

    def prepare(constants: Any, rows: Rows, epoch: jax.Array) -> jax.Array:
        assert rows.source.ndim == 3, rows.source.shape
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), rows.word)
        if fresh:
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, epoch)
        # One at a time, so that only the operation drawn is computed and not all six; none where all are the slices
        # themselves, as in prediction.
        image = jax.lax.cond(
            jnp.any(rows.copy > 0),
            lambda: jax.lax.map(lambda x: augment.augment(*x), (keys, rows.source, rows.copy)),
            lambda: rows.source,
        )
        x = preprocess(image).astype(dtype)
        if stop is not None:
            x = jax.lax.stop_gradient(model.apply(constants, x, stop=stop))  # type: ignore[assignment]
        return x

    return prepare


def from_activations(constants: Any, rows: Rows, epoch: jax.Array) -> jax.Array:
    """A `prepare` for activations that were computed before."""
    del constants, epoch
    return rows.source


def train_program(
    prepare: Callable[..., jax.Array],
    network: Network,
    tx: optax.GradientTransformation,
    recipe: recipes.Recipe,
    axis_name: str | None,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Builds `step(key, state, constants, rows, mask, clock, class_weight) -> (state, info)`.

    `rows` and `mask` are this device's part of the batch; `info` is the global batch's: {"loss": nats [], "logit":
    float32 [total · B]}.
    """
    step_fn = functools.partial(
        steps.train_step, apply_fn=network.apply, own_loss=network.loss, tx=tx, axis_name=axis_name
    )

    def step(key, state, constants, rows, mask, clock, class_weight):
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(mask)
        keys = example_keys(jax.random.fold_in(key, clock.step), first, len(mask))
        batch = steps.Batch(prepare(constants, rows, clock.epoch), rows.label, mask)
        state = with_learning_rate(state, recipes.learning_rate(recipe, *clock))
        aim = steps.Objective(class_weight, recipe.label_smoothing)
        state, info = step_fn(keys, state, batch, objective=aim)
        return state, info | {"logit": _of_all(info["logit"], axis_name)}

    return step


def eval_program(
    prepare: Callable[..., jax.Array], network: Network, axis_name: str | None
) -> Callable[..., jax.Array]:
    """Builds `evaluate(state, constants, rows) -> probabilities [total · B, 2]` of the global batch."""

    def evaluate(state, constants, rows):
        inputs = prepare(constants, rows, jnp.int32(0))
        return _of_all(steps.eval_step(state, inputs, apply_fn=network.predict), axis_name)

    return evaluate


def look_program(
    prepare: Callable[..., jax.Array], network: Network, axis_name: str | None, part: str, num_samples: int
) -> Callable[..., jax.Array]:
    """Builds `look(key, state, constants, rows) -> [total · B, ...]` of the global batch, see `Learner.look`.

    `part` is `embedding` or `samples`; what is drawn for a slice depends on its id, not on its place.
    """
    assert part in ("embedding", "samples"), part

    def look(key, state, constants, rows):
        inputs, own = prepare(constants, rows, jnp.int32(0)), (state.params, state.batch_stats)
        if part == "embedding":
            return _of_all(network.embed(*own, inputs), axis_name)
        of_slice = jax.vmap(jax.random.fold_in, (None, 0))(key, rows.word)
        keys = jax.vmap(lambda sample: jax.vmap(jax.random.fold_in, (0, None))(of_slice, sample))(
            jnp.arange(num_samples)
        )
        logit = jax.vmap(lambda keys: network.sample(*own, inputs, keys))(keys)  # the backbone is computed once
        return _of_all(steps.probabilities(logit.T), axis_name)

    return look


def _of_all(x: jax.Array, axis_name: str | None) -> jax.Array:
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)
