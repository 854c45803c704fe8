"""Keras checkpoints: `.weights.h5`, `.keras`, and the older `.h5` of whole models or of weights alone.

All arrays are returned as `layer/leaf` (`conv1_conv/kernel`), with the leaves kernel, bias, gamma, beta, moving_mean
and moving_variance, whatever the file calls them. The layouts are taken from files that Keras 3.15 wrote and, for those
of the published files, from Keras' source.
"""

import collections
import io
import itertools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from lesion.weights import sizes

# Keras 1 names. Its `running_std` holds the variance.
LEAVES = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
# The leaves that `vars/0`, `vars/1`, ... hold, by class of the layer and number of arrays.
VARIABLES = {
    ("conv2d", 1): ("kernel",),
    ("conv2d", 2): ("kernel", "bias"),
    ("dense", 2): ("kernel", "bias"),
    ("batch_normalization", 3): ("beta", "moving_mean", "moving_variance"),
    ("batch_normalization", 4): ("gamma", "beta", "moving_mean", "moving_variance"),
}
NO_LAYERS = r"_?optimizer|_?\w*metrics|\w*loss_tracker|seed_generator"
DEEPEST = 8  # groups around a layer


def read_zip(path: Path) -> dict[str, np.ndarray]:
    """Reads the `.weights.h5` inside a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        sizes.check(archive.getinfo("model.weights.h5").file_size)
        return read_hdf5(io.BytesIO(archive.read("model.weights.h5")))


def read_hdf5(source: Path | BinaryIO) -> dict[str, np.ndarray]:
    """Reads any of Keras' HDF5 layouts; returns {layer/leaf: array}, kernels in the order kh, kw, I, O.

    A model inside a model counts as its layers. A file of Keras 3 before 3.6 has no names of layers: they are called
    by their place among those of a kind, `conv2d@0`, `conv2d@1`, ...
    """
    with h5py.File(source, "r") as file:
        _check_own(file)
        if "model_weights" not in file and not any(name.startswith("layer_names") for name in file.attrs):
            arrays = list(_read_numbered(file))
        else:
            nested = "model_weights" in file and "layer_names" not in file.attrs
            arrays = list(_read_named(file["model_weights"] if nested else file))
        if not arrays:
            raise ValueError("it holds no layers: not a file of Keras")
    repeated = [name for name, n in collections.Counter(name for name, _ in arrays).items() if n > 1]
    if repeated:
        raise ValueError(f"it holds more than one network: {repeated[0]} is there twice")
    return dict(arrays)


def _check_own(file: h5py.File) -> None:
    """Raises a ValueError if a part of the file lies in another file, which HDF5 would open, or is too large."""
    num_bytes, seen, groups = 0, set(), [file["/"]]
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ValueError("it links to another file: save it as one")
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"{name} is a link, which no file of Keras has")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:  # a group may lie in itself
                continue
            seen.add(address)
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise ValueError("its arrays lie in another file: save it as one")
                num_bytes += item.nbytes
    sizes.check(num_bytes)


def _numbered_groups(group: h5py.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], h5py.Group]]:
    """Yields the `vars` of all layers, at any depth, and the path to each; not those of an optimiser or a metric."""
    for name, item in group.items():
        if not isinstance(item, h5py.Group) or len(path) > DEEPEST or re.match(NO_LAYERS, name):
            continue
        if name == "vars":
            if len(item):
                yield path, item
        else:  # Keras on Windows wrote `layers\\conv2d` as one name
            yield from _numbered_groups(item, (*path, *name.split("\\")))


def _read_numbered(file: h5py.Group) -> Iterator[tuple[str, np.ndarray]]:
    """Reads Keras 3's layout, where groups are numbered by class and depth and `vars` may have the layer's name."""
    inside: set[tuple[str, ...]] = set()  # models with convolutions whose layers have no names
    for path, variables in _numbered_groups(file):
        if not path:
            raise ValueError("it has arrays of no layer: none of the backbones here has those")
        kind, number = re.fullmatch(r"(.*?)(?:_(\d+))?", path[-1]).groups()  # type: ignore[union-attr]
        name = variables.attrs.get("name", f"{kind}@{number or 0}")
        layer = name.decode() if isinstance(name, bytes) else str(name)
        if kind == "conv2d" and "name" not in variables.attrs:
            inside.add(path[:-1])
            if len(inside) > 1:
                raise ValueError("it holds more than one network: save the backbone alone")
        leaves = VARIABLES.get((kind, len(variables)), tuple(sorted(variables)))
        for i, leaf in enumerate(leaves):
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
    """Reads the older layout of Keras 1, 2 and 3, where every layer lists its weights' names.

    Those of a model inside the model lie in one group: there the names `layer/leaf` of the weights tell the layers.
    """
    for layer in _read_names(group, "layer_names"):
        names = _read_names(group[layer], "weight_names")
        is_model = len({name.rpartition("/")[0] for name in names}) > 1
        for name in names:
            scope, _, leaf = name.rpartition("/")
            inner = scope.rpartition("/")[2] if is_model else layer
            leaf = leaf.partition(":")[0].removeprefix(f"{inner}_")
            yield f"{inner}/{LEAVES.get(leaf, leaf)}", group[layer][name][()]
