"""Strategies that compare slices with each other: they pick one after another, or rank whole patients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

CLIP = 1e-7  # least distance of AIFT's probabilities from 0 and 1, where their divergence is infinite
MAX_CLUSTERS = 500  # of TypiClust, as in its authors' code
NUM_NEIGHBOURS = 20  # of TypiClust's typicality, likewise
PURITY = 0.95  # share of ProbCover's balls that lie within one cluster, likewise
PREFILTER = 10  # times k: the slices of least margin that margin_k_means clusters, the larger of its authors' values
NUM_ITERATIONS = 10  # of k-means


class Candidates(NamedTuple):
    """Slices that a strategy may pick from.

    Attributes:
        labeled: bool [N], whether a slice is labelled.
        allowed: bool [N], whether a slice may be queried.
        patient: int32 [N], number of a slice's patient, 0 <= patient < N.
        max_per_patient: most slices of one patient in a round; 0: no limit.
    """

    labeled: jax.Array
    allowed: jax.Array
    patient: jax.Array
    max_per_patient: int


Picked = tuple[jax.Array, jax.Array]  # indices int32 [k], and the score of each when it was picked, float32 [k]


def rank_in_group(scores: jax.Array, group: jax.Array) -> jax.Array:
    """Returns the rank of each of N scores within its group, int32 [N], by falling score, from 0."""
    assert scores.shape == group.shape, (scores.shape, group.shape)
    order = jnp.lexsort((-scores, group))
    grouped = group[order]
    rank = jnp.arange(len(order)) - jnp.searchsorted(grouped, grouped)
    return jnp.zeros_like(rank).at[order].set(rank)


def argmax_by_lot(key: jax.Array, values: jax.Array, allowed: jax.Array) -> jax.Array:
    """Returns the index of the largest of values [N] where `allowed`, bool [N]; of equal ones, one drawn by `key`."""
    masked = jnp.where(allowed, values, -jnp.inf)
    return jnp.argmax(jnp.where(masked == jnp.max(masked), jax.random.uniform(key, values.shape), -1.0))


def _squared_distances(points: jax.Array, others: jax.Array) -> jax.Array:
    """Returns the squared distances [N, M] of points [N, D] to others [M, D], by one matrix product."""
    norms = jnp.sum(points**2, -1)[:, None] + jnp.sum(others**2, -1)
    return jnp.maximum(norms - 2 * points @ others.T, 0.0)


def _unit(embedding: jax.Array) -> jax.Array:
    """Returns an embedding [N, D] with rows of length 1."""
    return embedding / jnp.maximum(jnp.linalg.norm(embedding, axis=-1, keepdims=True), 1e-12)


def _k_means(
    points: jax.Array, weight: jax.Array, centres: jax.Array, active: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Clusters points [N, D] with `weight` [N] by Lloyd's algorithm, from `centres` [C, D] of which some are `active`.

    Returns:
        The centres [C, D] after `NUM_ITERATIONS`, and the cluster of each point, int32 [N]. A centre without points
        stays where it is.
    """

    def assign(centres: jax.Array) -> jax.Array:
        return jnp.argmin(jnp.where(active, _squared_distances(points, centres), jnp.inf), 1)

    def iterate(_: int, centres: jax.Array) -> jax.Array:
        cluster = assign(centres)
        total = jax.ops.segment_sum(weight, cluster, len(centres))[:, None]
        sums = jax.ops.segment_sum(weight[:, None] * points, cluster, len(centres))
        return jnp.where(total > 0, sums / jnp.where(total > 0, total, 1.0), centres)

    centres = jax.lax.fori_loop(0, NUM_ITERATIONS, iterate, centres)
    return centres, assign(centres)


