import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesion.train import augment

GOLDENS = np.load("tests/goldens/pil.npz")
IMAGE = jnp.asarray(GOLDENS["input64_gray"])
FACTORS = (0.5, 0.8, 1.0, 1.3, 1.7)
ENHANCERS = [(name, factor) for name in ("contrast", "brightness", "sharpness") for factor in FACTORS]


@pytest.mark.parametrize(("name", "factor"), ENHANCERS)
def test_enhancers_equal_pillow(name, factor):
    function = getattr(augment, name)
    expected = GOLDENS[f"{name}_{factor}"][..., 0]
    for f in (function, jax.jit(function)):
        np.testing.assert_array_equal(f(IMAGE, jnp.float32(factor)), expected)
    batched = jax.vmap(function)(jnp.stack([IMAGE, IMAGE[::-1]]), jnp.full(2, factor, jnp.float32))
    np.testing.assert_array_equal(batched[0], expected)


@pytest.mark.parametrize("angle", [7, -7, 15, -15, 33])
def test_rotation_is_within_a_grey_level_of_pillow(angle):
    found = np.asarray(jax.jit(augment.rotate)(IMAGE, jnp.float32(angle))).astype(int)
    difference = np.abs(found - GOLDENS[f"rotate_{angle}_bilinear"][..., 0])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_copies_are_four_different_operations_and_a_function_of_the_key():
    keys = augment.slice_keys(jax.random.key(0), np.array(["a", "b"]))
    copies = jax.jit(jax.vmap(augment.augment, (None, None, 0)))(keys[0], IMAGE, jnp.arange(5))
    np.testing.assert_array_equal(copies[0], IMAGE)
    assert len({np.asarray(c).tobytes() for c in copies}) == 5
    one = jax.jit(augment.augment)
    np.testing.assert_array_equal(copies[3], one(keys[0], IMAGE, 3))
    assert not np.array_equal(copies[3], one(keys[1], IMAGE, 3))
    turned = augment.slice_keys(jax.random.key(0), np.array(["b", "a"]))
    np.testing.assert_array_equal(jax.random.key_data(keys[0]), jax.random.key_data(turned[1]))
