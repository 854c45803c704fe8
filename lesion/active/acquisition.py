"""Acquisition scores of one slice; the slice of highest score is queried first. The driver vmaps them over the pool.

A score reads one slice's row of `PoolOutputs`: the prediction, or predictions drawn with dropout. Strategies that
compare slices with each other, or rank whole patients, are in `diversity`.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

Score = Callable[[jax.Array, jax.Array], jax.Array]  # (key, a slice's row of an output) -> []


def entropy(key: jax.Array, probs: jax.Array) -> jax.Array:
    """Returns the entropy of probs [C] in nats, []: equation (1) of the paper with its missing sign.

    With two classes it is at most ln 2, and margin and least confidence rank slices the same way: all three fall with
    |p - 1/2|.
    """
    del key
    assert probs.ndim == 1, probs.shape
    # Added one by one: under vmap on CPU a reduction over so short an axis takes four times as long.
    return functools.reduce(operator.add, map(entr, probs))


def margin(key: jax.Array, probs: jax.Array) -> jax.Array:
    """Returns one minus the gap between the two largest of probs [C], [].

    Summed from the small probabilities, so that confident slices stay ordered where one minus the largest rounds to 0.
    """
    del key
    return _unlikely(probs) + jax.lax.top_k(probs, 2)[0][1]


def least_confidence(key: jax.Array, probs: jax.Array) -> jax.Array:
    """Returns one minus the largest of probs [C], []."""
    del key
    return _unlikely(probs)


def _unlikely(probs: jax.Array) -> jax.Array:
    """Returns one minus the largest of probs [C], []: the sum of the others, which does not round to 0."""
    assert probs.ndim == 1, probs.shape
    return jnp.sum(jnp.where(jnp.arange(len(probs)) == jnp.argmax(probs), 0.0, probs))


def random(key: jax.Array, probs: jax.Array) -> jax.Array:
    """Draws a score from [0, 1) uniformly, [], independent of probs [C]: the paper's comparison."""
    assert probs.ndim == 1, probs.shape
    return jax.random.uniform(key, (), probs.dtype)


def bald(key: jax.Array, mc_probs: jax.Array) -> jax.Array:
    """Returns the mutual information of label and weights in nats, [] (BALD, Houlsby 2011, Gal 2017).

    The entropy of the mean of S predictions minus their mean entropy: mc_probs [S, C], drawn with dropout.
    """
    del key
    assert mc_probs.ndim == 2, mc_probs.shape
    return jnp.sum(entr(jnp.mean(mc_probs, 0))) - jnp.mean(jnp.sum(entr(mc_probs), -1))
