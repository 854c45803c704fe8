"""Every primitive of the networks in bfloat16: no sum over batch and place may run in it."""

import pytest

from lesion.benchmarks import numerics


@pytest.mark.slow
@pytest.mark.parametrize("name", numerics.PRIMITIVES)
def test_outputs_and_gradients_are_those_of_float32(name):
    errors = numerics.errors(name)
    assert len(errors) > 1 and max(errors.values()) < numerics.LIMIT, errors
