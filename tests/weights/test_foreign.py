"""Weights as people have them: wrapped, renamed, nested, of another head: the features are the plain file's."""

import argparse
import collections
import functools
import pathlib
import re
import zipfile

import checkpoints
import h5py
import ml_dtypes
import numpy as np
import onnx
import pytest
from test_formats import spec_of

from lesion import trees, weights
from lesion.errors import UserError
from lesion.models.inception import unit_names
from lesion.weights import pretrained, rules, sizes
from lesion.weights.fit import shapes, without_foreign_head

pytestmark = pytest.mark.slow

HEADS = ("fc.", "predictions/", "AuxLogits.fc.")


@functools.cache
def arrays_of(framework, model):
    """Arrays of the right shapes, without the classifier; each has a value of its own."""
    spec = spec_of(framework, model)
    return {n: np.full(s, i / 64 + 1, np.float32) for i, (n, s) in enumerate(spec) if not n.startswith(HEADS)}


def features(name, source, arrays):
    """The hash of the variables that compute features, and the names of what was left out."""
    arrays, others = rules.find_network(name, source, arrays)
    variables, head = without_foreign_head(name, weights.convert(name, source, arrays))
    variables["params"].pop("fc", None)
    return trees.sha256(weights.merge(shapes(name, False), variables)), [*head, *others]


def under(prefix, arrays):
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def wrapped(arrays, **beside):
    """A checkpoint {key: state dict} of arrays {key: {name: array}}, and all its arrays in the file's order."""
    flat = {f"{key}|{name}": a for key, state in arrays.items() for name, a in state.items()}
    content = {key: collections.OrderedDict() for key in arrays} | beside
    for full, tensor in checkpoints.tensors(flat).items():
        key, _, name = full.partition("|")
        content[key][name] = tensor
    return flat, content


SETTINGS = {
    "hyper_parameters": {"args": argparse.Namespace(lr=0.1), "path": pathlib.PurePosixPath("x"), "lr": np.float64(0.1)},
    "callbacks": collections.defaultdict(list),
    "optimizer_states": [{"state": {}}],
    "epoch": 3,
}
RESNET_CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
STEM = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"]
MIXED = list(dict.fromkeys(name.split("/")[0] for name in unit_names() if name.startswith("Mixed")))
INCEPTION_CHILDREN = {name: i for i, name in enumerate([*STEM, *MIXED])}
INCEPTION_WITH_AUX = {name: i for i, name in enumerate([*STEM, *MIXED[:8], "AuxLogits", *MIXED[8:]])}


def numbered(children, arrays, prefix="backbone."):
    parts = {name: name.partition(".") for name in arrays}
    return {f"{prefix}{children[p[0]]}.{p[2]}": arrays[n] for n, p in parts.items() if p[0] in children}


