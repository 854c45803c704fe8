import os

import pytest

# Before JAX is imported: dtype promotion is an error everywhere in the tests.
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_PLATFORMS"] = "cpu"

SEED = 20201122


def pytest_collection_modifyitems(items):
    """The files with slow tests first: the workers end together."""
    slow = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def rng():
    import numpy as np

    return np.random.default_rng(SEED)
