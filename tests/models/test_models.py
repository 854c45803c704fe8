import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesion import models, trees
from lesion.errors import UserError
from lesion.models import layers
from lesion.models.head import Head

GOLDENS = Path(__file__).parents[1] / "goldens"
sys.path.insert(0, str(GOLDENS))
import weights as seeded  # noqa: E402

KEY = jax.random.key(0)
# name: channels in, out, kernel, stride, groups, side, padding
CONVS = {
    "pointwise": (6, 5, 1, 1, 1, 9, "same"),
    "pointwise, stride 2": (6, 5, 1, 2, 1, 8, "same"),
    "pointwise, many rows": (5, 6, 1, 1, 1, 68, "same"),
    "pointwise, many rows, fewer channels": (6, 5, 1, 1, 1, 68, "same"),
    "depthwise 3": (6, 6, 3, 1, 6, 9, "same"),
    "depthwise 3, stride 2, even": (6, 6, 3, 2, 6, 8, "same"),
    "depthwise 5, stride 2, odd": (6, 6, 5, 2, 6, 9, "same"),
    "dense 3": (6, 5, 3, 1, 1, 7, "same"),
    "dense 3, stride 2": (6, 5, 3, 2, 1, 8, "same"),
    "stem of ResNet": (3, 8, 7, 2, 1, 12, ((3, 3), (3, 3))),
    "stem of AlexNet": (3, 8, 11, 4, 1, 23, ((2, 2), (2, 2))),
    "unpadded, stride 2": (6, 5, 3, 2, 1, 9, ((0, 0), (0, 0))),
    "two groups": (6, 4, 3, 1, 2, 7, ((1, 1), (1, 1))),
    "line": (6, 5, (1, 7), 1, 1, 9, ((0, 0), (3, 3))),
}