NUMBER = re.compile(r"\d+")
other = functools.partial(np.full, fill_value=9, dtype=np.float32)
TWICE = lambda a: {n: 2 * x for n, x in a.items()}  # noqa: E731
# What is written for the arrays of ResNet-50: {key of the state dict: its arrays}; how many arrays are left out.
TORCH = {
    "Lightning": (lambda a: {"state_dict": under("model.", a) | {"criterion.weight": other(3)}}, 1),
    "Lightning, net": (lambda a: {"state_dict": under("net.backbone.", a)}, 0),
    "DataParallel in a checkpoint": (lambda a: {"model": under("module.", a)}, 0),
    "DataParallel of a compiled model": (lambda a: {"model_state_dict": under("module._orig_mod.", a)}, 0),
    "teacher of two keys": (lambda a: {"student": under("module.", TWICE(a)), "teacher": under("backbone.", a)}, 318),
    "teacher of two prefixes": (lambda a: {"state_dict": under("student.", TWICE(a)) | under("teacher.", a)}, 318),
    "model and its mean": (lambda a: {"ema": TWICE(a), "model": a}, 318),
    "mean alone": (lambda a: {"ema": a}, 0),
    "a key of its own": (lambda a: {"weights_of_mine": under("encoder.", a)}, 0),
    "detector": (lambda a: {"model": under("backbone.body.", a) | {"rpn.head.conv.weight": other((9, 9, 1, 1))}}, 1),
    "RadImageNet": (lambda a: {"state_dict": numbered(RESNET_CHILDREN, a)}, 0),
    "RadImageNet with its head": (
        lambda a: {"state_dict": numbered(RESNET_CHILDREN, a) | {"classifier.linear.weight": other((165, 2048))}}, 1,
    ),
    "Sequential in DataParallel": (lambda a: {"state_dict": numbered(RESNET_CHILDREN, a, "module.")}, 0),
    "10 classes": (lambda a: {"state_dict": a | {"fc.weight": other((10, 2048)), "fc.bias": other(10)}}, 2),
    "a head of two layers": (
        lambda a: {"state_dict": under("model.", a | {"fc.0.weight": other((64, 2048)), "fc.3.bias": other(2)})},
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "left_out"), TORCH.values(), ids=TORCH)
def test_wrapped_torch_files_give_the_plain_files_features(tmp_path, change, left_out):
    plain = {n: a for n, a in arrays_of("torchvision", "resnet50").items() if not n.endswith("num_batches_tracked")}
    checkpoints.write_torch_zip(tmp_path / "w.ckpt", *wrapped(change(plain), **SETTINGS))
    wanted, nothing = features("resnet50", "torchvision", plain)
    got, others = features("resnet50", "torchvision", weights.read(tmp_path / "w.ckpt"))
    assert got == wanted and not nothing
    assert len([n for n in others if not n.endswith("num_batches_tracked")]) == min(left_out, len(plain))


@pytest.mark.parametrize("children", [INCEPTION_CHILDREN, INCEPTION_WITH_AUX], ids=["without aux", "with aux"])
def test_radimagenets_inception(tmp_path, children):
    plain = arrays_of("torchvision", "inception_v3")
    checkpoints.write_torch_zip(tmp_path / "i.pt", numbered(children, plain))
    wanted, _ = features("inception_v3", "torchvision", plain)
    assert features("inception_v3", "torchvision", weights.read(tmp_path / "i.pt"))[0] == wanted


@pytest.mark.parametrize("write", [checkpoints.write_torch_zip, checkpoints.write_torch_legacy])
def test_bfloat16(tmp_path, write):
    halved = {n: a.astype(ml_dtypes.bfloat16) for n, a in arrays_of("torchvision", "resnet50").items()}
    write(tmp_path / "w.pth", halved)
    wanted, _ = features("resnet50", "torchvision", {n: a.astype(np.float32) for n, a in halved.items()})
    assert features("resnet50", "torchvision", weights.read(tmp_path / "w.pth"))[0] == wanted


OWN_HEAD = [
    ("layers/dense/vars/0", other((2048, 2))),
    ("layers/dense/vars/1", other(2)),
    ("optimizer/vars/0", other(3)),
]
KERAS = {
    "before 3.6": {"named": False},
    "before 3.6, own head": {"named": False, "more": OWN_HEAD},  # the first dense layer counts as the classifier
    "before 3.6, nested": {"named": False, "root": "/layers/functional", "more": OWN_HEAD},
    "nested": {"root": "/layers/functional", "more": OWN_HEAD},
    "Keras 2.12": {"named": False, "root": "/_layer_checkpoint_dependencies/functional"},
}


@pytest.mark.parametrize("options", KERAS.values(), ids=KERAS)
@pytest.mark.parametrize("model", ["resnet50", "inception_v3"])
def test_keras_files_without_names_or_inside_a_model(tmp_path, model, options):
    name, plain = {"resnet50": "resnet50_v1"}.get(model, f"{model}_keras"), arrays_of("keras", model)
    checkpoints.write_keras_numbered(tmp_path / "k.weights.h5", plain, model, **options)
    wanted, _ = features(name, "keras", plain)
    assert features(name, "keras", weights.read(tmp_path / "k.weights.h5"))[0] == wanted


