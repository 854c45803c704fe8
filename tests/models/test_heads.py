import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_params import draw
from scipy.special import expit, softmax

from lesion import trees
from lesion.models import capsnet, cnn
from lesion.models.heads import (
    Bags,
    BaselineHead,
    EarlyFusion,
    GatedAttention,
    Head,
    masked_softmax,
    mean_over_slices,
)
from lesion.models.layers import PReLU

KEY = jax.random.key(0)
B, M, S, D = 5, 3, 4, 6
MODELS = {"early": EarlyFusion((7, 5)), "attention": GatedAttention((7, 5), 3)}


@pytest.fixture(scope="module")
def bags():
    """Patient 0 lacks the second sequence, patient 1 everything; padding is NaN, which must reach nothing."""
    rng = np.random.default_rng(0)
    mask = np.arange(S) < rng.integers(1, S + 1, (B, M, 1))
    mask[0, 1] = mask[1] = False
    features = rng.standard_normal((B, M, S, D), np.float32)
    return Bags(jnp.asarray(np.where(mask[..., None], features, np.nan)), jnp.asarray(mask))


@pytest.fixture(params=MODELS, scope="module")
def plain(request, bags):
    """A model with its parameters, not compiled."""
    model = MODELS[request.param]
    return functools.partial(model.apply, draw(model, bags))


@pytest.fixture(scope="module")
def logit_of(plain):
    return jax.jit(plain)


def padded(bags, rows):
    wider = jnp.pad(bags.features, ((0, 0), (0, 0), (0, rows), (0, 0)), constant_values=jnp.nan)
    return Bags(wider, jnp.pad(bags.mask, ((0, 0), (0, 0), (0, rows))))


def permuted(bags):
    order = jnp.array([2, 0, 3, 1])
    return Bags(bags.features[:, :, order], bags.mask[:, :, order])


