"""Readers of torch checkpoints, legacy and zip, that need no torch and run nothing the files contain."""

import io
import math
import pickle
import pickletools
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from lesion.weights import sizes

# First pickle of torch's non-zip format (torch/serialization.py, `MAGIC_NUMBER` and `_legacy_save`).
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGE_DTYPES: dict[str, Any] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


OPTIMISER = re.compile("optim|sched|lr_|scaler|grad_scaler|loss|callbacks|loops|hyper_parameters", re.IGNORECASE)
MOST_OBJECTS = 10**6  # in a pickle; a state dict of 320 arrays has about 5,000
DEEPEST = 3  # dictionaries around a state dict


class _Storage(NamedTuple):
    dtype: Any
    key: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


class _Nothing:
    """Stands for an object that is no tensor, e.g. a setting of a training run: takes everything and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Nothing":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Takes an element of a list."""

    def extend(self, values: Any) -> None:
        """Takes elements of a list."""

    def add(self, value: Any) -> None:
        """Takes an element of a set."""


# What training checkpoints keep beside the arrays. `_Nothing` takes its place: of these modules nothing is imported.
SETTINGS = r"(argparse|pathlib|omegaconf|numpy|lightning|pytorch_lightning|lightning_fabric|torchmetrics)(\..*)?"
SETTINGS_OF_TORCH = r"Size|device|dtype|Generator|(float|bfloat|int|uint|complex)\d+|bool"
SETTINGS_OF_PYTHON = {
    *(("collections", n) for n in ("defaultdict", "Counter", "deque")),
    *((m, n) for m in ("builtins", "__builtin__") for n in ("set", "list", "dict", "int", "float", "bool", "slice")),
    ("_codecs", "encode"),
}
WHOLE_MODEL = r"torch\.nn\.modules\..*|torchvision\.models\..*|timm\.models\..*|__main__"


class _TensorsOnly(pickle.Unpickler):
    """An unpickler that resolves the few names a state dict needs and refuses all others."""

    _KNOWN = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    } | {("torch", name): dtype for name, dtype in STORAGE_DTYPES.items()}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._KNOWN:
            return self._KNOWN[module, name]
        torchs = module == "torch" and re.fullmatch(SETTINGS_OF_TORCH, name)
        if torchs or re.fullmatch(SETTINGS, module) or (module, name) in SETTINGS_OF_PYTHON:
            return _Nothing
        why = f"it asks for {module}.{name}, which is not part of a tensor"
        if re.fullmatch(WHOLE_MODEL, module):
            why += ": a whole model was saved; save its model.state_dict() instead"
        raise pickle.UnpicklingError(why)

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size = pid[:5]
        if kind != "storage" or (len(pid) > 5 and pid[5] is not None):
            raise pickle.UnpicklingError(f"unknown storage record {kind!r}")
        return _Storage(dtype, str(key), int(size))


def _load(file: BinaryIO) -> Any:
    """Unpickles one pickle, in which an index may not make the unpickler reserve memory for more than it holds."""
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > MOST_OBJECTS:
            raise pickle.UnpicklingError(f"it announces more than {MOST_OBJECTS} objects")
    file.seek(start)
    return _TensorsOnly(file).load()


def _read_storage(file: BinaryIO, storage: _Storage) -> np.ndarray:
    (size,) = struct.unpack("<q", file.read(8))
    if size != storage.size:
        raise ValueError(f"storage {storage.key} holds {size} elements, {storage.size} announced")
    sizes.check(size * np.dtype(storage.dtype).itemsize)
    dtype = np.dtype(storage.dtype)
    data = file.read(size * dtype.itemsize)
    return np.frombuffer(data, dtype, size)  # raises on a short read


def _view(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    base = storages[tensor.storage.key]
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    is_empty = 0 in tensor.shape  # reads nothing, whatever its other sides and its strides
    if min(tensor.strides, default=0) < 0 or tensor.offset < 0 or (last >= base.size and not is_empty):
        raise ValueError("a tensor reaches outside its storage")
    sizes.check(math.prod(tensor.shape) * base.itemsize)  # a stride of 0 makes much of little
    strides = tuple(s * base.itemsize for s in tensor.strides)
    return np.lib.stride_tricks.as_strided(base[tensor.offset :], tensor.shape, strides).copy()


def read_legacy(path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict in torch's old, non-zip format.

    Args:
        path: a `.pth` file of torch < 1.6, or of later versions in the old format.

    Returns:
        {source name: array} in the file's order and layout (kernels O, I, kh, kw).
    """
    with open(path, "rb") as file:
        if _load(file) != LEGACY_MAGIC:
            raise ValueError("it does not begin with torch's magic number")
        _load(file)  # protocol version
        _load(file)  # byte order and integer sizes of the machine that wrote the file
        tensors = _state_dict(_load(file))
        keys = _load(file)
        wanted = {t.storage.key: t.storage for t in tensors.values()}
        storages = {key: _read_storage(file, wanted[key]) for key in keys}
    return {name: _view(tensor, storages) for name, tensor in tensors.items()}


def read_zip(path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict of torch >= 1.6, a zip of `data.pkl` and a file for each storage; see `read_legacy`."""
    with zipfile.ZipFile(path) as archive:
        sizes.check(sum(member.file_size for member in archive.infolist()))
        (pickled,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in archive.namelist() else b"little"
        if order != b"little":
            raise ValueError(f"its byte order is {order.decode()}, only little is read")
        tensors = _state_dict(_load(io.BytesIO(archive.read(pickled))))
        storages = {}
        for storage in {t.storage.key: t.storage for t in tensors.values()}.values():
            data = np.frombuffer(archive.read(f"{folder}data/{storage.key}"), storage.dtype)
            if data.size != storage.size:
                raise ValueError(f"storage {storage.key} holds {data.size} elements, {storage.size} announced")
            storages[storage.key] = data
    return {name: _view(tensor, storages) for name, tensor in tensors.items()}


def _state_dict(content: Any) -> dict[str, _Tensor]:
    """Returns the tensors of a state dict, or of those in a training checkpoint, whatever their keys.

    The tensors of several, e.g. of a network and its running mean over the steps, have their key before their names
    (`ema.conv1.weight`): the name rules choose.
    """
    found = dict(_state_dicts(content, (), 0))
    if not found:
        raise ValueError("it holds no state dict")
    if len(found) == 1:
        return next(iter(found.values()))
    return {".".join((*keys, name)): t for keys, tensors in found.items() for name, t in tensors.items()}


def _state_dicts(content: Any, keys: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], dict]]:
    """Yields the dictionaries of tensors in a checkpoint, with the keys that lead to each; not an optimiser's."""
    if not isinstance(content, dict) or depth > DEEPEST or (keys and OPTIMISER.match(keys[-1])):
        return
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, _Tensor)}
    if tensors:
        yield keys, tensors
    for name, value in named.items():
        yield from _state_dicts(value, (*keys, name), depth + 1)
