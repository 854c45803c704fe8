"""Algorithm 1's bookkeeping: which slices are labelled, which to ask for next."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lesion.active.acquisition import Score


class PoolState(NamedTuple):
    """What is known of the pool.

    Attributes:
        labeled: bool [N].
        askable: bool [N]: false for slices that may never be asked for (the test fold's).
        round: int32 [].
    """

    labeled: jax.Array
    askable: jax.Array
    round: jax.Array


class AcquireInfo(NamedTuple):
    """What was asked for.

    Attributes:
        indices: int32 [K], most informative first.
        scores: float32 [K]; -inf where the pool was exhausted and nothing was asked.
    """

    indices: jax.Array
    scores: jax.Array


class Driver(NamedTuple):
    """`init(labeled, askable) -> PoolState`; `step(key, state, probs [N, C]) -> (PoolState, AcquireInfo)`."""

    init: Callable[[jax.Array, jax.Array], PoolState]
    step: Callable[[jax.Array, PoolState, jax.Array], tuple[PoolState, AcquireInfo]]


def driver(score: Score, num_acquire: int) -> Driver:
    """Asks for the `num_acquire` slices of highest `score` a round.

    Args:
        score: (key, probs [C]) -> [], of one slice.
        num_acquire: K.
    """

    def init(labeled: jax.Array, askable: jax.Array) -> PoolState:
        assert labeled.shape == askable.shape and labeled.ndim == 1, (labeled.shape, askable.shape)
        return PoolState(labeled, askable, jnp.int32(0))

    def step(key: jax.Array, state: PoolState, probs: jax.Array) -> tuple[PoolState, AcquireInfo]:
        assert probs.ndim == 2 and probs.shape[:1] == state.labeled.shape, (probs.shape, state.labeled.shape)
        scores = jax.vmap(score)(jax.random.split(key, probs.shape[0]), probs)
        # Masked last: whatever a score gives for a slice that may not be asked for, it never wins.
        scores = jnp.where(state.askable & ~state.labeled, scores, -jnp.inf)
        top, indices = jax.lax.top_k(scores, num_acquire)
        labeled = state.labeled.at[indices].max(top > -jnp.inf)
        return PoolState(labeled, state.askable, state.round + 1), AcquireInfo(indices.astype(jnp.int32), top)

    return Driver(init, step)


def initial_labeled(key: jax.Array, patient: jax.Array, askable: jax.Array, num_slices: int) -> jax.Array:
    """Whole patients drawn at random until `num_slices` slices are labelled (Algorithm 1's D^L).

    Args:
        key: of the draw.
        patient: int32 [N], 0 <= patient < N.
        askable: bool [N].
        num_slices: reached or passed by the last patient drawn.

    Returns:
        bool [N].
    """
    assert patient.shape == askable.shape, (patient.shape, askable.shape)
    counts = jax.ops.segment_sum(askable.astype(jnp.int32), patient, patient.size)
    order = jnp.argsort(jax.random.uniform(key, counts.shape))
    before = jnp.cumsum(counts[order]) - counts[order]
    drawn = jnp.zeros(counts.shape, bool).at[order].set(before < num_slices)
    return drawn[patient] & askable
