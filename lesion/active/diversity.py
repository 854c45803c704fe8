"""Strategies that weigh slices against each other: chosen one after another, by their distances."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


def _squared_distance(points: jax.Array, centre: jax.Array) -> jax.Array:
    """Returns the squared distances [N] of points [N, D] to one [D]."""
    return jnp.sum((points - centre) ** 2, -1)


class Candidates(NamedTuple):
    """Which slices may be queried.

    Attributes:
        labeled: bool [N].
        allowed: bool [N], those that may be queried.
        patient: int32 [N], 0 <= patient < N.
        max_per_patient: slices of one patient; 0 is no limit.
    """

    labeled: jax.Array
    allowed: jax.Array
    patient: jax.Array
    max_per_patient: int


def _pick_in_turn(pick: Any, key: jax.Array, points: jax.Array, candidates: Candidates, distance: jax.Array, k: int):
    """Picks k slices one after another by their distance to those labelled or picked before.

    `pick(key, distance [N]) -> index`; the distance is -inf where a slice may not be queried.

    Returns:
        indices int32 [k]; and the distance of each when it was picked, -inf where nothing was left.
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
    """Picks diverse large gradients: k-means++ seeds of the last layer's, at the predicted label (BADGE, Ash 2020).

    Args:
        key: of the draws.
        embedding: float32 [N, D], what the last layer sees.
        probs: [N, 2].
        candidates: which slices may be queried; what is labelled is not looked at, as in the paper.
        k: how many.

    Returns:
        indices int32 [k], and squared distances to those picked before, float32 [k], -inf where nothing was left.
    """
    assert embedding.shape[:1] == probs.shape[:1] == candidates.allowed.shape, (embedding.shape, probs.shape)
    predicted = jnp.argmax(probs, -1).astype(probs.dtype)
    gradient = (probs[:, 1] - predicted)[:, None] * embedding  # of the cross-entropy in the one logit
    length = jnp.sum(gradient**2, -1)

    def pick(key: jax.Array, distance: jax.Array) -> jax.Array:
        """Draws in proportion to the distance; the first, as far as can be from nothing, is the longest."""
        allowed = distance > -jnp.inf
        drawn = jax.random.categorical(key, jnp.where(allowed, jnp.log(jnp.maximum(distance, 1e-30)), -jnp.inf))
        longest = jnp.argmax(jnp.where(allowed, length, -jnp.inf))
        return jnp.where(jnp.max(distance) == jnp.inf, longest, drawn)

    return _pick_in_turn(pick, key, gradient, candidates, jnp.full(len(probs), jnp.inf, probs.dtype), k)


def k_centre(
    key: jax.Array, embedding: jax.Array, probs: jax.Array, candidates: Candidates, k: int
) -> tuple[jax.Array, jax.Array]:
    """Picks the slice farthest from all that are labelled or picked, k times (greedy k-centre, Sener 2018).

    Args and returns as `badge`; `probs` and `key` are not looked at.
    """
    del probs
    assert embedding.shape[:1] == candidates.labeled.shape, (embedding.shape, candidates.labeled.shape)
    norm = jnp.sum(embedding**2, -1)
    distance = norm[:, None] + norm[None] - 2 * embedding @ embedding.T  # [N, N], one product
    nearest = jnp.min(jnp.where(candidates.labeled[None], jnp.maximum(distance, 0.0), jnp.inf), 1)
    return _pick_in_turn(lambda _, distance: jnp.argmax(distance), key, embedding, candidates, nearest, k)
