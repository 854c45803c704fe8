"""Every format a checkpoint may come in, read back to the arrays that went in."""

import builtins
import functools
import json
import re
from pathlib import Path

import checkpoints
import jax
import numpy as np
import onnx
import onnx.reference
import pytest
import safetensors.numpy

from lesion import models, trees, weights
from lesion.errors import UserError
from lesion.weights import rules, torch_files
from lesion.weights.pretrained import shapes

GOLDENS = Path(__file__).parents[1] / "goldens"
OLD_LEAVES = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}


@functools.cache
def spec_of(framework, model):
    return json.loads((GOLDENS / f"{framework}.json").read_text())["models"][model]["spec"]


@functools.cache
def arrays_of(framework, model):
    """Small arrays of the right names and dimensions that differ in every element: only reading is tested with them."""
    rng = np.random.default_rng(0)
    small = {name: [min(n, 3) for n in shape] for name, shape in spec_of(framework, model)}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in small.items()}


def keras1_layer(layer):
    """`conv2_block1_0_conv` as in 2016: `res2a_branch1`."""
    known = {"conv1_conv": "conv1", "conv1_bn": "bn_conv1", "predictions": "fc1000"}
    if layer in known:
        return known[layer]
    stage, block, part, kind = re.fullmatch(r"conv(\d)_block(\d)_(\d)_(conv|bn)", layer).groups()
    branch = ("1", "2a", "2b", "2c")[int(part)]
    return f"{'res' if kind == 'conv' else 'bn'}{stage}{'abcdef'[int(block) - 1]}_branch{branch}"


def keras1_file(path, arrays):
    old = {
        f"{n.partition('/')[0]}/{OLD_LEAVES.get(n.partition('/')[2], n.partition('/')[2])}": a
        for n, a in arrays.items()
    }
    checkpoints.write_keras_legacy(path, old, rename=keras1_layer, weight="{layer}_{leaf}:0")


def published_layer(layer):
    """Inception's counter from 1, and the classifier's older name."""
    kind, _, number = layer.rpartition("_") if layer[-1].isdigit() else (layer, "", "0")
    if layer == "conv2d":
        kind, number = "conv2d", "0"
    return layer if layer == "predictions" else f"{kind}_{int(number) + 1}"


def nested(rename=lambda layer: layer, **options):
    return functools.partial(checkpoints.write_keras_legacy, rename=rename, weight="{layer}/{leaf}:0", **options)


SAFE = lambda path, arrays: safetensors.numpy.save_file(arrays, path)  # noqa: E731
# backbone, source, framework and model of the golden's names, file name, writer
FILES = {
    "torch zip": ("resnet50", "torchvision", "torchvision", "resnet50", "r.pth", checkpoints.write_torch_zip),
    "torch old": ("resnet50", "torchvision", "torchvision", "resnet50", "r.pth", checkpoints.write_torch_legacy),
    "safetensors": ("resnet50", "timm", "torchvision", "resnet50", "r.safetensors", SAFE),
    "inception": ("inception_v3", "torchvision", "torchvision", "inception_v3", "i.pt", checkpoints.write_torch_zip),
    "inception safetensors": ("inception_v3", "timm", "torchvision", "inception_v3", "i.bin", SAFE),
    "keras published": ("resnet50_v1", "keras", "keras", "resnet50", "k.h5", nested(root="/")),
    "keras whole model": ("resnet50_v1", "keras", "keras", "resnet50", "k.h5", nested(root="model_weights")),
    "keras names in parts": ("resnet50_v1", "keras", "keras", "resnet50", "k.h5", nested(chunk=40)),
    "keras 2016": ("resnet50_v1", "keras", "keras", "resnet50", "k.h5", keras1_file),
    "keras 3": (
        "resnet50_v1", "keras", "keras", "resnet50", "k.weights.h5",
        functools.partial(checkpoints.write_keras_numbered, model="resnet50"),
    ),
    "keras zip": (
        "inception_v3_keras", "keras", "keras", "inception_v3", "k.keras",
        functools.partial(checkpoints.write_keras_numbered, model="inception_v3"),
    ),
    "inception published": ("inception_v3_keras", "keras", "keras", "inception_v3", "k.h5", nested(published_layer)),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES.values(), ids=FILES)
