"""Reads foreign checkpoint files into `{source name: ndarray}` without running anything they contain."""

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lesion.errors import UserError

# First pickle of torch's non-zip format (torch/serialization.py, `MAGIC_NUMBER` and `_legacy_save`).
TORCH_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
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
    """Knows the few names a state dict needs and refuses every other one."""

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


def read_torch_legacy(path: Path | str) -> dict[str, np.ndarray]:
    """Reads a state dict in torch's old, non-zip format.

    Args:
        path: a `.pth` file written by torch < 1.6, or later with the old format asked for.

    Returns:
        The arrays under their source names, in the file's order and layout (kernels O, I, kh, kw).

    Raises:
        UserError: if the file is missing, truncated, of another format, or asks for code to be run.
    """
    try:
        with open(path, "rb") as file:
            if _TensorsOnly(file).load() != TORCH_LEGACY_MAGIC:
                raise ValueError("it does not begin with torch's magic number")
            _TensorsOnly(file).load()  # protocol version
            _TensorsOnly(file).load()  # byte order and integer sizes of the machine that wrote it
            tensors = _TensorsOnly(file).load()
            keys = _TensorsOnly(file).load()
            wanted = {t.storage.key: t.storage for t in tensors.values() if isinstance(t, _Tensor)}
            storages = {key: _read_storage(file, wanted[key]) for key in keys}
        return {k: _view(t, storages) for k, t in tensors.items() if isinstance(t, _Tensor)}
    except FileNotFoundError:
        raise UserError(f"no file {path}: name a checkpoint with --input") from None
    except (pickle.UnpicklingError, ValueError, struct.error, EOFError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as a torch checkpoint of the old format ({error}): download it again"
        ) from error
