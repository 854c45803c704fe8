"""MatConvNet's `simplenn` networks, read by SciPy as data.

The layout is that of MatConvNet's documentation and code (`layers`, a cell of structs with `name` and `weights`, in
older files `filters` and `biases`; `meta.normalization.averageImage`, in older files without `meta`). No published file
was at hand: the tests write files in this layout.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

MAGIC = b"MATLAB "
READABLE = b"MATLAB 5.0"  # version 7.3 is HDF5 behind a header, which SciPy does not read
LEAVES = ("filters", "biases")
MEAN = "averageImage"


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a network; raises a ValueError for a file of MATLAB 7.3 or without layers.

    Args:
        path: a `.mat` file, of version 7 or older.

    Returns:
        {name: array}: `layer/filters` [H, W, I, O], or [I, O] of a dense layer on one cell; `layer/biases` [O]; and, if
        the file has it, `averageImage` [3], the mean over pixels of the image that is subtracted from inputs.
    """
    with open(path, "rb") as file:
        if not file.read(len(READABLE)).startswith(READABLE):
            raise ValueError("it is of MATLAB 7.3: save it again in MATLAB with save(..., '-v7')")
    names = ("layers", "meta", "normalization")
    content = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False, variable_names=names)
    if "layers" not in content:
        raise ValueError("it holds no layers: not a network of MatConvNet")
    arrays = dict(_arrays(np.atleast_1d(content["layers"])))
    mean = _field(content, "meta", "normalization", MEAN)
    mean = _field(content, "normalization", MEAN) if mean is None else mean
    if mean is not None:
        arrays[MEAN] = np.asarray(mean, np.float64).reshape(-1, np.shape(mean)[-1]).mean(0)
    return arrays


def _arrays(layers: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for layer in layers:
        pair = getattr(layer, "weights", None)
        if pair is None:
            pair = [getattr(layer, leaf) for leaf in LEAVES if hasattr(layer, leaf)]
        for leaf, array in zip(LEAVES, pair, strict=False):
            yield f"{layer.name}/{leaf}", np.asarray(array)


def _field(content: dict[str, Any], name: str, *inner: str) -> Any:
    """Returns a field of a struct of structs, None where there is none."""
    value = content.get(name)
    for field in inner:
        value = getattr(value, field, None)
    return value
