"""Strategies that weigh slices against each other: chosen one after another, by their distances."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


def _squared_distance(points: jax.Array, centre: jax.Array) -> jax.Array:
    """Of points [N, D] to one [D]: [N]."""
    return jnp.sum((points - centre) ** 2, -1)


class Places(NamedTuple):
    """Where slices may be asked for.

    Attributes:
        labeled: bool [N].
        may_ask: bool [N].
        patient: int32 [N], 0 <= patient < N.
        most: of one patient; 0 is no limit.
    """

    labeled: jax.Array
    may_ask: jax.Array
    patient: jax.Array
    most: int


def _one_after_another(pick: Any, key: jax.Array, points: jax.Array, places: Places, distance: jax.Array, k: int):
    """`k` times `pick(key, distance, -inf where it may not be asked) -> index`; distances shrink to what was picked.

    Returns:
        indices int32 [k]; and the distance of each when it was picked, -inf where nothing was left.
    """

    def step(carry: tuple[jax.Array, jax.Array, jax.Array], index: jax.Array):
        distance, free, asked = carry
        open_ = free & (asked[places.patient] < places.most) if places.most else free
        at = pick(jax.random.fold_in(key, index), jnp.where(open_, distance, -jnp.inf))
        score = jnp.where(open_[at], distance[at], -jnp.inf)
        distance = jnp.minimum(distance, _squared_distance(points, points[at]))
        asked = asked.at[places.patient[at]].add(1)
        return (distance, free.at[at].set(False), asked), (at.astype(jnp.int32), score)

    start = distance, places.may_ask, jnp.zeros(len(points), jnp.int32)
    return jax.lax.scan(step, start, jnp.arange(k))[1]


def badge(
    key: jax.Array, embedding: jax.Array, probs: jax.Array, places: Places, k: int
) -> tuple[jax.Array, jax.Array]:
    """Diverse large gradients: k-means++ seeds of the last layer's gradient at the predicted label (Ash 2020).

    Args:
        key: of the draws.
        embedding: float32 [N, D], what the last layer sees.
        probs: [N, 2].
        places: where slices may be asked for; what is labelled is not looked at, as in the paper.
        k: how many.

    Returns:
        indices int32 [k], and squared distances to those picked before, float32 [k], -inf where nothing was left.
    """
    assert embedding.shape[:1] == probs.shape[:1] == places.may_ask.shape, (embedding.shape, probs.shape)
    guess = jnp.argmax(probs, -1).astype(probs.dtype)
    gradient = (probs[:, 1] - guess)[:, None] * embedding  # of the cross-entropy in the one logit
    length = jnp.sum(gradient**2, -1)

    def pick(key: jax.Array, distance: jax.Array) -> jax.Array:
        """In proportion to the distance; the first, as far as can be from nothing, is the longest."""
        open_ = distance > -jnp.inf
        drawn = jax.random.categorical(key, jnp.where(open_, jnp.log(jnp.maximum(distance, 1e-30)), -jnp.inf))
        longest = jnp.argmax(jnp.where(open_, length, -jnp.inf))
        return jnp.where(jnp.max(distance) == jnp.inf, longest, drawn)

    return _one_after_another(pick, key, gradient, places, jnp.full(len(probs), jnp.inf, probs.dtype), k)


def k_centre(
    key: jax.Array, embedding: jax.Array, probs: jax.Array, places: Places, k: int
) -> tuple[jax.Array, jax.Array]:
    """Greedy k-centre: always the slice farthest from all that are labelled or picked (Sener and Savarese 2018).

    Args and returns as `badge`; `probs` and `key` are not looked at.
    """
    del probs
    assert embedding.shape[:1] == places.labeled.shape, (embedding.shape, places.labeled.shape)
    norm = jnp.sum(embedding**2, -1)
    apart = norm[:, None] + norm[None] - 2 * embedding @ embedding.T  # [N, N], one product
    nearest = jnp.min(jnp.where(places.labeled[None], jnp.maximum(apart, 0.0), jnp.inf), 1)
    return _one_after_another(lambda _, distance: jnp.argmax(distance), key, embedding, places, nearest, k)
