"""Features, or a stage's activations, of every slice and its augmented copies: computed once and kept on disk."""

import contextlib
import functools
import hashlib
import io
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from filelock import FileLock, Timeout

from lesion import files, models
from lesion.dataset import Slices
from lesion.errors import UserError
from lesion.progress import track
from lesion.runs import processes
from lesion.train import augment
from lesion.train.forward import over_rows
from lesion.train.network import pool_features

BATCH_SIZE = 32


class FeatureSpec(NamedTuple):
    """A backbone's output to compute, and in which form.

    Attributes:
        backbone: name of a backbone in `models.MODELS`.
        stop: name of the stage whose output is taken.
        pooling: see `network.pool_features`; empty leaves the output as it is.
        dtype: data type of the arithmetic, and of an output that is left as it is; what is pooled is float32.
    """

    backbone: str
    stop: str
    pooling: str
    dtype: str = "float32"


def last_map_spec(backbone: str, pooling: str = "") -> FeatureSpec:
    """Returns the spec of the features before the classifier; an empty `pooling` means the backbone's own."""
    spec = models.get_spec(backbone)
    return FeatureSpec(backbone, spec.last_map, pooling or spec.pooling)


@functools.cache  # returns the same function for every sequence, so that it is compiled once
def _feature_function(spec: FeatureSpec) -> jax.stages.Wrapped:
    model = models.get_model(spec.backbone, num_classes=None)

    @jax.jit
    def features_of(variables: Any, keys: jax.Array, image: jax.Array, copy: jax.Array) -> jax.Array:
        # One picture at a time: under `vmap` the switch would compute all six operations for each.
        image = jax.lax.map(lambda x: augment.augment(*x), (keys, image, copy))
        x = models.preprocess(spec.backbone, image).astype(spec.dtype)
        x = model.apply(variables, x, stop=spec.stop)  # type: ignore[assignment]
        return pool_features(x, spec.pooling) if spec.pooling else x

    return features_of


def _path(
    cache_dir: Path, slices: Slices, spec: FeatureSpec, variables: dict, weights_sha256: str, num_copies: int, seed: int
) -> Path:
    """Returns the path of the features' file, whose name is a hash of all that the numbers depend on.

    The program's text holds the preprocessing, the augmentation, the form of each layer, and all types and precisions.
    """
    keys = jax.ShapeDtypeStruct((BATCH_SIZE,), jax.random.key(seed).dtype)
    image = jax.ShapeDtypeStruct((BATCH_SIZE, *slices.image.shape[1:]), slices.image.dtype)
    copy = jax.ShapeDtypeStruct((BATCH_SIZE,), np.int32)
    program = _feature_function(spec).lower(variables, keys, image, copy).as_text()
    machine = [jax.devices()[0].device_kind, jax.__version__, jaxlib.__version__]
    digest = hashlib.sha256(json.dumps([program, machine, weights_sha256, num_copies, seed]).encode())
    for slice_id in slices.slice_id:
        digest.update(str(slice_id).encode())
    digest.update(np.ascontiguousarray(slices.image).tobytes())
    return cache_dir / f"{digest.hexdigest()[:24]}.npy"


def _compute(
    path: Path, slices: Slices, spec: FeatureSpec, variables: dict, num_copies: int, seed: int, stage: str
) -> None:
    """Appends to the file batch by batch, as activations may exceed memory; resumes what a killed run left."""
    features_of = _feature_function(spec)
    keys = augment.slice_keys(jax.random.key(seed), slices.slice_id)
    n, copies = len(slices.label), 1 + num_copies
    variables = jax.device_put(variables)

    def compute(examples: np.ndarray) -> jax.Array:
        rows, copy = np.divmod(examples, copies)
        return features_of(variables, keys[rows], slices.image[rows], jnp.asarray(copy))

    example = jax.eval_shape(features_of, variables, keys[:1], slices.image[:1], jnp.zeros(1, jnp.int32))
    # The .npy format does not know bfloat16: its bytes are stored as uint16.
    dtype = np.dtype(np.uint16) if example.dtype == jnp.bfloat16 else np.dtype(example.dtype)
    num_bytes = dtype.itemsize * math.prod(example.shape[1:])
    header = io.BytesIO()
    array_info = {"descr": dtype.str, "fortran_order": False, "shape": (n, copies, *example.shape[1:])}
    np.lib.format.write_array_header_2_0(header, array_info)
    with open(path, "ab") as file:
        if file.tell() < header.tell():
            file.truncate(0)
            file.write(header.getvalue())
        done = (file.tell() - header.tell()) // (num_bytes * BATCH_SIZE) * BATCH_SIZE
        file.truncate(header.tell() + done * num_bytes)
        batches = over_rows(compute, range(done, n * copies), BATCH_SIZE)
        for _, features in track(stage, batches, math.ceil((n * copies - done) / BATCH_SIZE)):
            file.write(np.asarray(features).view(dtype).tobytes())


@contextlib.contextmanager
def _lock(path: Path, stage: str) -> Iterator[None]:
    """Holds the lock of a features file; waits while another run computes the same features."""
    lock = FileLock(path.with_name(f".{path.stem}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"{stage}: another run computes them, waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _checksum(path: Path) -> Path:
    """Returns the path of the file that holds a features file's SHA-256."""
    return path.with_suffix(".sha256")


def _is_whole(path: Path) -> bool:
    """Returns whether a features file is there and has the content that was written."""
    return path.exists() and _checksum(path).exists() and _checksum(path).read_bytes() == files.sha256(path).encode()


def check_writable(cache_dir: Path, *key: Any) -> None:
    """Raises a one-line `UserError` if features are to be computed, and their folder may not be written.

    Args:
        cache_dir: folder of the files; need not exist.
        *key: further arguments of `load_or_compute`, up to `seed`.
    """
    existing = next(folder for folder in (cache_dir, *cache_dir.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK) and not _path(cache_dir, *key).exists():
        raise UserError(
            f"{existing} may not be written, and features are kept in {cache_dir}: copy the dataset to a folder of "
            "yours and name that with --data"
        )


def load_or_compute(
    cache_dir: Path,
    slices: Slices,
    spec: FeatureSpec,
    variables: dict,
    weights_sha256: str,
    num_copies: int,
    seed: int,
    *,
    stage: str,
) -> np.ndarray:
    """Returns a backbone's output for the slices and their augmented copies, computed once; again if it was damaged.

    Args:
        cache_dir: folder of the files, each named by a hash of everything its numbers depend on; it need not be
            writable for those that are there.
        slices: N slices.
        spec: the output to compute.
        variables: variables of the backbone.
        weights_sha256: hash of the variables.
        num_copies: number of augmented copies of each slice.
        seed: seed of the augmentation.
        stage: name in the progress display.

    Returns:
        [N, 1 + num_copies, ...], memory-mapped, float32 or of the spec's dtype (see there); [:, 0] is of the slices
        themselves.
    """
    path = _path(cache_dir, slices, spec, variables, weights_sha256, num_copies, seed)
    if processes.is_first() and not _is_whole(path):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _lock(path, stage):
            if not _is_whole(path):  # another run may have computed them meanwhile
                if path.exists():
                    print(f"{stage}: {path} is damaged and computed again", file=sys.stderr, flush=True)
                partial = path.with_name(f".{path.stem}.partial")
                _compute(partial, slices, spec, variables, num_copies, seed, stage)
                files.write_text(_checksum(path), files.sha256(partial))
                partial.replace(path)
    processes.wait_for_all(f"features {path.stem}")
    features = np.load(path, mmap_mode="r")
    return features.view(jnp.bfloat16) if features.dtype == np.uint16 else features
