"""Writes arrays as torch, Keras and ONNX would, so that the tests need none of them."""

import collections
import io
import json
import pickle
import sys
import types
import zipfile
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import onnx
import onnx.reference.op_run

GOLDENS = Path(__file__).parents[1] / "goldens"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
TYPES = {"float32": "FloatStorage", "int64": "LongStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage"}


class Tensor:
    """Pickles like torch's: a call of `_rebuild_tensor_v2` on a storage that lies elsewhere."""

    def __init__(self, key, array):
        self.key, self.array = key, array

    def __reduce__(self):
        array = self.array
        strides = tuple(s // array.itemsize for s in array.strides)
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (Storage(self.key, array), 0, array.shape, strides, False, collections.OrderedDict())


class Storage:
    def __init__(self, key, array):
        self.key, self.array = key, array


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            kind = getattr(sys.modules["torch"], TYPES[obj.array.dtype.name])
            return ("storage", kind, obj.key, "cpu", obj.array.size)
        return None


def fake_torch():
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in TYPES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        raise AssertionError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    return {"torch": torch, "torch._utils": utils}


def dump(content):
    file = io.BytesIO()
    with mock.patch.dict(sys.modules, fake_torch()):
        Pickler(file, protocol=2).dump(content)
    return file.getvalue()


def tensors(arrays):
    return collections.OrderedDict((name, Tensor(str(i), a)) for i, (name, a) in enumerate(arrays.items()))


def write_torch_zip(path, arrays, content=None):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", dump(tensors(arrays) if content is None else content))
        archive.writestr("archive/byteorder", "little")
        for i, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{i}", array.tobytes())


def write_torch_legacy(path, arrays, content=None):
    content = tensors(arrays) if content is None else content
    parts = (LEGACY_MAGIC, 1001, {}, content, [str(i) for i in range(len(arrays))])
    storages = (np.int64(a.size).tobytes() + a.tobytes() for a in arrays.values())
    path.write_bytes(b"".join([*map(dump, parts), *storages]))


def by_layer(arrays):
    layers = collections.defaultdict(dict)
    for name, array in arrays.items():
        layer, _, leaf = name.partition("/")
        layers[layer][leaf] = array
    return layers


def write_keras_legacy(path, arrays, *, rename=lambda layer: layer, weight="{layer}/{leaf}:0", root="/", chunk=1000):
    """The older `.h5`: root attributes name the layers, each of which names its weights."""
    with h5py.File(path, "w") as file:
        group = file.require_group(root)
        names = []
        for layer, leaves in by_layer(arrays).items():
            name = rename(layer)
            stored = [weight.format(layer=name, leaf=leaf) for leaf in leaves]
            for key, array in zip(stored, leaves.values(), strict=True):
                group.require_group(name)[key] = array
            group[name].attrs["weight_names"] = [s.encode() for s in stored]
            names.append(name.encode())
        group.create_group("relu").attrs["weight_names"] = np.array([], "S1")
        names.append(b"relu")
        if len(names) <= chunk:
            group.attrs["layer_names"] = names
        for i, start in enumerate(range(0, len(names), chunk) if len(names) > chunk else ()):
            group.attrs[f"layer_names{i}"] = names[start : start + chunk]


def write_keras_numbered(path, arrays, model, *, root="", named=True, more=()):
    """Keras 3's `.weights.h5`, with the paths that Keras 3.15 gave; `.keras` is a zip around it.

    `root` is the path of a model that holds this one, `named` false leaves the names out, as Keras did before 3.6, and
    `more` are further (path, array).
    """
    paths = json.loads((GOLDENS / "layouts" / "keras3_weights_h5_map.json").read_text())[model]
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for path_, array in more:
            file[path_] = array
        for path_, name in paths.items():
            if name not in arrays:
                continue
            path_ = root + path_
            file[path_] = arrays[name]
            if named:
                file[path_].parent.attrs["name"] = name.partition("/")[0]
        file.create_group("layers/activation/vars").attrs["name"] = "conv1_relu"
    if path.suffix != ".keras":
        path.write_bytes(buffer.getvalue())
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", buffer.getvalue())


def alexnet_model(arrays, side=224):
    """Caffe's AlexNet in ONNX, as the model zoo has it; `arrays` in its names and layouts."""
    node, last, nodes = onnx.helper.make_node, "data_0", []

    def add(kind, *inputs, **attributes):
        nonlocal last
        nodes.append(node(kind, [last, *inputs], [f"x{len(nodes)}"], **attributes))
        last = nodes[-1].output[0]

    norm = {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}
    for i, (group, pad, stride) in enumerate(((1, 0, 4), (2, 2, 1), (1, 1, 1), (2, 1, 1), (2, 1, 1)), 1):
        conv = {"group": group, "pads": [pad] * 4, "strides": [stride] * 2}
        add("Conv", f"conv{i}_w_0", f"conv{i}_b_0", **conv)
        add("Relu")
        if i < 3:
            add("LRN", **norm)
        if i in (1, 2, 5):
            add("MaxPool", **pool)
    add("Reshape", "OC2_DUMMY_1_shape")
    for i in (6, 7, 8):
        add("Gemm", f"fc{i}_w_0", f"fc{i}_b_0", transB=1)
        if i < 8:
            add("Relu")
    shaped = arrays | {"OC2_DUMMY_1_shape": np.array([1, 9216], np.int64)}
    graph = onnx.helper.make_graph(
        nodes,
        "alexnet",
        [onnx.helper.make_tensor_value_info("data_0", onnx.TensorProto.FLOAT, [1, 3, side, side])],
        [onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, [1, 1000])],
        [onnx.numpy_helper.from_array(a, name) for name, a in shaped.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])


class LRN(onnx.reference.op_run.OpRun):
    """The specification's; onnx 1.23's own reference normalises only the first channels, one a batch's example."""

    op_domain = ""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        squares = np.stack(
            [np.sum(x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1] ** 2, axis=1) for c in range(x.shape[1])], 1
        )
        return ((x / (bias + alpha / size * squares) ** beta).astype(x.dtype),)
