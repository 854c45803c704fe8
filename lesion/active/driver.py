"""Algorithm 1's bookkeeping: which slices are labelled, which to query next."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from lesion.active.diversity import Candidates, rank_in_group
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
        num_tied: int32 [], number of slices of one score among which lots were drawn for the last places; 0 if the
            scores decided. Strategies that pick one slice after another do not count theirs.
    """

    indices: jax.Array
    scores: jax.Array
    num_tied: jax.Array


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
    """Builds the driver that queries the slices, or patients, of highest score; of equal ones it draws lots by `key`.

    Both of its functions are pure and keep their shapes in all rounds.
    """
    assert query.unit in ("slice", "patient") and query.aggregate in AGGREGATES, query
    assert not strategy.select or query.unit == "slice", "a strategy that picks slice by slice cannot query patients"

    def init(labeled: jax.Array, in_pool: jax.Array) -> PoolState:
        assert labeled.shape == in_pool.shape and labeled.ndim == 1, (labeled.shape, in_pool.shape)
        return PoolState(labeled, in_pool, jnp.int32(0))

    def select(key: jax.Array, state: PoolState, outputs: PoolOutputs, patient: jax.Array) -> AcquireInfo:
        output, allowed = getattr(outputs, strategy.output), state.in_pool & ~state.labeled
        key_score, key_lot = (jax.random.fold_in(key, purpose) for purpose in range(2))
        if strategy.select:
            candidates = Candidates(state.labeled, allowed, patient, query.max_per_patient)
            picked = strategy.select(key_score, output, outputs.probs, candidates, query.num_acquire)
            return AcquireInfo(*picked, jnp.int32(0))
        if strategy.patient_score:
            scores = strategy.patient_score(output, patient, allowed)
            within = jnp.sum(entr(outputs.probs), -1)
        else:
            assert strategy.score is not None
            keys = jax.random.split(key_score, len(output))
            if query.unit == "patient":
                keys = keys[patient]  # one draw per patient: the mean of many would put large ones in the middle
            scores = within = jax.vmap(strategy.score)(keys, output)
        # Masked last: whatever a score gives for a slice that may not be queried, it never wins.
        scores, within = (jnp.where(allowed, values, -jnp.inf) for values in (scores, within))
        if query.unit == "patient":
            return _whole_patients(key_lot, scores, patient, query)
        if query.max_per_patient:
            scores = jnp.where(rank_in_group(within, patient) < query.max_per_patient, scores, -jnp.inf)
        if strategy.patient_score:
            return _patient_by_patient(key_lot, scores, within, patient, query.num_acquire)
        return _highest(key_lot, scores, query.num_acquire)

    def step(
        key: jax.Array, state: PoolState, outputs: PoolOutputs, patient: jax.Array
    ) -> tuple[PoolState, AcquireInfo]:
        shapes = outputs.probs.shape[:1], state.labeled.shape, patient.shape
        assert len(set(shapes)) == 1, shapes
        info = select(key, state, outputs, patient)
        labeled = state.labeled.at[info.indices].max(info.scores > -jnp.inf)
        return PoolState(labeled, state.in_pool, state.round + 1), info._replace(indices=info.indices.astype(jnp.int32))

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


