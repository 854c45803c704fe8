"""How much a slice would teach: scores of one prediction, higher asked first. The driver vmaps them over the pool."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

Score = Callable[[jax.Array, jax.Array], jax.Array]


def entropy(key: jax.Array, probs: jax.Array) -> jax.Array:
    """Equation (1) of the paper with its missing sign, in nats: probs [C] to [].

    For two classes at most ln 2; margin and least confidence then rank slices the same way, as all three fall with
    |p - 1/2|.
    """
    del key
    assert probs.ndim == 1, probs.shape
    return jnp.sum(entr(probs))


def margin(key: jax.Array, probs: jax.Array) -> jax.Array:
    """Minus the gap between the two likeliest classes: probs [C] to []."""
    del key
    assert probs.ndim == 1, probs.shape
    top = jax.lax.top_k(probs, 2)[0]
    return top[1] - top[0]


def least_confidence(key: jax.Array, probs: jax.Array) -> jax.Array:
    """One minus the likeliest class's probability: probs [C] to []."""
    del key
    assert probs.ndim == 1, probs.shape
    return 1.0 - jnp.max(probs)


def random(key: jax.Array, probs: jax.Array) -> jax.Array:
    """The paper's comparison: uniform in [0, 1), whatever probs [C] says."""
    assert probs.ndim == 1, probs.shape
    return jax.random.uniform(key, (), probs.dtype)


STRATEGIES: dict[str, Score] = {
    "entropy": entropy,
    "random": random,
    "margin": margin,
    "least_confidence": least_confidence,
}
