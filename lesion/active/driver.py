"""Algorithm 1's bookkeeping: which slices are labelled, which to query next."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lesion.active.diversity import Candidates
from lesion.active.strategies import PoolOutputs, Strategy

AGGREGATES = ("mean", "max", "top")
TOP = 0.25  # share of a patient's unlabelled slices, those of highest score, that `top` averages


class PoolState(NamedTuple):
    """State of the pool.

    Attributes:
        labeled: bool [N], whether a slice is labelled.
        in_pool: bool [N], false for slices that may never be queried (the test fold's).
        round: int32 [], index of the round, from 0.
    """

    labeled: jax.Array
    in_pool: jax.Array
    round: jax.Array


class AcquireInfo(NamedTuple):
    """Slices that a step queried.

    Attributes:
        indices: int32 [K], queried slices, most informative first.
        scores: float32 [K], their scores; -inf where the pool was exhausted.
    """

    indices: jax.Array
    scores: jax.Array


class QueryConfig(NamedTuple):
    """Size and unit of a round's query.

    Attributes:
        num_acquire: K, number of slices per round.
        unit: `slice`, or `patient`: whole patients, as many as K slices hold and at least one.
        aggregate: how a patient's slice scores are joined: `mean`, `max`, or `top`, the mean of the upper quarter.
        max_per_patient: most slices of one patient per round; 0: no limit.
        max_patient_slices: number of slices of the largest patient; needed for `patient` only.
    """

    num_acquire: int
    unit: str = "slice"
    aggregate: str = "mean"
    max_per_patient: int = 0
    max_patient_slices: int = 0


class Driver(NamedTuple):
    """`init(labeled, in_pool) -> state` and `step(key, state, outputs, patient [N]) -> (state, AcquireInfo)`."""

    init: Callable[[jax.Array, jax.Array], PoolState]
    step: Callable[[jax.Array, PoolState, PoolOutputs, jax.Array], tuple[PoolState, AcquireInfo]]


def make_driver(strategy: Strategy, query: QueryConfig) -> Driver:
    """Builds the driver that queries the slices, or patients, of highest score.

    Both of its functions are pure and keep their shapes in all rounds.
    """
    assert query.unit in ("slice", "patient") and query.aggregate in AGGREGATES, query
    assert strategy.score or query.unit == "slice", "a strategy that picks slice by slice cannot query patients"

    def init(labeled: jax.Array, in_pool: jax.Array) -> PoolState:
        assert labeled.shape == in_pool.shape and labeled.ndim == 1, (labeled.shape, in_pool.shape)
        return PoolState(labeled, in_pool, jnp.int32(0))

    def select(
        key: jax.Array, state: PoolState, outputs: PoolOutputs, patient: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        output, allowed = getattr(outputs, strategy.output), state.in_pool & ~state.labeled
        if strategy.select:
            candidates = Candidates(state.labeled, allowed, patient, query.max_per_patient)
            return strategy.select(key, output, outputs.probs, candidates, query.num_acquire)
        assert strategy.score is not None
        keys = jax.random.split(key, len(output))
        if query.unit == "patient":
            keys = keys[patient]  # one draw per patient: the mean of many would put large ones in the middle
        scores = jax.vmap(strategy.score)(keys, output)
        # Masked last: whatever a score gives for a slice that may not be queried, it never wins.
        scores = jnp.where(allowed, scores, -jnp.inf)
        if query.unit == "patient":
            return _whole_patients(scores, patient, query)
        if query.max_per_patient:
            scores = jnp.where(_rank_in_patient(scores, patient) < query.max_per_patient, scores, -jnp.inf)
        top, indices = _top_k(scores, query.num_acquire)
        return indices, top

    def step(
        key: jax.Array, state: PoolState, outputs: PoolOutputs, patient: jax.Array
    ) -> tuple[PoolState, AcquireInfo]:
        shapes = outputs.probs.shape[:1], state.labeled.shape, patient.shape
        assert len(set(shapes)) == 1, shapes
        indices, scores = select(key, state, outputs, patient)
        labeled = state.labeled.at[indices].max(scores > -jnp.inf)
        return PoolState(labeled, state.in_pool, state.round + 1), AcquireInfo(indices.astype(jnp.int32), scores)

    return Driver(init, step)


def _top_k(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Returns `lax.top_k(scores [N], k)`, ties included; for a large pool several times faster on CPU.

    The k largest lie in the k blocks of largest maximum, or in the rest; of equal scores the first are in the first.
    """
    n, width = len(scores), 1 << (len(scores).bit_length() // 2)
    if n < 64 * k or k * width > n // 2:  # little to gain
        return jax.lax.top_k(scores, k)
    whole = n - n % width
    blocks = scores[:whole].reshape(-1, width)
    best = jnp.sort(jax.lax.top_k(blocks.max(1), k)[1])
    top, index = jax.lax.top_k(jnp.concatenate([blocks[best].reshape(-1), scores[whole:]]), k)
    in_rest = index - k * width
    return top, jnp.where(in_rest < 0, best[index // width] * width + index % width, whole + in_rest)


def _rank_in_patient(scores: jax.Array, patient: jax.Array) -> jax.Array:
    """Returns each slice's rank among the same patient's by falling score, from 0, int32 [N]."""
    order = jnp.lexsort((-scores, patient))
    grouped = patient[order]
    rank = jnp.arange(len(order)) - jnp.searchsorted(grouped, grouped)
    return jnp.zeros_like(rank).at[order].set(rank)


def _patient_scores(scores: jax.Array, patient: jax.Array, aggregate: str) -> jax.Array:
    """Returns scores of patients by their number, float32 [N]; -inf for one without a slice to query."""
    allowed = scores > -jnp.inf
    if aggregate == "max":
        return jax.ops.segment_max(scores, patient, len(scores))
    count = jax.ops.segment_sum(allowed.astype(scores.dtype), patient, len(scores))
    if aggregate == "top":
        allowed &= _rank_in_patient(scores, patient) < jnp.ceil(TOP * count).astype(jnp.int32)[patient]
    total = jax.ops.segment_sum(jnp.where(allowed, scores, 0.0), patient, len(scores))
    used = jax.ops.segment_sum(allowed.astype(scores.dtype), patient, len(scores))
    return jnp.where(used > 0, total / jnp.maximum(used, 1.0), -jnp.inf)


def _whole_patients(scores: jax.Array, patient: jax.Array, query: QueryConfig) -> tuple[jax.Array, jax.Array]:
    """Selects all unlabelled slices of the patients of highest score, patient by patient, as many as fit."""
    size = max(query.num_acquire, query.max_patient_slices)
    of_patient = _patient_scores(scores, patient, query.aggregate)
    count = jax.ops.segment_sum((scores > -jnp.inf).astype(jnp.int32), patient, len(scores))
    order = jnp.argsort(-of_patient)
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    fits = jnp.cumsum(count[order]) <= jnp.maximum(query.num_acquire, count[order[0]])
    chosen = (scores > -jnp.inf) & fits[rank[patient]]
    indices = jnp.lexsort((-scores, jnp.where(chosen, rank[patient], len(order))))[:size]
    return indices, jnp.where(chosen[indices], of_patient[patient[indices]], -jnp.inf)


def initial_labeled(key: jax.Array, patient: jax.Array, in_pool: jax.Array, num_slices: jax.Array | int) -> jax.Array:
    """Draws whole patients at random until `num_slices` slices are labelled (Algorithm 1's D^L).

    Args:
        key: key of the draw.
        patient: int32 [N], number of a slice's patient, 0 <= patient < N.
        in_pool: bool [N], slices that may be drawn.
        num_slices: number of slices that the last patient drawn reaches or passes.

    Returns:
        Mask of the labelled slices, bool [N].
    """
    assert patient.shape == in_pool.shape, (patient.shape, in_pool.shape)
    counts = jax.ops.segment_sum(in_pool.astype(jnp.int32), patient, patient.size)
    order = jnp.argsort(jax.random.uniform(key, counts.shape))
    before = jnp.cumsum(counts[order]) - counts[order]
    drawn = jnp.zeros(counts.shape, bool).at[order].set(before < num_slices)
    return drawn[patient] & in_pool
