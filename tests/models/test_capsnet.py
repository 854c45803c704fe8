import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_params import draw

from lesion.models import capsnet

pytestmark = pytest.mark.gpu


def plain_squash(s):
    squared = (s**2).sum()
    return squared / (1 + squared) * s / np.sqrt(squared)


def plain_route(votes, iterations):
    """Procedure 1 of the paper, a capsule at a time."""
    lower, upper, _ = votes.shape
    b = np.zeros((lower, upper))
    for _ in range(iterations):
        c = np.exp(b) / np.exp(b).sum(1, keepdims=True)
        v = np.stack([plain_squash(sum(c[i, j] * votes[i, j] for i in range(lower))) for j in range(upper)])
        for i in range(lower):
            for j in range(upper):
                b[i, j] += votes[i, j] @ v[j]
    return v


@pytest.mark.parametrize("iterations", [1, 3])
def test_squash_and_routing_are_the_papers(iterations, rng):
    votes = rng.normal(size=(2, 5, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(capsnet.squash(jnp.asarray(votes[0, 0, 0])), plain_squash(votes[0, 0, 0]), rtol=1e-5)
    wanted = np.stack([plain_route(v.astype(np.float64), iterations) for v in votes])
    np.testing.assert_allclose(capsnet.route(jnp.asarray(votes), iterations), wanted, rtol=1e-4, atol=1e-6)


def test_routing_has_finite_gradients_at_nothing():
    def total(votes):
        return jnp.sum(capsnet.length(capsnet.route(votes)))

    assert np.isfinite(jax.jit(jax.grad(total))(jnp.zeros((1, 4, 2, 3)))).all()


def test_margin_loss_by_hand():
    lengths = jnp.array([[0.95, 0.05], [0.3, 0.6], [0.3, 0.6]])
    wanted = [0, 0.5 * 0.2**2 + 0.3**2, 0.6**2 + 0.5 * 0.5**2]
    np.testing.assert_allclose(capsnet.margin_loss(lengths, jnp.array([0, 1, 0])), wanted, rtol=1e-5)


@pytest.mark.slow
def test_the_decoder_draws_from_the_right_capsule_and_the_probability_is_its_share(rng):
    head, features = capsnet.CapsuleHead(4, 8), rng.standard_normal((3, 64), np.float32)
    params = draw(head, features, scale=0.1)
    run = jax.jit(functools.partial(head.apply, params), static_argnames="method")
    v = run(features, method="capsules_of")
    shares = jnp.linalg.norm(v, axis=-1) / jnp.linalg.norm(v, axis=-1).sum(1, keepdims=True)
    np.testing.assert_allclose(jax.nn.sigmoid(run(features)), shares[:, 1], rtol=1e-3)
    label, images = jnp.array([0, 1, 1]), jnp.full((3, 4, 4, 1), 0.25)
    drawn = run(v, label, method="reconstruct")
    other = run(v.at[0, 1].set(9.0), label, method="reconstruct")  # not seen where the label is 0
    np.testing.assert_array_equal(drawn[0], other[0])
    loss, logit = run(features, images, label, method="loss")
    wanted = capsnet.margin_loss(capsnet.length(v), label) + 0.0005 * jnp.sum((drawn - 0.25) ** 2, 1)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(logit, run(features), rtol=1e-5)