def _pick_in_turn(pick: Callable[..., Any], key: jax.Array, state: Any, candidates: Candidates, k: int) -> Picked:
    """Picks k slices one after another by `pick(key, state, allowed bool [N]) -> (index, score, next state)`.

    Returns:
        Indices int32 [k], and their scores, -inf where no slice was left.
    """

    def step(carry: tuple[Any, jax.Array, jax.Array], index: jax.Array):
        state, free, picked = carry
        allowed = free
        if candidates.max_per_patient:
            allowed = free & (picked[candidates.patient] < candidates.max_per_patient)
        row, score, state = pick(jax.random.fold_in(key, index), state, allowed)
        score = jnp.where(allowed[row], score, -jnp.inf)
        picked = picked.at[candidates.patient[row]].add(1)
        return (state, free.at[row].set(False), picked), (row.astype(jnp.int32), score)

    start = state, candidates.allowed, jnp.zeros(len(candidates.allowed), jnp.int32)
    return jax.lax.scan(step, start, jnp.arange(k))[1]


def _pick_by_distance(
    pick: Callable[..., jax.Array],
    key: jax.Array,
    points: jax.Array,
    candidates: Candidates,
    distance: jax.Array,
    k: int,
) -> Picked:
    """Picks k slices of points [N, D] by their squared distance [N] to those labelled or picked before.

    `pick(key, distance, allowed) -> index`. The scores are the distances when a slice was picked.
    """

    def pick_next(key: jax.Array, distance: jax.Array, allowed: jax.Array):
        row = pick(key, distance, allowed)
        return row, distance[row], jnp.minimum(distance, jnp.sum((points - points[row]) ** 2, -1))

    return _pick_in_turn(pick_next, key, distance, candidates, k)


def badge(key: jax.Array, embedding: jax.Array, probs: jax.Array, candidates: Candidates, k: int) -> Picked:
    """Picks slices with large, diverse last-layer gradients by k-means++ seeding (BADGE, Ash 2020).

    Args:
        key: key of the draws.
        embedding: float32 [N, D], input of the last layer.
        probs: [N, 2], predictions; the gradient is that at the predicted label.
        candidates: slices to pick from; `labeled` is ignored, as in the paper.
        k: number of slices to pick.

    Returns:
        Indices int32 [k], and squared distances to those picked before, float32 [k], -inf where no slice was left.
    """
    assert embedding.shape[:1] == probs.shape[:1] == candidates.allowed.shape, (embedding.shape, probs.shape)
    predicted = jnp.argmax(probs, -1).astype(probs.dtype)
    gradient = (probs[:, 1] - predicted)[:, None] * embedding  # of the cross-entropy, by the last layer's weights
    length = jnp.sum(gradient**2, -1)

    def pick(key: jax.Array, distance: jax.Array, allowed: jax.Array) -> jax.Array:
        """Draws in proportion to the squared distance; the first pick, with none to be distant from, is the longest."""
        drawn = jax.random.categorical(key, jnp.where(allowed, jnp.log(jnp.maximum(distance, 1e-30)), -jnp.inf))
        longest = jnp.argmax(jnp.where(allowed, length, -jnp.inf))
        return jnp.where(jnp.max(distance) == jnp.inf, longest, drawn)

    return _pick_by_distance(pick, key, gradient, candidates, jnp.full(len(probs), jnp.inf, probs.dtype), k)


def k_centre(key: jax.Array, embedding: jax.Array, probs: jax.Array, candidates: Candidates, k: int) -> Picked:
    """Picks the slice farthest from all labelled or picked ones, k times (greedy k-centre, Sener 2018).

    Takes and returns the same as `badge`; ignores `probs`.
    """
    del probs
    assert embedding.shape[:1] == candidates.labeled.shape, (embedding.shape, candidates.labeled.shape)
    distance = _squared_distances(embedding, embedding)
    nearest = jnp.min(jnp.where(candidates.labeled[None], distance, jnp.inf), 1)
    return _pick_by_distance(argmax_by_lot, key, embedding, candidates, nearest, k)


