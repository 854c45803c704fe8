import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesion import models, trees
from lesion.models import capsnet, cnn, cnn_f

KEY = jax.random.key(0)
# As published: CNN-F at 1000 classes, CapsNet for two, HNCNN. The others are of our own guesses.
PARAMETERS = {
    "cnn_f": 60_834_536 - 1000 * 4097 + 4097,
    "cnn_f_svm": 60_834_536 - 1000 * 4097,
    "capsnet": 10_791_808,
    "diamant": 225_249,
    "hncnn": 85_505,
    "kiryu": 8_691_809,
}


def shapes(name):
    """Of pictures, and of the variables of features and classifier, with their outputs."""
    spec = models.get_spec(name)
    pictures = jax.ShapeDtypeStruct((2, spec.input_size, spec.input_size, spec.channels), jnp.float32)
    return pictures, *jax.eval_shape(models.get_model(name, None).init_with_output, KEY, pictures)


@pytest.mark.parametrize("name", models.BASELINES)
def test_every_row_is_what_it_says(name):
    row, (_, features, variables) = models.BASELINES[name], shapes(name)
    assert features.shape == (2, row.model.feature_width)
    count = trees.num_params(variables["params"])
    if not row.model.classifier:
        assert count == row.model.num_params
    if row.head is not None:
        logit, head = jax.eval_shape(row.head().init_with_output, KEY, features)
        assert logit.shape == (2,)
        count += trees.num_params(head["params"])
    assert count == row.num_params == PARAMETERS[name]
    assert row.guesses in models.baselines.__doc__
    assert models.baseline_table()[name]["guesses"] == row.guesses


@pytest.mark.parametrize("name", ["cnn_f", "cnn_f_svm"])
def test_cnn_f_has_the_published_parameters_at_1000_classes(name):
    pictures = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    logits, variables = jax.eval_shape(models.get_model(name).init_with_output, KEY, pictures)
    assert logits.shape == (2, 1000)
    assert trees.num_params(variables["params"]) == models.get_spec(name).num_params == 60_834_536


@pytest.mark.parametrize("name", models.BASELINES)
def test_every_stage_is_reachable_and_whoever_has_parameters_is_one(name):
    x, _, variables = shapes(name)
    model, names = models.get_model(name, None), models.stage_names(name)
    for before, stage in zip((None, *names), names, strict=False):
        x = jax.eval_shape(functools.partial(model.apply, start=before, stop=stage), variables, x)
    assert models.get_spec(name).last_map == names[-1]
    assert x.size == 2 * models.get_spec(name).feature_width and set(variables["params"]) <= set(names)


@pytest.mark.parametrize("name", models.BASELINES)
def test_slices_of_any_size_become_its_pictures(name):
    spec = models.get_spec(name)
    out = models.preprocess(name, jnp.full((1, 16, 16), 255, jnp.uint8))
    assert out.shape == (1, spec.input_size, spec.input_size, spec.channels) and out.dtype == jnp.float32
    white = 255 - np.array(cnn_f.MEAN_RGB) if spec.channels == 3 else 1.0
    np.testing.assert_allclose(out[0, 8, 8], np.broadcast_to(white, spec.channels), rtol=1e-4)


def test_cnn_f_with_dense_layers_as_stages_is_the_same_network():
    pictures = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    plain, staged = (models.get_model(name) for name in ("cnn_f", "cnn_f_svm"))
    variables = jax.eval_shape(plain.init, KEY, pictures)
    programs = [str(jax.make_jaxpr(model.apply)(variables, pictures)) for model in (plain, staged)]
    assert programs[0] == programs[1] and "dot_general" in programs[0]


SMALL = {  # features and classifier at sizes that cost nothing
    "leaky, dropout": (cnn.SmallCNN(cnn.HNCNN, "leaky", form="lax"), cnn.Classifier((6, 4), (0.3, 0.2), "leaky"), 64),
    "prelu": (cnn.SmallCNN((cnn.Block(4, 3, pool=(2, 2)),), "prelu"), cnn.Classifier((5,), (0.5,), "prelu"), 12),
    "capsules": (capsnet.CapsuleTrunk((4, 16), form="lax"), capsnet.CapsuleHead(20, 8), 20),
}


@pytest.mark.parametrize(("trunk", "head", "side"), SMALL.values(), ids=SMALL)
def test_jit_and_vmap_give_the_same(trunk, head, side):
    pictures = jax.random.uniform(KEY, (3, side, side, 1))
    lower = jax.jit(trunk.init)(KEY, pictures)
    upper = jax.jit(head.init)(KEY, jax.jit(trunk.apply)(lower, pictures))

    def logit(pictures):
        return head.apply(upper, trunk.apply(lower, pictures))

    together = jax.jit(logit)(pictures)
    assert together.shape == (3,) and float(jnp.ptp(together)) > 0
    alone = jax.jit(jax.vmap(lambda x: logit(x[None])[0]))(pictures)
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)
    if head.dropout == (0.5,):  # one is enough; the routing is compared without jit below
        np.testing.assert_allclose(logit(pictures), together, rtol=1e-4, atol=1e-5)


def test_prelu_and_dropout_by_hand():
    x = jnp.array([[-2.0, 3.0], [4.0, -1.0]])
    got = cnn.PReLU().apply({"params": {"slope": jnp.array([0.5, 0.1])}}, x)
    np.testing.assert_allclose(got, [[-1, 3], [4, -0.1]])
    head = cnn.Classifier((400,), (0.5,))
    params = head.init(KEY, x)
    seen = head.apply(params, x, train=True, embed=True, rngs={"dropout": KEY})
    kept = head.apply(params, x, embed=True)
    share = float(jnp.sum(seen > 0) / jnp.sum(kept > 0))
    assert 0.4 < share < 0.6
    np.testing.assert_allclose(seen, jnp.where(seen > 0, 2 * kept, 0), rtol=1e-5)


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


def test_the_decoder_draws_from_the_right_capsule_and_the_probability_is_its_share():
    head, features = capsnet.CapsuleHead(4, 8), jax.random.normal(KEY, (3, 64))
    params = jax.jit(head.init)(KEY, features)
    run = jax.jit(functools.partial(head.apply, params), static_argnames="method")
    v = run(features, method="capsules_of")
    shares = jnp.linalg.norm(v, axis=-1) / jnp.linalg.norm(v, axis=-1).sum(1, keepdims=True)
    np.testing.assert_allclose(jax.nn.sigmoid(run(features)), shares[:, 1], rtol=1e-3)
    label, pictures = jnp.array([0, 1, 1]), jnp.full((3, 4, 4, 1), 0.25)
    drawn = run(v, label, method="reconstruct")
    other = run(v.at[0, 1].set(9.0), label, method="reconstruct")  # not seen where the label is 0
    np.testing.assert_array_equal(drawn[0], other[0])
    loss, logit = run(features, pictures, label, method="loss")
    wanted = capsnet.margin_loss(capsnet.length(v), label) + 0.0005 * jnp.sum((drawn - 0.25) ** 2, 1)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(logit, run(features), rtol=1e-5)
