"""How much a slice would teach: scores of one slice, the highest is queried first. The driver vmaps them over the pool.

A score looks at one slice's row of `PoolOutputs`: the prediction, the predictions of its augmented copies, or
predictions drawn with dropout. Strategies that weigh slices against each other are in `diversity`.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import entr, rel_entr

Score = Callable[[jax.Array, jax.Array], jax.Array]
CLIP = 1e-7  # of AIFT's probabilities, whose divergence has no limit


def entropy(key: jax.Array, probs: jax.Array) -> jax.Array:
    """Returns the entropy of probs [C] in nats, []: equation (1) of the paper with its missing sign.

    For two classes at most ln 2; margin and least confidence then rank slices the same way, as all three fall with
    |p - 1/2|.
    """
    del key
    assert probs.ndim == 1, probs.shape
    # Added one by one: under vmap on CPU a reduction over so short an axis takes four times as long.
    return functools.reduce(operator.add, map(entr, probs))


def margin(key: jax.Array, probs: jax.Array) -> jax.Array:
    """Returns one minus the gap between the two likeliest classes of probs [C]: [].

    Summed from the small probabilities, so that sure slices keep their order where one minus the largest rounds to 0.
    """
    del key
    return _unlikely(probs) + jax.lax.top_k(probs, 2)[0][1]


def least_confidence(key: jax.Array, probs: jax.Array) -> jax.Array:
    """Returns one minus the likeliest class's probability of probs [C]: []."""
    del key
    return _unlikely(probs)


def _unlikely(probs: jax.Array) -> jax.Array:
    """Returns one minus the likeliest class's probability, without rounding the rest away."""
    assert probs.ndim == 1, probs.shape
    return jnp.sum(jnp.where(jnp.arange(len(probs)) == jnp.argmax(probs), 0.0, probs))


def random(key: jax.Array, probs: jax.Array) -> jax.Array:
    """Draws uniformly from [0, 1), whatever probs [C] says: the paper's comparison."""
    assert probs.ndim == 1, probs.shape
    return jax.random.uniform(key, (), probs.dtype)


def bald(key: jax.Array, mc_probs: jax.Array) -> jax.Array:
    """Returns the mutual information of label and weights in nats (Houlsby 2011, Gal 2017): mc_probs [S, C] to [].

    Entropy of the mean prediction minus mean entropy of the predictions, drawn with dropout.
    """
    del key
    assert mc_probs.ndim == 2, mc_probs.shape
    return jnp.sum(entr(jnp.mean(mc_probs, 0))) - jnp.mean(jnp.sum(entr(mc_probs), -1))


def aift(key: jax.Array, augmented_probs: jax.Array) -> jax.Array:
    """Returns entropy plus diversity over augmented copies (AIFT, Zhou 2017): augmented_probs [M, 2] to [].

    Of the copies sorted towards their majority a quarter is kept; the score is the sum of their entropies and of the
    divergences p ln(p/q) + q ln(q/p) of all pairs, over both classes. A quarter of a slice and its four copies is one
    picture: the score is then its entropy, and diversity plays no part.
    """
    del key
    assert augmented_probs.ndim == 2 and augmented_probs.shape[1] == 2, augmented_probs.shape
    p = jnp.sort(jnp.clip(augmented_probs[:, 1], CLIP, 1 - CLIP))
    kept = max(1, round(len(p) / 4))
    p = jnp.where(jnp.mean(p) > 0.5, p[::-1], p)[:kept]
    both = jnp.stack([p, 1 - p], -1)
    # Σ_ij (p_i − p_j) ln(p_i / p_j) counts each pair twice: so does the sum of all of R.
    pairs = rel_entr(both[:, None], both[None]) + rel_entr(both[None], both[:, None])
    return jnp.sum(entr(both)) + jnp.sum(pairs)
