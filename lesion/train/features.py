"""Features of every slice and its augmented copies, computed once and kept on disk."""

import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lesion import models
from lesion.data import Slices, augment
from lesion.progress import track

VERSION = 1  # raised whenever the numbers change for the same key
BATCH_SIZE = 32


def _key(slices: Slices, backbone: str, weights_sha256: str, num_copies: int, seed: int) -> str:
    digest = hashlib.sha256()
    made_of = [VERSION, backbone, weights_sha256, num_copies, seed, augment.FACTORS, augment.MAX_ANGLE_DEG]
    digest.update(json.dumps(made_of).encode())
    for slice_id in slices.slice_id:
        digest.update(str(slice_id).encode())
    digest.update(np.ascontiguousarray(slices.image).tobytes())
    return digest.hexdigest()[:24]


@functools.cache  # the same function for every sequence: compiled once
def _features_of(backbone: str) -> Callable[..., jax.Array]:
    model = models.get_model(backbone, num_classes=None)

    @jax.jit
    def features_of(variables: Any, keys: jax.Array, image: jax.Array, copy: jax.Array) -> jax.Array:
        # One at a time, so that only the operation drawn is computed and not all six.
        image = jax.lax.map(lambda x: augment.augment(*x), (keys, image, copy))
        return model.apply(variables, models.preprocess(backbone, image))  # type: ignore[return-value]

    return features_of


def _compute(slices: Slices, backbone: str, variables: dict, num_copies: int, seed: int, stage: str) -> np.ndarray:
    features_of = _features_of(backbone)
    keys = augment.slice_keys(jax.random.key(seed), slices.slice_id)
    n, copies = len(slices.label), 1 + num_copies
    rows, copy = np.divmod(np.arange(n * copies), copies)
    out = np.empty((n * copies, models.get_spec(backbone).feature_width), np.float32)
    starts = range(0, n * copies, BATCH_SIZE)
    variables = jax.device_put(variables)
    for start in track(stage, starts, len(starts)):
        # The last batch begins earlier instead of being smaller: one shape, one compilation.
        at = slice(max(0, min(start, n * copies - BATCH_SIZE)), min(start + BATCH_SIZE, n * copies))
        out[at] = features_of(variables, keys[rows[at]], slices.image[rows[at]], jnp.asarray(copy[at]))
    return out.reshape(n, copies, -1)


def load_or_compute(
    cache_dir: Path,
    slices: Slices,
    backbone: str,
    variables: dict,
    weights_sha256: str,
    *,
    num_copies: int,
    seed: int,
    stage: str,
) -> np.ndarray:
    """A backbone's features of the slices and their copies.

    Args:
        cache_dir: where they are kept, in a file named by everything they depend on.
        slices: N of them.
        backbone: a row of `models.MODELS`.
        variables: its weights.
        weights_sha256: their hash.
        num_copies: augmented copies a slice.
        seed: of the augmentation.
        stage: shown with the progress.

    Returns:
        float32 [N, 1 + num_copies, D]; [:, 0] are the slices themselves.
    """
    path = cache_dir / f"{_key(slices, backbone, weights_sha256, num_copies, seed)}.npy"
    if path.exists():
        return np.load(path)
    features = _compute(slices, backbone, variables, num_copies, seed, stage)
    cache_dir.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npy")
    try:
        np.save(temporary, features)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return features
