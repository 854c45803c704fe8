"""Statistics of the output of every stage of a network for one slice."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lesion import models
from lesion.inference.trained_run import FoldVariables, TrainedRun


class Activations(NamedTuple):
    """Statistics of the output of one stage.

    Attributes:
        stage: name of the stage.
        shape: shape of the output, (h, w, C) or (D,).
        mean: mean of all elements.
        spread: their standard deviation.
        largest: their largest magnitude.
        zeros: share of elements that are 0; after a ReLU, the inactive ones.
        dead: share of channels that are 0 everywhere.
        not_finite: number of NaN or infinite elements.
    """

    stage: str
    shape: tuple[int, ...]
    mean: float
    spread: float
    largest: float
    zeros: float
    dead: float
    not_finite: int


def measure_stages(run: TrainedRun, variables: FoldVariables, image: np.ndarray) -> list[Activations]:
    """Measures each stage of the backbone up to its last map on one slice, uint8 [S, S], as one program."""
    assert image.ndim == 2, image.shape
    backbone, shapes, model = run.config.backbone, dict[str, tuple[int, ...]](), run.network.backbone
    stages = models.map_stages(backbone)
    assert model is not None

    @jax.jit
    def run_stages(variables: Any, image: jax.Array) -> dict[str, tuple[jax.Array, ...]]:
        measured: dict[str, tuple[jax.Array, ...]] = {}
        x, before = models.preprocess(backbone, image[None]).astype(run.config.dtype), None
        for stage in stages:
            x, before = jnp.asarray(model.apply(variables, x, start=before, stop=stage)), stage
            shapes[stage] = x.shape[1:]
            values = x[0].astype(jnp.float32)
            by_channel = jnp.abs(values).reshape(-1, values.shape[-1]).max(0)
            numbers = values.mean(), values.std(), jnp.abs(values).max(), (values == 0).mean(), (by_channel == 0).mean()
            measured[stage] = (*numbers, jnp.sum(~jnp.isfinite(values)))
        return measured

    measured = jax.device_get(run_stages(variables.backbone, image))
    return [Activations(stage, shapes[stage], *(x.item() for x in measured[stage])) for stage in stages]
