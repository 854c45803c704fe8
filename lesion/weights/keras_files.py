"""Keras checkpoints: `.weights.h5`, `.keras`, and the older `.h5` of whole models or of weights alone.

All arrays are returned as `layer/leaf` (`conv1_conv/kernel`), with the leaves kernel, bias, gamma, beta, moving_mean
and moving_variance, whatever the file calls them. The layouts are taken from files that Keras 3.15 wrote and, for those
of the published files, from Keras' source.
"""

import io
import itertools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

# Keras 1 names. Its `running_std` holds the variance.
LEAVES = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
KNOWN_LEAVES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
# The leaves that `vars/0`, `vars/1`, ... hold, by class of the layer and number of arrays.
VARIABLES = {
    ("conv2d", 1): ("kernel",),
    ("conv2d", 2): ("kernel", "bias"),
    ("dense", 2): ("kernel", "bias"),
    ("batch_normalization", 3): ("beta", "moving_mean", "moving_variance"),
    ("batch_normalization", 4): ("gamma", "beta", "moving_mean", "moving_variance"),
}


def read_zip(path: Path) -> dict[str, np.ndarray]:
    """Reads the `.weights.h5` inside a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        return read_hdf5(io.BytesIO(archive.read("model.weights.h5")))


def read_hdf5(source: Path | BinaryIO) -> dict[str, np.ndarray]:
    """Reads any of Keras' HDF5 layouts; returns {layer/leaf: array}, kernels in the order kh, kw, I, O."""
    with h5py.File(source, "r") as file:
        if "layers" in file:
            return dict(_read_numbered(file["layers"]))
        group = file["model_weights"] if "model_weights" in file and "layer_names" not in file.attrs else file
        return dict(_read_named(group))


def _read_numbered(layers: h5py.Group) -> Iterator[tuple[str, np.ndarray]]:
    """Reads Keras 3's layout, where groups are numbered by class and depth and `vars` has the layer's name."""
    for group_name, group in layers.items():
        variables = group.get("vars", {})
        if not len(variables):
            continue
        kind = re.sub(r"_\d+$", "", group_name)
        if (kind, len(variables)) not in VARIABLES:
            raise ValueError(
                f"layer {group_name} has {len(variables)} arrays: none of the backbones here has such a layer"
            )
        layer = variables.attrs["name"]
        layer = layer.decode() if isinstance(layer, bytes) else str(layer)
        for i, leaf in enumerate(VARIABLES[kind, len(variables)]):
            yield f"{layer}/{leaf}", variables[str(i)][()]


def _read_names(group: h5py.Group, name: str) -> list[str]:
    """Returns the names in an attribute, which Keras splits into `name0`, `name1`, ... where it would be too long."""
    numbered = itertools.takewhile(group.attrs.__contains__, (f"{name}{i}" for i in itertools.count()))
    parts = [name] if name in group.attrs else list(numbered)
    if not parts:
        raise ValueError(f"the group {group.name} has no attribute {name}: not a file of Keras")
    values = [value for part in parts for value in group.attrs[part]]
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _read_named(group: h5py.Group) -> Iterator[tuple[str, np.ndarray]]:
    """Reads the older layout of Keras 1, 2 and 3, where every layer lists its weights' names."""
    for layer in _read_names(group, "layer_names"):
        for name in _read_names(group[layer], "weight_names"):
            leaf = name.rpartition("/")[2].partition(":")[0].removeprefix(f"{layer}_")
            leaf = LEAVES.get(leaf, leaf)
            if leaf not in KNOWN_LEAVES:
                raise ValueError(
                    f"the layer {layer} has an array {name!r}: none of the backbones here has such a layer"
                )
            yield f"{layer}/{leaf}", group[layer][name][()]
