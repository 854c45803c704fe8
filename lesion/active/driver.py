"""Algorithm 1's bookkeeping: which slices are labelled, which to ask for next."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lesion.active.diversity import Places
from lesion.active.strategies import Strategy, View

AGGREGATES = ("mean", "max", "top")
TOP = 0.25  # of a patient's open slices, those of highest score: what `top` averages


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
        scores: float32 [K]; -inf where nothing was asked.
    """

    indices: jax.Array
    scores: jax.Array


class Asking(NamedTuple):
    """How a round asks.

    Attributes:
        num_acquire: K, slices a round.
        unit: `slice`; or `patient`: whole patients, as many as K slices hold and at least one.
        aggregate: of a patient's slice scores: `mean`, `max`, or `top`, the mean of the upper quarter.
        most: slices of one patient a round; 0 is no limit.
        largest: slices of the largest patient; only for `patient`.
    """

    num_acquire: int
    unit: str = "slice"
    aggregate: str = "mean"
    most: int = 0
    largest: int = 0


class Driver(NamedTuple):
    """`init(labeled, askable) -> PoolState`; `step(key, state, view, patient [N]) -> (PoolState, AcquireInfo)`."""

    init: Callable[[jax.Array, jax.Array], PoolState]
    step: Callable[[jax.Array, PoolState, View, jax.Array], tuple[PoolState, AcquireInfo]]


def driver(strategy: Strategy, asking: Asking) -> Driver:
    """Asks for the slices, or patients, that `strategy` finds most informative; pure, of one shape in all rounds."""
    assert asking.unit in ("slice", "patient") and asking.aggregate in AGGREGATES, asking
    assert strategy.score or asking.unit == "slice", "what chooses slices one after another cannot ask for patients"

    def init(labeled: jax.Array, askable: jax.Array) -> PoolState:
        assert labeled.shape == askable.shape and labeled.ndim == 1, (labeled.shape, askable.shape)
        return PoolState(labeled, askable, jnp.int32(0))

    def choose(key: jax.Array, state: PoolState, view: View, patient: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen, may_ask = getattr(view, strategy.view), state.askable & ~state.labeled
        if strategy.select:
            places = Places(state.labeled, may_ask, patient, asking.most)
            return strategy.select(key, seen, view.probs, places, asking.num_acquire)
        assert strategy.score is not None
        keys = jax.random.split(key, len(seen))
        if asking.unit == "patient":
            keys = keys[patient]  # one draw a patient: a mean of many would leave large ones in the middle
        scores = jax.vmap(strategy.score)(keys, seen)
        # Masked last: whatever a score gives for a slice that may not be asked for, it never wins.
        scores = jnp.where(may_ask, scores, -jnp.inf)
        if asking.unit == "patient":
            return _whole_patients(scores, patient, asking)
        if asking.most:
            scores = jnp.where(_rank_in_patient(scores, patient) < asking.most, scores, -jnp.inf)
        top, indices = _top_k(scores, asking.num_acquire)
        return indices, top

    def step(key: jax.Array, state: PoolState, view: View, patient: jax.Array) -> tuple[PoolState, AcquireInfo]:
        assert view.probs.shape[:1] == state.labeled.shape == patient.shape, (view.probs.shape, state.labeled.shape)
        indices, scores = choose(key, state, view, patient)
        labeled = state.labeled.at[indices].max(scores > -jnp.inf)
        return PoolState(labeled, state.askable, state.round + 1), AcquireInfo(indices.astype(jnp.int32), scores)

    return Driver(init, step)


def _top_k(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k` of [N], ties included, of a large pool several times faster on CPU.

    The k largest lie in the k blocks of largest maximum, or in the rest; among equals the first blocks hold the first.
    """
    n, width = len(scores), 1 << (len(scores).bit_length() // 2)
    if n < 64 * k or k * width > n // 2:  # little to gain
        return jax.lax.top_k(scores, k)
    whole = n - n % width
    blocks = scores[:whole].reshape(-1, width)
    kept = jnp.sort(jax.lax.top_k(blocks.max(1), k)[1])
    top, at = jax.lax.top_k(jnp.concatenate([blocks[kept].reshape(-1), scores[whole:]]), k)
    in_rest = at - k * width
    return top, jnp.where(in_rest < 0, kept[at // width] * width + at % width, whole + in_rest)


def _rank_in_patient(scores: jax.Array, patient: jax.Array) -> jax.Array:
    """How many slices of the same patient come before each: int32 [N]."""
    order = jnp.lexsort((-scores, patient))
    grouped = patient[order]
    rank = jnp.arange(len(order)) - jnp.searchsorted(grouped, grouped)
    return jnp.zeros_like(rank).at[order].set(rank)


def _of_patients(scores: jax.Array, patient: jax.Array, aggregate: str) -> jax.Array:
    """Scores of patients, float32 [N] by number; -inf for one without a slice to ask for."""
    open_ = scores > -jnp.inf
    if aggregate == "max":
        return jax.ops.segment_max(scores, patient, len(scores))
    count = jax.ops.segment_sum(open_.astype(scores.dtype), patient, len(scores))
    if aggregate == "top":
        open_ &= _rank_in_patient(scores, patient) < jnp.ceil(TOP * count).astype(jnp.int32)[patient]
    total = jax.ops.segment_sum(jnp.where(open_, scores, 0.0), patient, len(scores))
    used = jax.ops.segment_sum(open_.astype(scores.dtype), patient, len(scores))
    return jnp.where(used > 0, total / jnp.maximum(used, 1.0), -jnp.inf)


def _whole_patients(scores: jax.Array, patient: jax.Array, asking: Asking) -> tuple[jax.Array, jax.Array]:
    """All open slices of the patients of highest score, patient by patient, as many as fit."""
    size = max(asking.num_acquire, asking.largest)
    of_patient = _of_patients(scores, patient, asking.aggregate)
    count = jax.ops.segment_sum((scores > -jnp.inf).astype(jnp.int32), patient, len(scores))
    order = jnp.argsort(-of_patient)
    place = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    fits = jnp.cumsum(count[order]) <= jnp.maximum(asking.num_acquire, count[order[0]])
    chosen = (scores > -jnp.inf) & fits[place[patient]]
    indices = jnp.lexsort((-scores, jnp.where(chosen, place[patient], len(order))))[:size]
    return indices, jnp.where(chosen[indices], of_patient[patient[indices]], -jnp.inf)


def initial_labeled(key: jax.Array, patient: jax.Array, askable: jax.Array, num_slices: jax.Array | int) -> jax.Array:
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
