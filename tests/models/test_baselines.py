import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesion import models, trees
from lesion.models import preprocessing

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
    """Shapes of a batch of images, of the features, and of the variables that give them."""
    spec = models.get_spec(name)
    images = jax.ShapeDtypeStruct((2, spec.input_size, spec.input_size, spec.channels), jnp.float32)
    return images, *jax.eval_shape(models.get_model(name, None).init_with_output, KEY, images)


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
    assert models.baseline_table()[name]["guesses"] == row.guesses


@pytest.mark.parametrize("name", ["cnn_f", "cnn_f_svm"])
def test_cnn_f_has_the_published_parameters_at_1000_classes(name):
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    logits, variables = jax.eval_shape(models.get_model(name).init_with_output, KEY, images)
    assert logits.shape == (2, 1000)
    assert trees.num_params(variables["params"]) == models.get_spec(name).num_params == 60_834_536


@pytest.mark.parametrize("name", models.BASELINES)
def test_every_stage_is_reachable_and_every_module_with_parameters_is_one(name):
    x, _, variables = shapes(name)
    model, names = models.get_model(name, None), models.stage_names(name)
    for before, stage in zip((None, *names), names, strict=False):
        x = jax.eval_shape(functools.partial(model.apply, start=before, stop=stage), variables, x)
    assert models.get_spec(name).last_map == names[-1]
    assert x.size == 2 * models.get_spec(name).feature_width and set(variables["params"]) <= set(names)


@pytest.mark.parametrize("name", models.BASELINES)
def test_slices_of_any_size_become_its_images(name):
    spec = models.get_spec(name)
    out = models.preprocess(name, jnp.full((1, 16, 16), 255, jnp.uint8))
    assert out.shape == (1, spec.input_size, spec.input_size, spec.channels) and out.dtype == jnp.float32
    white = 255 - np.array(preprocessing.MEAN_RGB) if spec.channels == 3 else 1.0
    np.testing.assert_allclose(out[0, 8, 8], np.broadcast_to(white, spec.channels), rtol=1e-4)


def test_cnn_f_with_dense_layers_as_stages_is_the_same_network():
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    plain, staged = (models.get_model(name) for name in ("cnn_f", "cnn_f_svm"))
    variables = jax.eval_shape(plain.init, KEY, images)
    programs = [str(jax.make_jaxpr(model.apply)(variables, images)) for model in (plain, staged)]
    assert programs[0] == programs[1] and "dot_general" in programs[0]