def typiclust(key: jax.Array, embedding: jax.Array, probs: jax.Array, candidates: Candidates, k: int) -> Picked:
    """Picks the most typical slice of the largest clusters without a label (TypiClust, Hacohen 2022).

    The pool is clustered by k-means into as many clusters as there are labelled slices and k more, at most
    `MAX_CLUSTERS`; of the clusters with the fewest labels the largest is next, and in it the slice whose
    `NUM_NEIGHBOURS` nearest in the cluster are nearest. Its authors embed by self-supervision, here it is the network's
    own embedding.

    Takes and returns the same as `badge`, but scores are typicalities, one over the mean distance; ignores `probs`.
    """
    del probs
    assert embedding.shape[:1] == candidates.labeled.shape, (embedding.shape, candidates.labeled.shape)
    points, pool, n = _unit(embedding), candidates.labeled | candidates.allowed, len(embedding)
    key_start, key_pick = (jax.random.fold_in(key, purpose) for purpose in range(2))
    order = jnp.argsort(jnp.where(pool, jax.random.uniform(key_start, (n,)), 2.0))[: min(n, MAX_CLUSTERS)]
    active = jnp.arange(len(order)) < jnp.minimum(jnp.sum(candidates.labeled) + k, jnp.sum(pool))
    _, cluster = _k_means(points, pool.astype(points.dtype), points[order], active)

    def count(mask: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(mask.astype(jnp.int32), cluster, len(order))

    together = (cluster[:, None] == cluster) & pool[:, None] & pool & ~jnp.eye(n, dtype=bool)
    distance = jnp.where(together, jnp.sqrt(_squared_distances(points, points)), jnp.inf)
    nearest = -jax.lax.top_k(-distance, min(n, NUM_NEIGHBOURS))[0]
    number = jnp.sum(jnp.isfinite(nearest), 1, dtype=jnp.float32)
    mean = jnp.sum(jnp.where(jnp.isfinite(nearest), nearest, 0.0), 1) / jnp.maximum(number, 1.0)
    typicality = jnp.where(number > 0, 1.0 / jnp.maximum(mean, 1e-6), 0.0)
    size = count(pool)

    def pick(key: jax.Array, covered: jax.Array, allowed: jax.Array):
        key_cluster, key_slice = (jax.random.fold_in(key, purpose) for purpose in range(2))
        # Fewest labels first, then the largest: a size never makes up for one label more.
        chosen = argmax_by_lot(key_cluster, (size - covered * (n + 1)).astype(jnp.float32), count(allowed) > 0)
        row = argmax_by_lot(key_slice, typicality, allowed & (cluster == chosen))
        return row, typicality[row], covered.at[chosen].add(1)

    return _pick_in_turn(pick, key_pick, count(candidates.labeled), candidates, k)


def probcover(key: jax.Array, embedding: jax.Array, probs: jax.Array, candidates: Candidates, k: int) -> Picked:
    """Picks the slice whose ball holds most slices that no labelled or picked one covers (ProbCover, Yehuda 2022).

    The radius is the largest at which `PURITY` of the balls lie within one of two k-means clusters, one a class. Its
    authors embed by self-supervision, here it is the network's own embedding.

    Takes and returns the same as `badge`, but scores are numbers of slices newly covered; ignores `probs`.
    """
    del probs
    assert embedding.shape[:1] == candidates.labeled.shape, (embedding.shape, candidates.labeled.shape)
    points, pool = _unit(embedding), candidates.labeled | candidates.allowed
    key_start, key_pick = (jax.random.fold_in(key, purpose) for purpose in range(2))
    distance = jnp.where(pool[:, None] & pool, _squared_distances(points, points), jnp.inf)
    distance = jnp.where(jnp.eye(len(points), dtype=bool), jnp.where(pool, 0.0, jnp.inf), distance)
    first = argmax_by_lot(key_start, jnp.zeros(len(points)), pool)
    farthest = jnp.argmax(jnp.where(pool, distance[first], -1.0))
    centres = points[jnp.stack([first, farthest])]
    _, cluster = _k_means(points, pool.astype(points.dtype), centres, jnp.ones(2, bool))
    to_other = jnp.min(jnp.where(cluster[:, None] != cluster, distance, jnp.inf), 1)
    num_impure = ((1 - PURITY) * jnp.sum(pool, dtype=jnp.float32)).astype(jnp.int32)
    near = distance < jnp.sort(jnp.where(pool, to_other, jnp.inf))[num_impure]

    def pick(key: jax.Array, covered: jax.Array, allowed: jax.Array):
        gain = jnp.sum(near & ~covered, 1).astype(jnp.float32)
        row = argmax_by_lot(key, gain, allowed)
        return row, gain[row], covered | near[row]

    return _pick_in_turn(pick, key_pick, jnp.any(near & candidates.labeled[:, None], 0), candidates, k)


def margin_k_means(key: jax.Array, embedding: jax.Array, probs: jax.Array, candidates: Candidates, k: int) -> Picked:
    """Picks the slice nearest to each of k centres of the least certain ones (diverse mini-batches, Zhdanov 2019).

    `PREFILTER` times k slices of least margin are clustered by k-means, each with the weight 1 − margin; the k least
    certain are the first centres.

    Takes and returns the same as `badge`, but scores are negative squared distances to the centre.
    """
    assert embedding.shape[:1] == probs.shape[:1] == candidates.allowed.shape, (embedding.shape, probs.shape)
    uncertainty = jnp.where(candidates.allowed, 2 * jnp.min(probs, -1), 0.0)  # 1 − margin of two classes
    lot = jax.random.uniform(key, uncertainty.shape)
    rows = jnp.lexsort((lot, -uncertainty, ~candidates.allowed))[: min(PREFILTER * k, len(probs))]
    centres, _ = _k_means(embedding[rows], uncertainty[rows], embedding[rows[:k]], jnp.ones(k, bool))
    in_filter = jnp.zeros(len(probs), bool).at[rows].set(True)

    def pick(key: jax.Array, index: jax.Array, allowed: jax.Array):
        del key
        distance = jnp.sum((embedding - centres[index]) ** 2, -1)
        # Outside the filter only where max_per_patient leaves nothing within it.
        row = jnp.argmin(jnp.where(allowed & in_filter, distance, jnp.where(allowed, jnp.float32(1e30), jnp.inf)))
        return row, -distance[row], index + 1

    return _pick_in_turn(pick, key, jnp.int32(0), candidates, k)


def aift(augmented_probs: jax.Array, patient: jax.Array, allowed: jax.Array) -> jax.Array:
    """Returns the entropy plus diversity of each slice's patient, float32 [N] (AIFT, Zhou 2017).

    A candidate is a patient, its patches are the pictures of its slices that may be queried, and of their augmented
    copies: they share one label. Of m patches the quarter is kept that most favours the majority class. The score sums
    their entropies and, over all pairs and both classes, the divergences (p − q) ln(p / q).

    Args:
        augmented_probs: [N, M, 2], predictions of each slice and its copies.
        patient: int32 [N], number of a slice's patient, 0 <= patient < N.
        allowed: bool [N], slices that may be queried.
    """
    n, copies, num_classes = augmented_probs.shape
    assert num_classes == 2 and patient.shape == allowed.shape == (n,), (augmented_probs.shape, patient.shape)
    negative, p = jnp.clip(augmented_probs, CLIP, 1 - CLIP).reshape(-1, 2).T
    owner, counted = jnp.repeat(patient, copies), jnp.repeat(allowed, copies)

    def total(values: jax.Array, mask: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(jnp.where(mask, values, 0.0), owner, n)

    size = total(jnp.ones_like(p), counted)
    is_positive = total(p, counted) / jnp.maximum(size, 1.0) > 0.5
    favour = jnp.where(counted, jnp.where(is_positive[owner], p, negative), -jnp.inf)
    num_kept = jnp.maximum(jnp.round(size / 4), 1.0).astype(jnp.int32)
    kept = counted & (rank_in_group(favour, owner) < num_kept[owner])
    number = jnp.maximum(total(jnp.ones_like(p), kept), 1.0)
    logit = jnp.log(p) - jnp.log(negative)
    # Of both classes together Σ_ij (p_i − p_j)(logit_i − logit_j): 2 n times the sum of products of deviations.
    deviations = [x - (total(x, kept) / number)[owner] for x in (p, logit)]
    diversity = 2 * number * total(deviations[0] * deviations[1], kept)
    return (total(entr(p) + entr(negative), kept) + diversity)[patient]