SAME = {
    "slices in another order": permuted,
    "more padding": lambda bags: padded(bags, 3),
    "padding that is zeros": lambda bags: bags._replace(features=jnp.nan_to_num(bags.features)),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_order_and_padding_of_a_bag_change_nothing(change, logit_of, bags):
    logit = logit_of(bags)
    assert logit.shape == (B,) and np.ptp(logit) > 1e-3
    np.testing.assert_allclose(logit_of(change(bags)), logit, rtol=1e-5, atol=1e-6)


def test_a_masked_sequence_is_an_absent_one_and_matters(logit_of, bags):
    without = bags._replace(mask=bags.mask.at[:, 2].set(False))
    absent = without._replace(features=without.features.at[:, 2].set(jnp.nan))
    np.testing.assert_array_equal(logit_of(without), logit_of(absent))
    assert np.abs(logit_of(without) - logit_of(bags))[2:].min() > 1e-4
    turned = Bags(bags.features[:, ::-1], bags.mask[:, ::-1])  # the same slices, said to be of other sequences
    assert np.abs(logit_of(turned) - logit_of(bags))[2:].min() > 1e-4


@pytest.mark.slow
def test_jit_and_vmap_give_the_plain_numbers(plain, logit_of, bags):
    logit = plain(bags)
    np.testing.assert_allclose(logit_of(bags), logit, rtol=1e-5, atol=1e-6)
    single = lambda bag: plain(jax.tree.map(lambda x: x[None], bag))[0]  # noqa: E731
    np.testing.assert_allclose(jax.jit(jax.vmap(single))(bags), logit, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_gradient_is_finite_with_an_empty_bag(plain, bags):
    loss = lambda params, x: jnp.sum(plain.func(params, bags._replace(features=x)))  # noqa: E731
    grads = jax.jit(jax.grad(loss, (0, 1)))(*plain.args, bags.features)
    assert all(np.isfinite(x).all() and np.any(x) for x in jax.tree.leaves(grads))
    assert not np.any(np.asarray(grads[1])[~np.asarray(bags.mask)])


def test_attention_is_the_papers_equation(bags):
    model = GatedAttention((7,), 3)
    params = draw(model, bags)
    logit, kept = jax.jit(functools.partial(model.apply, mutable=["intermediates"]))(params, bags)
    (weight,) = kept["intermediates"]["attention"]
    bags, weight, p = jax.tree.map(np.asarray, (bags, weight, params["params"]))
    for b in (0, 2, 3, 4):
        x = [bags.features[b, m][bags.mask[b, m]] for m in range(M)]
        h = np.concatenate([np.maximum(x[m] @ p["sequence_kernel"][m] + p["sequence_bias"][m], 0) for m in range(M)])
        gate = np.tanh(h @ p["V"]["kernel"] + p["V"]["bias"]) * expit(h @ p["U"]["kernel"] + p["U"]["bias"])
        want = softmax((gate @ p["w"]["kernel"])[:, 0])
        np.testing.assert_allclose(weight[b][bags.mask[b]], want, rtol=1e-4)
        head = p["head"]["logit"]
        np.testing.assert_allclose(logit[b], (want @ h) @ head["kernel"][:, 0] + head["bias"][0], rtol=1e-3, atol=1e-5)
    assert weight.shape == (B, M, S) and not np.any(weight[~bags.mask])


def test_masked_softmax_is_exact_and_does_not_overflow(rng):
    score, mask = (
        rng.standard_normal((3, 5)).astype(np.float32) * 200,
        np.array([[True] * 5, [True, False] * 2 + [True], [False] * 5]),
    )
    loss = lambda x: (jnp.sum(masked_softmax(x, mask) ** 2), masked_softmax(x, mask))  # noqa: E731
    grad, weight = jax.jit(jax.grad(loss, has_aux=True))(score)
    np.testing.assert_allclose(weight[0], softmax(score[0]), rtol=1e-5)
    np.testing.assert_allclose(weight[1, ::2], softmax(score[1, ::2]), rtol=1e-5)
    assert not np.any(np.asarray(weight)[~mask]) and np.isfinite(grad).all()


def test_the_mean_of_means_is_the_mean(bags):
    mean = jax.jit(mean_over_slices)
    once, bags = jax.tree.map(np.asarray, (mean(bags), bags))
    for b, m in np.ndindex(B, M):
        kept = bags.features[b, m][bags.mask[b, m]]
        np.testing.assert_allclose(once.features[b, m, 0], kept.mean(0) if len(kept) else 0, rtol=1e-5, atol=1e-6)
        assert bool(once.mask[b, m, 0]) == bool(len(kept))
    jax.tree.map(np.testing.assert_array_equal, mean(once), once)


def test_the_papers_head():
    out, variables = jax.eval_shape(Head().init_with_output, KEY, jax.ShapeDtypeStruct((3, 1280), jnp.float32))
    assert trees.num_params(variables["params"]) == 1280 * 512 + 512 + 512 * 256 + 256 + 256 + 1
    assert out.shape == (3,)


SMALL = {  # features and head, at sizes that cost nothing
    "leaky, dropout": (cnn.SmallCNN(cnn.HNCNN[:2], "leaky"), BaselineHead((6, 4), (0.3, 0.2), "leaky"), 12),
    "prelu": (cnn.SmallCNN((cnn.Block(4, 3, pool=(2, 2)),), "prelu"), BaselineHead((5,), (0.5,), "prelu"), 12),
    "capsules": (capsnet.CapsuleTrunk((4, 16)), capsnet.CapsuleHead(20, 8), 20),
}


@pytest.mark.slow
@pytest.mark.parametrize(("trunk", "head", "side"), SMALL.values(), ids=SMALL)
def test_jit_and_vmap_give_the_same(trunk, head, side, rng):
    images = rng.random((3, side, side, 1), np.float32)
    lower = draw(trunk, images)
    upper = draw(head, jax.eval_shape(trunk.apply, lower, images))

    def logit(images):
        return head.apply(upper, trunk.apply(lower, images))

    together = jax.jit(logit)(images)
    assert together.shape == (3,) and float(jnp.ptp(together)) > 0
    alone = jax.jit(jax.vmap(lambda x: logit(x[None])[0]))(images)
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)
    if head.dropout == (0.5,):  # one is enough; the routing is compared without jit below
        np.testing.assert_allclose(logit(images), together, rtol=1e-4, atol=1e-5)


def test_prelu_and_dropout_by_hand():
    x = jnp.array([[-2.0, 3.0], [4.0, -1.0]])
    got = PReLU().apply({"params": {"slope": jnp.array([0.5, 0.1])}}, x)
    np.testing.assert_allclose(got, [[-1, 3], [4, -0.1]])
    head = BaselineHead((400,), (0.5,))
    params = draw(head, x)
    seen = head.apply(params, x, train=True, embed=True, rngs={"dropout": KEY})
    kept = head.apply(params, x, embed=True)
    share = float(jnp.sum(seen > 0) / jnp.sum(kept > 0))
    assert 0.4 < share < 0.6
    np.testing.assert_allclose(seen, jnp.where(seen > 0, 2 * kept, 0), rtol=1e-5)
