import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesion import models, trees
from lesion.errors import UserError
from lesion.models import layers
from lesion.models.head import Head

KEY = jax.random.key(0)
# name: channels in, out, kernel, stride, depthwise, side
CONVS = {
    "pointwise": (6, 5, 1, 1, False, 9),
    "pointwise, stride 2": (6, 5, 1, 2, False, 8),
    "depthwise 3": (6, 6, 3, 1, True, 9),
    "depthwise 3, stride 2, even": (6, 6, 3, 2, True, 8),
    "depthwise 5, stride 2, odd": (6, 6, 5, 2, True, 9),
    "dense 3": (6, 5, 3, 1, False, 7),
    "dense 3, stride 2": (6, 5, 3, 2, False, 8),
}


@pytest.mark.parametrize("case", CONVS.values(), ids=CONVS)
def test_both_forms_of_a_convolution_agree_forward_and_backward(case):
    inputs, features, k, stride, depthwise, side = case
    x = jax.random.normal(KEY, (2, side, side, inputs))

    def run(form):
        conv = layers.Conv(features, (k, k), stride, depthwise, form)
        variables = layers.Conv(features, (k, k), stride, depthwise).init(KEY, x)
        loss = lambda v, x: jnp.sum(jnp.sin(conv.apply(v, x)))  # noqa: E731
        return conv.apply(variables, x), *jax.jit(jax.grad(loss, (0, 1)))(variables, x)

    with jax.default_matmul_precision("highest"):
        for a, b in zip(jax.tree.leaves(run("lax")), jax.tree.leaves(run("products")), strict=True):
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


def test_preprocessing_of_lite():
    out = models.preprocess("efficientnet_lite0", jnp.full((1, 2, 2), 255, jnp.uint8))
    assert out.shape == (1, 2, 2, 3)
    np.testing.assert_allclose(out, 1.0)


def test_an_unknown_backbone_is_one_line_with_the_known_ones():
    with pytest.raises(UserError, match="no backbone 'resnet99': choose one of efficientnet_lite0"):
        models.get_model("resnet99")


def test_the_papers_head():
    variables = Head().init(KEY, jnp.zeros((3, 1280)))
    assert trees.num_params(variables["params"]) == 1280 * 512 + 512 + 512 * 256 + 256 + 256 + 1
    assert Head().apply(variables, jnp.zeros((3, 1280))).shape == (3,)
