"""Nested dictionaries of arrays: flattening, counting, hashing."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util


def flatten(tree: Mapping[str, Any], keep_empty: bool = False) -> dict[str, Any]:
    """Returns `{"params/conv/kernel": leaf}`, sorted by name; with `keep_empty` empty dictionaries are leaves too."""
    return dict(sorted(traverse_util.flatten_dict(dict(tree), keep_empty_nodes=keep_empty, sep="/").items()))


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested dictionaries that `flatten` made `flat` of."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def num_params(params: Mapping[str, Any]) -> int:
    """Counts the elements of all leaves."""
    return sum(int(np.prod(np.shape(leaf))) for leaf in flatten(params).values())


def sha256(tree: Mapping[str, Any]) -> str:
    """Returns the SHA-256, in hexadecimal, of the names, types, shapes and little-endian bytes of all leaves."""
    digest = hashlib.sha256()
    for name, leaf in flatten(tree).items():
        array = np.ascontiguousarray(leaf)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