def test_a_file_gives_the_variables_that_its_arrays_give(tmp_path, case):
    name, source, framework, model, file, write = case
    arrays = arrays_of(framework, model)
    write(tmp_path / file, arrays)
    got = weights.convert(name, source, weights.read(tmp_path / file))
    assert trees.sha256(got) == trees.sha256(weights.convert(name, source, arrays))


NAMED = {
    ("alexnet_torchvision", "torchvision"): ("torchvision", "alexnet"),
    ("resnet50", "timm"): ("torchvision", "resnet50"),
    ("inception_v3", "torchvision"): ("torchvision", "inception_v3"),  # with an auxiliary classifier, which is ignored
    ("resnet50_v1", "keras"): ("keras", "resnet50"),
    ("inception_v3_keras", "keras"): ("keras", "inception_v3"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "golden"), NAMED.items(), ids=map(" from ".join, NAMED))
def test_names_and_layouts_of_a_source_fit_the_model(pair, golden):
    arrays = {name: np.zeros(shape, np.float32) for name, shape in spec_of(*golden)}
    assert any(name.startswith("AuxLogits.") for name in arrays) == (pair[0] == "inception_v3")
    weights.merge(shapes(pair[0]), weights.convert(*pair, arrays))


def test_timms_names_of_lite_meet_the_other_ports(tmp_path):
    """timm counts blocks within a stage and names their parts otherwise; the first block does not widen."""
    lite = jax.tree.map(lambda s: s.shape, trees.flatten(shapes("efficientnet_lite0")))
    repeats = (1, 2, 2, 3, 3, 4, 1)
    numbers = [(s, r) for s, n in enumerate(repeats) for r in range(n)]
    parts = {"expand_conv": "conv_pw", "depthwise_conv": "conv_dw", "project_conv": "conv_pwl"}
    parts |= {"bn0": "bn1", "bn1": "bn2", "bn2": "bn3"}
    first = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
    top = {"bn0": "bn1", "bn1": "bn2", "fc": "classifier"}
    leaves = {"scale": "weight", "kernel": "weight", "mean": "running_mean", "var": "running_var", "bias": "bias"}
    arrays, wanted, rng = {}, {}, np.random.default_rng(0)
    for path, shape in lite.items():
        _, *module, leaf = path.split("/")
        if module[0].startswith("blocks_"):
            index = int(module[0].removeprefix("blocks_"))
            theirs = "blocks.{}.{}.".format(*numbers[index]) + (parts if index else first)[module[1]]
        else:
            theirs = top.get(module[0], module[0])
        wanted[path] = rng.standard_normal(shape, np.float32)
        transposed = {4: (3, 2, 0, 1), 2: (1, 0)}.get(len(shape), (0,))
        arrays[f"{theirs}.{leaves[leaf]}"] = np.ascontiguousarray(wanted[path].transpose(transposed))
    SAFE(tmp_path / "l.safetensors", arrays)
    got = weights.convert("efficientnet_lite0", "timm", weights.read(tmp_path / "l.safetensors"))
    assert trees.sha256(got) == trees.sha256(trees.unflatten(wanted))


@pytest.fixture(scope="module")
def caffe_arrays():
    flat = trees.flatten(shapes("alexnet_caffe")["params"])
    rng, arrays = np.random.default_rng(0), {}
    for path, leaf in flat.items():
        module, kind = path.split("/")
        shape = (
            leaf.shape[::-1]
            if kind == "bias" or len(leaf.shape) == 2
            else (leaf.shape[3], leaf.shape[2], *leaf.shape[:2])
        )
        scale = 0.05 if kind == "bias" else (2 / np.prod(shape[1:])) ** 0.5
        arrays[f"{module}_{'b' if kind == 'bias' else 'w'}_0"] = scale * rng.standard_normal(shape, np.float32)
    return {name: a.astype(np.float32) for name, a in arrays.items()}


@pytest.mark.slow
def test_alexnet_of_the_model_zoo_in_two_groups_and_on_one_towers_diagonal(tmp_path, caffe_arrays):
    model = checkpoints.alexnet_model(caffe_arrays)
    onnx.save(model, tmp_path / "bvlcalexnet.onnx")
    pixels = np.random.default_rng(1).standard_normal((1, 224, 224, 3)).astype(np.float32)
    reference = onnx.reference.ReferenceEvaluator(model, new_ops=[checkpoints.LRN])
    (wanted,) = reference.run(None, {"data_0": pixels.transpose(0, 3, 1, 2)})
    arrays = weights.read(tmp_path / "bvlcalexnet.onnx")
    for name in ("alexnet_caffe", "alexnet"):
        variables = weights.merge(shapes(name), weights.convert(name, "onnx", arrays))
        with jax.default_matmul_precision("highest"):
            got = jax.jit(models.get_model(name).apply)(variables, pixels)
        assert np.linalg.norm(got - wanted) < 1e-5 * np.linalg.norm(wanted)


