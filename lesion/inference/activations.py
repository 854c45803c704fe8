"""What every stage of a network gives for one slice, in numbers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lesion import models
from lesion.inference.trained_run import Trained


class Activations(NamedTuple):
    """Of one stage's output.

    Attributes:
        stage: its name.
        shape: [h, w, C] or [D].
        mean: of all elements.
        spread: their standard deviation.
        largest: their largest magnitude.
        zeros: share of them that is 0, after a ReLU those that are off.
        dead: share of the channels that are 0 everywhere.
        not_finite: how many are NaN or infinite.
    """

    stage: str
    shape: tuple[int, ...]
    mean: float
    spread: float
    largest: float
    zeros: float
    dead: float
    not_finite: int


def look(run: Trained, variables: dict, image: np.ndarray) -> list[Activations]:
    """Runs one slice, uint8 [S, S], through the backbone up to its last map, stage by stage, as one program."""
    assert image.ndim == 2, image.shape
    backbone, shapes = run.config.backbone, dict[str, tuple[int, ...]]()
    names = models.map_stages(backbone)

    @jax.jit
    def through(variables: Any, image: jax.Array) -> dict[str, tuple[jax.Array, ...]]:
        found: dict[str, tuple[jax.Array, ...]] = {}
        x, before = models.preprocess(backbone, image[None]).astype(run.config.dtype), None
        for name in names:
            x, before = jnp.asarray(run.model.apply(variables, x, start=before, stop=name)), name
            shapes[name] = x.shape[1:]
            wide = x[0].astype(jnp.float32)
            by_channel = jnp.abs(wide).reshape(-1, wide.shape[-1]).max(0)
            parts = wide.mean(), wide.std(), jnp.abs(wide).max(), (wide == 0).mean(), (by_channel == 0).mean()
            found[name] = (*parts, jnp.sum(~jnp.isfinite(wide)))
        return found

    found = jax.device_get(through(variables, image))
    return [
        Activations(name, shapes[name], float(mean), float(spread), float(largest), float(zeros), float(dead), int(bad))
        for name, (mean, spread, largest, zeros, dead, bad) in ((name, found[name]) for name in names)
    ]