@pytest.mark.parametrize("model", ["resnet50", "inception_v3"])
def test_layers_without_names_in_the_order_they_were_made(tmp_path, model):
    name, plain = {"resnet50": "resnet50_v1"}.get(model, f"{model}_keras"), arrays_of("keras", model)
    layers, count = checkpoints.by_layer(plain), collections.Counter()

    with h5py.File(tmp_path / "k.weights.h5", "w") as file:
        for layer in sorted(layers, key=lambda layer: NUMBER.sub(lambda n: n[0].zfill(3), layer)):
            kind = "conv2d" if "kernel" in layers[layer] else "batch_normalization"
            place, count[kind] = f"{kind}_{count[kind]}" if count[kind] else kind, count[kind] + 1
            for i, array in enumerate(layers[layer].values()):
                file[f"layers/{place}/vars/{i}"] = array
    wanted, _ = features(name, "keras", plain)
    assert features(name, "keras", weights.read(tmp_path / "k.weights.h5"))[0] == wanted


def write_nested_h5(path, arrays, scope=""):
    """Keras' older layout of a model that holds a backbone and a dense layer: the backbone is one layer of it."""
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights")
        inside = {"resnet50": arrays, "dense_1": {"dense_1/kernel": other((2048, 2)), "dense_1/bias": other(2)}}
        group.attrs["layer_names"] = [b"input_2", *map(str.encode, inside)]
        group.create_group("input_2").attrs["weight_names"] = np.array([], "S1")
        for layer, own in inside.items():
            names = {f"{scope}{n}:0": a for n, a in own.items()}
            group.create_group(layer)
            for name, array in names.items():
                group[layer][name] = array
            chunks = np.array_split([n.encode() for n in names], 2)
            for i, chunk in enumerate(chunks):  # as Keras splits what is too long for an attribute
                group[layer].attrs[f"weight_names{i}"] = chunk


@pytest.mark.parametrize("scope", ["", "resnet50/"])
def test_an_older_keras_file_of_a_model_in_a_model(tmp_path, scope):
    plain = arrays_of("keras", "resnet50")
    write_nested_h5(tmp_path / "k.h5", plain, scope)
    wanted, _ = features("resnet50_v1", "keras", plain)
    got, left_out = features("resnet50_v1", "keras", weights.read(tmp_path / "k.h5"))
    assert got == wanted and left_out == ["params/dense_1/bias [2]", "params/dense_1/kernel [2048, 2]"]


def test_radimagenets_inception_of_keras_with_a_head_that_has_a_norm(tmp_path):
    plain = arrays_of("keras", "inception_v3")
    norm = {f"batch_normalization_94/{leaf}": other(2048) for leaf in ("gamma", "beta", "moving_mean")}
    checkpoints.write_keras_legacy(tmp_path / "k.h5", plain | norm, root="model_weights")
    wanted, _ = features("inception_v3_keras", "keras", plain)
    got, left_out = features("inception_v3_keras", "keras", weights.read(tmp_path / "k.h5"))
    assert got == wanted and len(left_out) == 3


def test_a_file_of_other_classes_says_what_was_left_out(tmp_path):
    arrays = arrays_of("torchvision", "resnet50") | {"fc.weight": other((10, 2048)), "fc.bias": other(10)}
    checkpoints.write_torch_zip(tmp_path / "w.pth", arrays)
    record = pretrained.convert_file("resnet50", "torchvision", str(tmp_path / "w.pth"), str(tmp_path / "w"))
    assert record["left_out"] == "params/fc/bias [10], params/fc/kernel [2048, 10]" and not record["classifier"]
    loaded, _ = pretrained.load("resnet50", str(tmp_path / "w"))
    assert "fc" not in loaded["params"]


def test_onnx_constants_are_weights(tmp_path):
    model = checkpoints.alexnet_model({"conv1_w_0": other((96, 3, 11, 11)), "conv1_b_0": other(96)})
    wanted = {n: a for n, a in weights_of(tmp_path, model).items() if "shape" not in n}
    graph, nodes = model.graph, []
    for tensor in graph.initializer:
        renamed = onnx.TensorProto.FromString(tensor.SerializeToString())
        nodes.append(onnx.helper.make_node("Constant", [], [f"raw_{tensor.name}"], value=renamed))
        nodes.append(onnx.helper.make_node("Identity", [f"raw_{tensor.name}"], [tensor.name]))
    del graph.initializer[:]
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    got = weights_of(tmp_path, model)
    assert got.keys() == wanted.keys() and all(np.array_equal(got[n], wanted[n]) for n in wanted)


