import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesion import models, trees
from lesion.errors import UserError
from lesion.models import preprocessing

GOLDENS = Path(__file__).parents[1] / "goldens"
sys.path.insert(0, str(GOLDENS))
import weights as seeded  # noqa: E402

KEY = jax.random.key(0)


@pytest.mark.slow
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
    pixels = jnp.asarray(seeded.uint8_images(0, 16), jnp.float32)
    mean, std = np.float32(preprocessing.TORCH_MEAN), np.float32(preprocessing.TORCH_STD)
    transformed = preprocessing.torchvision_mean_std(pixels) * (std / 0.5) + (mean - 0.5) / 0.5
    np.testing.assert_allclose(preprocessing.keras_tf(pixels), transformed, atol=1e-5)


@pytest.mark.parametrize("name", models.MODELS)
def test_grey_slices_become_three_channels(name):
    out = models.preprocess(name, jnp.full((1, 2, 2), 255, jnp.uint8))
    assert out.shape == (1, 2, 2, 3) and out.dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", models.MODELS)
def test_every_stage_is_reachable_and_gradients_stop_below_it(name):
    images, names = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32), models.stage_names(name)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", [*models.MODELS, *models.BASELINES])
def test_random_weights_keep_the_scale_of_the_input_in_every_stage(name, rng):
    spec, model = models.get_spec(name), models.get_model(name, None)
    side = spec.input_size if spec.resized else 96
    images = models.preprocess(name, jnp.asarray(rng.integers(0, 256, (2, side, side), np.uint8)))

    def scales(key, x):
        variables, before, found = model.init(key, jnp.zeros((1, *images.shape[1:])), stop=spec.last_map), None, []
        for stage in models.map_stages(name):
            x, before = model.apply(variables, x, start=before, stop=stage), stage
            found.append(jnp.sqrt(jnp.mean(jnp.square(x))))
        return jnp.stack(found)

    fast = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # to compile
    ratio = jax.jit(scales, compiler_options=fast)(KEY, images) / jnp.sqrt(jnp.mean(jnp.square(images)))
    assert 0.1 < ratio.min() and ratio.max() < 10, dict(zip(models.map_stages(name), ratio.tolist(), strict=True))


def test_an_unknown_backbone_is_one_line_with_the_others():
    with pytest.raises(UserError, match="no backbone 'resnet99': choose one of alexnet, "):
        models.get_model("resnet99")
