"""Readers of torch checkpoints, legacy and zip, that need no torch and run nothing the files contain."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

# First pickle of torch's non-zip format (torch/serialization.py, `MAGIC_NUMBER` and `_legacy_save`).
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGE_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class _Storage(NamedTuple):
    dtype: str
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


class _TensorsOnly(pickle.Unpickler):
    """An unpickler that resolves the few names a state dict needs and refuses all others."""

    _KNOWN = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    } | {("torch", name): dtype for name, dtype in STORAGE_DTYPES.items()}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not part of a tensor") from None

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size = pid[:5]
        if kind != "storage" or (len(pid) > 5 and pid[5] is not None):
            raise pickle.UnpicklingError(f"unknown storage record {kind!r}")
        return _Storage(dtype, str(key), int(size))


def _read_storage(file: BinaryIO, storage: _Storage) -> np.ndarray:
    (size,) = struct.unpack("<q", file.read(8))
    if size != storage.size:
        raise ValueError(f"storage {storage.key} holds {size} elements, {storage.size} announced")
    dtype = np.dtype(storage.dtype)
    data = file.read(size * dtype.itemsize)
    return np.frombuffer(data, dtype, size)  # raises on a short read


def _view(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    base = storages[tensor.storage.key]
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    if min(tensor.strides, default=0) < 0 or tensor.offset < 0 or last >= max(base.size, 1):
        raise ValueError("a tensor reaches outside its storage")
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
        if _TensorsOnly(file).load() != LEGACY_MAGIC:
            raise ValueError("it does not begin with torch's magic number")
        _TensorsOnly(file).load()  # protocol version
        _TensorsOnly(file).load()  # byte order and integer sizes of the machine that wrote the file
        tensors = _state_dict(_TensorsOnly(file).load())
        keys = _TensorsOnly(file).load()
        wanted = {t.storage.key: t.storage for t in tensors.values()}
        storages = {key: _read_storage(file, wanted[key]) for key in keys}
    return {name: _view(tensor, storages) for name, tensor in tensors.items()}


def read_zip(path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict of torch >= 1.6, a zip of `data.pkl` and a file for each storage; see `read_legacy`."""
    with zipfile.ZipFile(path) as archive:
        (pickled,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in archive.namelist() else b"little"
        if order != b"little":
            raise ValueError(f"its byte order is {order.decode()}, only little is read")
        tensors = _state_dict(_TensorsOnly(io.BytesIO(archive.read(pickled))).load())
        storages = {}
        for storage in {t.storage.key: t.storage for t in tensors.values()}.values():
            data = np.frombuffer(archive.read(f"{folder}data/{storage.key}"), storage.dtype)
            if data.size != storage.size:
                raise ValueError(f"storage {storage.key} holds {data.size} elements, {storage.size} announced")
            storages[storage.key] = data
    return {name: _view(tensor, storages) for name, tensor in tensors.items()}


def _state_dict(content: Any) -> dict[str, _Tensor]:
    """Returns the tensors of a state dict, or of a training checkpoint that holds one as `state_dict`."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not any(isinstance(t, _Tensor) for t in content.values()):
        raise ValueError("it holds no state dict")
    return {name: t for name, t in content.items() if isinstance(t, _Tensor)}
