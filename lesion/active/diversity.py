"""Strategies that compare slices with each other: they pick one after another, by distance."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


def _squared_distance(points: jax.Array, centre: jax.Array) -> jax.Array:
    """Returns the squared distances [N] of points [N, D] to `centre` [D]."""
    return jnp.sum((points - centre) ** 2, -1)


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


def _pick_in_turn(pick: Any, key: jax.Array, points: jax.Array, candidates: Candidates, distance: jax.Array, k: int):
    """Picks k slices one after another by their distance to those labelled or picked before.

    `pick(key, distance [N]) -> index`; the distance is -inf where a slice may not be queried.

    Returns:
        Indices int32 [k], and the distance of each when it was picked, -inf where no slice was left.
    """

    def step(carry: tuple[jax.Array, jax.Array, jax.Array], index: jax.Array):
        distance, free, picked = carry
        allowed = free
        if candidates.max_per_patient:
            allowed = free & (picked[candidates.patient] < candidates.max_per_patient)
        row = pick(jax.random.fold_in(key, index), jnp.where(allowed, distance, -jnp.inf))
        score = jnp.where(allowed[row], distance[row], -jnp.inf)
        distance = jnp.minimum(distance, _squared_distance(points, points[row]))
        picked = picked.at[candidates.patient[row]].add(1)
        return (distance, free.at[row].set(False), picked), (row.astype(jnp.int32), score)

    start = distance, candidates.allowed, jnp.zeros(len(points), jnp.int32)
    return jax.lax.scan(step, start, jnp.arange(k))[1]


def badge(
    key: jax.Array, embedding: jax.Array, probs: jax.Array, candidates: Candidates, k: int
) -> tuple[jax.Array, jax.Array]:
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

    def pick(key: jax.Array, distance: jax.Array) -> jax.Array:
        """Draws in proportion to the squared distance; the first pick, with none to be distant from, is the longest."""
        allowed = distance > -jnp.inf
        drawn = jax.random.categorical(key, jnp.where(allowed, jnp.log(jnp.maximum(distance, 1e-30)), -jnp.inf))
        longest = jnp.argmax(jnp.where(allowed, length, -jnp.inf))
        return jnp.where(jnp.max(distance) == jnp.inf, longest, drawn)

    return _pick_in_turn(pick, key, gradient, candidates, jnp.full(len(probs), jnp.inf, probs.dtype), k)


def k_centre(
    key: jax.Array, embedding: jax.Array, probs: jax.Array, candidates: Candidates, k: int
) -> tuple[jax.Array, jax.Array]:
    """Picks the slice farthest from all labelled or picked ones, k times (greedy k-centre, Sener 2018).

    Takes and returns the same as `badge`; ignores `probs` and `key`.
    """
    del probs
    assert embedding.shape[:1] == candidates.labeled.shape, (embedding.shape, candidates.labeled.shape)
    norm = jnp.sum(embedding**2, -1)
    distance = norm[:, None] + norm[None] - 2 * embedding @ embedding.T  # [N, N], by one matrix product
    nearest = jnp.min(jnp.where(candidates.labeled[None], jnp.maximum(distance, 0.0), jnp.inf), 1)
    return _pick_in_turn(lambda _, distance: jnp.argmax(distance), key, embedding, candidates, nearest, k)