def _lots(key: jax.Array, n: int) -> jax.Array:
    """Draws n lots from [0, 1), float32, by hashing indices (the finalizer of Wellons' lowbias32) with a random start.

    For a million slices ten times as fast on CPU as `jax.random.uniform`, which would be most of a query.
    """
    x = jnp.arange(n, dtype=jnp.uint32) ^ jax.random.bits(key, (), jnp.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return ((x ^ (x >> 16)) >> 8).astype(jnp.float32) * 2.0**-24


def _highest(key: jax.Array, scores: jax.Array, k: int) -> AcquireInfo:
    """Selects the k slices of highest score [N]; lots decide which of equal ones take the last places."""
    top, indices = _top_k(scores, k)
    last = jnp.min(top)  # not top[-1]: with a slice of its result XLA sorts instead, which takes ten times as long
    is_last, num_above = scores == last, jnp.sum(top > last)
    num_last = jnp.sum(is_last)
    by_lot = (num_last > k - num_above) & (last > -jnp.inf)

    def draw() -> jax.Array:
        drawn = _top_k(jnp.where(is_last, _lots(key, len(scores)), -1.0), k)[1]
        return jnp.where(jnp.arange(k) < num_above, indices, drawn[jnp.arange(k) - num_above])

    indices = jax.lax.cond(by_lot, draw, lambda: indices)
    return AcquireInfo(indices, top, jnp.where(by_lot, num_last, 0))


def _patient_by_patient(
    key: jax.Array, scores: jax.Array, within: jax.Array, patient: jax.Array, k: int
) -> AcquireInfo:
    """Selects k slices: all of the patient of highest score, those highest in `within` [N] first, then of the next."""
    key_patient, key_slice = (jax.random.fold_in(key, purpose) for purpose in range(2))
    lots = jax.random.uniform(key_slice, scores.shape), jax.random.uniform(key_patient, scores.shape)[patient]
    # The last key is the first one sorted by; the number parts patients whose lots are equal.
    indices = jnp.lexsort((lots[0], -within, patient, lots[1], -scores))[:k]
    last = indices[-1]
    is_last = (scores == scores[last]) & ((patient != patient[last]) | (within == within[last]))
    by_lot = (jnp.sum(is_last) > jnp.sum(is_last[indices])) & (scores[last] > -jnp.inf)
    return AcquireInfo(indices, scores[indices], jnp.where(by_lot, jnp.sum(is_last), 0))


def _patient_scores(scores: jax.Array, patient: jax.Array, aggregate: str) -> jax.Array:
    """Returns scores of patients by their number, float32 [N]; -inf for one without a slice to query."""
    allowed = scores > -jnp.inf
    if aggregate == "max":
        return jax.ops.segment_max(scores, patient, len(scores))
    count = jax.ops.segment_sum(allowed.astype(scores.dtype), patient, len(scores))
    if aggregate == "top":
        allowed &= rank_in_group(scores, patient) < jnp.ceil(TOP * count).astype(jnp.int32)[patient]
    total = jax.ops.segment_sum(jnp.where(allowed, scores, 0.0), patient, len(scores))
    used = jax.ops.segment_sum(allowed.astype(scores.dtype), patient, len(scores))
    return jnp.where(used > 0, total / jnp.maximum(used, 1.0), -jnp.inf)


def _whole_patients(key: jax.Array, scores: jax.Array, patient: jax.Array, query: QueryConfig) -> AcquireInfo:
    """Selects all unlabelled slices of the patients of highest score, patient by patient, as many as fit."""
    size = max(query.num_acquire, query.max_patient_slices)
    of_patient = _patient_scores(scores, patient, query.aggregate)
    count = jax.ops.segment_sum((scores > -jnp.inf).astype(jnp.int32), patient, len(scores))
    order = jnp.lexsort((jax.random.uniform(key, scores.shape), -of_patient))
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    fits = jnp.cumsum(count[order]) <= jnp.maximum(query.num_acquire, count[order[0]])
    chosen = (scores > -jnp.inf) & fits[rank[patient]]
    indices = jnp.lexsort((-scores, jnp.where(chosen, rank[patient], len(order))))[:size]
    least = jnp.min(jnp.where(chosen, of_patient[patient], jnp.inf))
    is_last = (scores > -jnp.inf) & (of_patient[patient] == least)
    num_tied = jnp.where(jnp.any(is_last & ~chosen), jnp.sum(is_last), 0)
    return AcquireInfo(indices, jnp.where(chosen[indices], of_patient[patient[indices]], -jnp.inf), num_tied)


def initial_labeled(
    key: jax.Array,
    patient: jax.Array,
    in_pool: jax.Array,
    num_slices: jax.Array | int,
    label: jax.Array | None = None,
) -> jax.Array:
    """Draws whole patients at random until `num_slices` slices are labelled (Algorithm 1's D^L), of both classes.

    The order of the patients does not depend on labels. Those of a patient are revealed as it is drawn, so that the
    draw may go on while one class is missing; what it takes more counts among the labels paid for.

    Args:
        key: key of the draw.
        patient: int32 [N], number of a slice's patient, 0 <= patient < N.
        in_pool: bool [N], slices that may be drawn.
        num_slices: number of slices that the last patient drawn reaches or passes.
        label: int32 [N], 0 or 1; None where a doctor has yet to label what is drawn: one class may be missing then.

    Returns:
        Mask of the labelled slices, bool [N].
    """
    assert patient.shape == in_pool.shape, (patient.shape, in_pool.shape)
    order = jnp.argsort(jax.random.uniform(key, patient.shape))

    def drawn_before(mask: jax.Array) -> jax.Array:
        counts = jax.ops.segment_sum((in_pool & mask).astype(jnp.int32), patient, patient.size)[order]
        return jnp.cumsum(counts) - counts

    goes_on = drawn_before(jnp.ones_like(in_pool)) < num_slices
    if label is not None:
        goes_on |= (drawn_before(label == 0) == 0) | (drawn_before(label == 1) == 0)
    drawn = jnp.zeros(patient.shape, bool).at[order].set(goes_on)
    return drawn[patient] & in_pool