def weights_of(folder, model):
    onnx.save(model, folder / "m.onnx")
    return weights.read(folder / "m.onnx")


def external_storage(file, folder):
    (folder / "secret").write_bytes(bytes(64))
    file.create_dataset("conv1/vars/0", (16,), "f4", external=[(str(folder / "secret"), 0, 64)])


def virtual(file, folder):
    with h5py.File(folder / "other.h5", "w") as source:
        source["x"] = other(16)
    layout = h5py.VirtualLayout((16,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", (16,))
    file.create_virtual_dataset("conv1/vars/0", layout)


def external_link(file, folder):
    with h5py.File(folder / "other.h5", "w") as source:
        source["x"] = other(16)
    file["conv1/vars/0"] = h5py.ExternalLink(str(folder / "other.h5"), "x")


def soft_link(file, folder):
    file["conv1/vars/0"] = h5py.SoftLink("/")


def huge(file, folder):
    file.create_dataset("layers/conv2d/vars/0", (2**20, 2**20), "f4", chunks=(1024, 1024))


def itself(file, folder):
    file["layers/conv2d/vars/0"] = other((1, 1, 3, 4))
    file["layers/conv2d/again"] = file["layers"]


REACHING = {
    external_storage: "lie in another file",
    virtual: "lie in another file",
    external_link: "links to another file",
    soft_link: "is a link",
    huge: "would take 4096 GiB",
    itself: "more than one network",
}


@pytest.mark.parametrize(("write", "message"), REACHING.items(), ids=lambda p: getattr(p, "__name__", ""))
def test_an_hdf5_file_that_reaches_outside_itself_or_is_too_large_is_refused(tmp_path, write, message):
    with h5py.File(tmp_path / "k.h5", "w") as file:
        write(file, tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        weights.read(tmp_path / "k.h5")
    assert "\n" not in str(raised.value)


def test_a_torch_file_whose_arrays_are_too_large_is_refused(tmp_path, monkeypatch):
    checkpoints.write_torch_zip(tmp_path / "w.pth", {"w": other(3)})
    assert weights.read(tmp_path / "w.pth")
    monkeypatch.setattr(sizes, "MOST_BYTES", 2)
    with pytest.raises(UserError, match=r"cannot be read.*would take"):
        weights.read(tmp_path / "w.pth")


def deeper(arrays):
    return arrays | {"layer3.6.conv1.weight": other((256, 1024, 1, 1))}


def two(arrays):
    return under("left.", arrays) | under("right.", arrays)


WRONG = {
    "a deeper network": (deeper, "extra params/layer3_6/conv1/kernel"),
    "two networks": (two, "several networks, below left., right.: save"),
    "strings": (lambda a: a | {"conv1.weight": np.array(["x"])}, "not the arrays of resnet50 from torchvision"),
    "too few dimensions": (lambda a: a | {"conv1.weight": other((3,))}, r"params/conv1/kernel is float32\[3\], not"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_other_networks_are_refused_in_one_line(change, message):
    with pytest.raises(UserError, match=message) as raised:
        features("resnet50", "torchvision", change(arrays_of("torchvision", "resnet50")))
    assert "\n" not in str(raised.value)


def test_a_whole_model_is_refused_with_what_to_save_instead(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02ctorch.nn.modules.conv\nConv2d\n)\x81.")
    with pytest.raises(UserError, match=r"a whole model was saved; save its model\.state_dict\(\) instead"):
        weights.read(tmp_path / "m.pth")


def test_a_pickle_that_reserves_much_memory_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}r\xff\xff\xff\xff.")
    with pytest.raises(UserError, match="announces more than"):
        weights.read(tmp_path / "m.pth")
