import os

import pytest

# Before JAX is imported: dtype promotion is an error everywhere in the tests.
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_PLATFORMS"] = "cpu"

SEED = 20201122


@pytest.fixture
def rng():
    import numpy as np

    return np.random.default_rng(SEED)