def test_block_diagonal_kernels_are_the_grouped_convolution(rng):
    kernel = rng.standard_normal((3, 3, 4, 6))
    whole = rules.block_diagonal(kernel, 2)
    assert whole.shape == (3, 3, 8, 6)
    np.testing.assert_array_equal(whole[:, :, :4, :3], kernel[..., :3])
    np.testing.assert_array_equal(whole[:, :, 4:, 3:], kernel[..., 3:])
    assert not whole[:, :, :4, 3:].any() and not whole[:, :, 4:, :3].any()


class Evil:
    def __reduce__(self):
        return builtins.print, ("run",)


SMALL = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
WRITERS = {
    "a.pth": checkpoints.write_torch_zip,
    "b.pth": checkpoints.write_torch_legacy,
    "c.safetensors": SAFE,
    "d.h5": lambda path, arrays: checkpoints.write_keras_legacy(
        path, {f"conv1/{k}ernel": a for k, a in {"k": arrays["w"]}.items()}
    ),
    "e.onnx": lambda path, arrays: path.write_bytes(checkpoints.alexnet_model(arrays).SerializeToString()),
}


@pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.97])
@pytest.mark.parametrize("file", WRITERS)
def test_a_truncated_file_is_one_line(tmp_path, file, share):
    path = tmp_path / file
    WRITERS[file](path, SMALL)
    assert weights.read(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UserError, match="cannot be read") as raised:
        weights.read(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("write", [checkpoints.write_torch_zip, checkpoints.write_torch_legacy])
def test_a_pickle_that_runs_something_is_refused(tmp_path, capsys, write):
    write(tmp_path / "w.pth", SMALL, {"w": Evil()})
    with pytest.raises(UserError, match=r"asks for __builtin__\.print"):
        weights.read(tmp_path / "w.pth")
    assert capsys.readouterr().out == ""


NONSENSE = {"text": b"<html>not found</html>", "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100), "zeros": bytes(64)}


@pytest.mark.parametrize("content", NONSENSE.values(), ids=NONSENSE)
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        weights.read(tmp_path / "w.pth")
    with pytest.raises(UserError, match="no file"):
        weights.read(tmp_path / "x.pth")


def test_details_of_torchs_files(tmp_path):
    arrays = {"module.w": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)), "module.n": np.array([3])}
    checkpoints.write_torch_zip(tmp_path / "w.pth", {k: a.T if a.ndim > 1 else a for k, a in arrays.items()})
    read = weights.read(tmp_path / "w.pth")
    np.testing.assert_array_equal(read["module.w"], arrays["module.w"].T)
    checkpoint = {"epoch": 3, "state_dict": checkpoints.tensors(SMALL)}
    checkpoints.write_torch_zip(tmp_path / "c.pth", SMALL, checkpoint)
    np.testing.assert_array_equal(weights.read(tmp_path / "c.pth")["w"], SMALL["w"])


VIEWS = {  # elements of the storage, offset, shape, strides, whether it is read
    "all of it": (4, 0, (2, 2), (2, 1), True),
    "a number": (1, 0, (), (), True),
    "nothing of something": (4, 4, (0, 3), (9, 1), True),
    "nothing of nothing": (0, 0, (0,), (1,), True),
    "a number of nothing": (0, 0, (), (), False),
    "an element of nothing": (0, 0, (1,), (1,), False),
    "one too many": (4, 1, (4,), (1,), False),
    "before the beginning": (4, 3, (2,), (-4,), False),
}


@pytest.mark.parametrize(("size", "offset", "shape", "strides", "is_read"), VIEWS.values(), ids=VIEWS)
def test_no_tensor_reads_outside_its_storage(size, offset, shape, strides, is_read):
    tensor = torch_files._Tensor(torch_files._Storage("<f4", "0", size), offset, shape, strides)
    storages = {"0": np.arange(size, dtype="<f4")}
    if is_read:
        assert torch_files._view(tensor, storages).shape == shape
    else:
        with pytest.raises(ValueError, match="outside its storage"):
            torch_files._view(tensor, storages)
