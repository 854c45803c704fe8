import jax.numpy as jnp
import numpy as np
import pytest

from lesion.inspect import measure


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.int32, np.bool_])
def test_measures_are_numpys_whatever_the_chunks(dtype, rng, monkeypatch):
    array = (rng.normal(size=(7, 9)) * 4 + 100).astype(dtype)
    wide = array.astype(np.float64)
    monkeypatch.setattr(measure, "CHUNK", 10)
    np.testing.assert_allclose(measure.measure(array), (wide.mean(), wide.std(), np.linalg.norm(wide), 0), rtol=1e-12)
    other = np.roll(array, 1)
    gap = np.abs(wide - other.astype(np.float64))
    expected = np.linalg.norm(gap) / np.linalg.norm(wide), gap.max()
    np.testing.assert_allclose(measure.difference(array, other), expected, rtol=1e-12)
    assert measure.difference(array, array) == (0, 0)