@pytest.mark.parametrize("case", CONVS.values(), ids=CONVS)
def test_both_forms_of_a_convolution_agree_forward_and_backward(case, rng):
    inputs, features, k, stride, groups, side, padding = case
    x = rng.standard_normal((2, side, side, inputs), np.float32)
    kernel_size = k if isinstance(k, tuple) else (k, k)
    kernel = rng.standard_normal((*kernel_size, inputs // groups, features), np.float32)
    kernel /= np.sqrt(kernel[..., 0].size, dtype=np.float32)

    def run(form):
        conv = layers.Conv(features, kernel_size, stride, padding, groups, form=form)

        def loss(variables, x):
            out = conv.apply(variables, x)
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))({"params": {"kernel": kernel}}, x)

    with jax.default_matmul_precision("highest"):
        for a, b in zip(jax.tree.leaves(run("lax")), jax.tree.leaves(run("products")), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


POOLS = {
    "max": lambda x, form: layers.max_pool(x, 3, 2, layers.even_padding(1), form),
    "max, unpadded": lambda x, form: layers.max_pool(x, 3, 2, form=form),
    "mean of torch": lambda x, form: layers.mean_pool(x, 3, 1, layers.even_padding(1), True, form),
    "mean of Keras": lambda x, form: layers.mean_pool(x, 3, 1, layers.even_padding(1), False, form),
}


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_both_forms_of_a_pool_agree_forward_and_backward(pool, side, rng):
    x = rng.standard_normal((2, side, side, 3), np.float32)
    run = lambda form: jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(pool(x, form)))))(x)  # noqa: E731
    for a, b in zip(jax.tree.leaves(run("lax")), jax.tree.leaves(run("products")), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_pools_by_hand():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    assert layers.mean_pool(x, 3, 1, layers.even_padding(1), True)[0, 0, 0, 0] == pytest.approx(8 / 9)
    assert layers.mean_pool(x, 3, 1, layers.even_padding(1), False)[0, 0, 0, 0] == pytest.approx(2)
    assert layers.max_pool(-x, 3, 2, layers.even_padding(1))[0, ..., 0].tolist() == [[0, -1], [-3, -4]]
    cells = layers.adaptive_mean_pool(jnp.arange(7.0).reshape(1, 7, 1, 1) * jnp.ones((1, 7, 7, 1)), 6)
    np.testing.assert_allclose(cells[0, :, 0, 0], [0.5, 1.5, 2.5, 3.5, 4.5, 5.5])  # torch's cells overlap


def test_response_normalisation_by_hand():
    x = jnp.full((1, 1, 1, 6), 2.0)
    got = layers.local_response_norm(x, size=5, alpha=0.5, beta=0.75, k=1.0)[0, 0, 0]
    np.testing.assert_allclose(got, [2 * (1 + 0.1 * 4 * n) ** -0.75 for n in (3, 4, 5, 5, 4, 3)], rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_batch_normalisations_gradient_is_that_of_the_plain_formula(masked, rng):
    x = rng.standard_normal((6, 5, 5, 7), np.float32) * 2 + 1
    mask = np.arange(6) < 4 if masked else None
    norm = layers.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-3)
    params = {"scale": np.linspace(0.5, 2, 7, dtype=np.float32), "bias": np.linspace(-1, 1, 7, dtype=np.float32)}
    stats = jax.jit(norm.init)(KEY, x)["batch_stats"]

    def ours(params, x):
        return norm.apply({"params": params, "batch_stats": stats}, x, mask, mutable=["batch_stats"])[0]

    def plain(params, x):
        counted = x[:4] if masked else x
        mean, var = counted.mean((0, 1, 2)), counted.var((0, 1, 2))
        return (x - mean) / jnp.sqrt(var + 1e-3) * params["scale"] + params["bias"]

    weight = np.cos(np.arange(x.size, dtype=np.float32)).reshape(x.shape)
    run = lambda f: jax.jit(jax.grad(lambda p, x: jnp.sum(weight * jnp.sin(f(p, x))), (0, 1)))(params, x)  # noqa: E731
    for a, b in zip(jax.tree.leaves(run(ours)), jax.tree.leaves(run(plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_same_padding_puts_the_odd_pixel_last():
    assert layers.same_padding((224, 224), (3, 3), 2) == ((0, 1), (0, 1))
    assert layers.same_padding((7, 9), (5, 3), 1) == ((2, 2), (1, 1))


@pytest.mark.parametrize("name", models.MODELS)
def test_every_row_of_the_registry_is_what_it_says(name):
    spec = models.get_spec(name)
    images = jax.ShapeDtypeStruct((2, spec.input_size, spec.input_size, 3), jnp.float32)
    for num_classes, width in ((1000, 1000), (None, spec.feature_width)):
        model = models.get_model(name, num_classes)
        out, variables = jax.eval_shape(model.init_with_output, KEY, images)
        assert out.shape == (2, width)
        if num_classes:
            assert trees.num_params(variables["params"]) == spec.num_params


# torchvision's inception weights want [-1, 1], which torch's mean and deviation with transform_input give as well.
PREPROCESSED = {"resnet50": "torch", "resnet50_v1": "caffe", "inception_v3_keras": "tf", "inception_v3": "tf"}


@pytest.mark.parametrize(("name", "mode"), PREPROCESSED.items(), ids=PREPROCESSED)
def test_preprocessing_is_keras_own(name, mode):
    wanted = np.load(GOLDENS / "keras.npz")[f"preprocess/{mode}"]
    pixels = seeded.uint8_images(0, 16).astype(np.float32)
    np.testing.assert_allclose(models.get_spec(name).preprocess(jnp.asarray(pixels)), wanted, atol=2e-5)


def test_torch_normalisation_and_transform_input_are_the_tf_mode():
    pixels = jnp.asarray(seeded.uint8_images(0, 80), jnp.float32)
    plain, transforming = (models.get_model("inception_v3", transform_input=t) for t in (False, True))
    stem = functools.partial(jax.jit, static_argnames="stop")
    variables = stem(plain.init)(KEY, pixels, stop="Conv2d_1a_3x3")
    one = stem(plain.apply)(variables, models.keras_tf(pixels), stop="Conv2d_1a_3x3")
    other = stem(transforming.apply)(variables, models.torchvision_mean_std(pixels), stop="Conv2d_1a_3x3")
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", models.MODELS)
def test_grey_slices_become_three_channels(name):
    out = models.preprocess(name, jnp.full((1, 2, 2), 255, jnp.uint8))
    assert out.shape == (1, 2, 2, 3) and out.dtype == jnp.float32


@pytest.mark.parametrize("name", models.MODELS)
def test_every_stage_is_reachable_and_gradients_stop_below_it(name):
    side = 224
    images, names = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32), models.stage_names(name)
    model = models.get_model(name, None)
    variables = jax.eval_shape(model.init, KEY, images)
    x = images
    for before, stage in zip((None, *names), names, strict=False):
        x = jax.eval_shape(functools.partial(model.apply, start=before, stop=stage), variables, x)
    assert x.size == models.get_spec(name).feature_width
    owners = set(variables["params"])
    assert owners <= set(names), "a module with parameters that is no stage could not be frozen by name"


def test_a_stage_name_stands_for_all_that_it_begins():
    model = models.get_model("resnet50", None)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(model.init, KEY, images)
    run = lambda **names: jax.eval_shape(functools.partial(model.apply, **names), variables, images).shape  # noqa: E731
    assert run(stop="layer3") == run(stop="layer3_5") == (1, 4, 4, 1024)
    with pytest.raises(ValueError, match="no stage 'layer9': choose one of conv1"):
        run(stop="layer9")
    with pytest.raises(ValueError, match="'layer1' comes before 'layer2'"):
        run(start="layer2", stop="layer1")


def test_an_unknown_backbone_is_one_line_with_the_known_ones():
    with pytest.raises(UserError, match="no backbone 'resnet99': choose one of alexnet, "):
        models.get_model("resnet99")


def test_the_papers_head():
    out, variables = jax.eval_shape(Head().init_with_output, KEY, jax.ShapeDtypeStruct((3, 1280), jnp.float32))
    assert trees.num_params(variables["params"]) == 1280 * 512 + 512 + 512 * 256 + 256 + 256 + 1
    assert out.shape == (3,)
