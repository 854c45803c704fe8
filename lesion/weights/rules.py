"""From a source's names and layouts to ours: a name rule and a layout rule for each."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from lesion import trees
from lesion.errors import UserError
from lesion.models.cnn_f import MEAN_RGB
from lesion.models.inception import unit_names

Renamed = dict[str, tuple[str, str, str]]  # source name: (collection, module path, leaf), of those to keep
TORCH_NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
KERAS_LEAVES = {
    "kernel": ("params", "kernel"),
    "bias": ("params", "bias"),
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
}


def _torch_module(path: str) -> str:
    """`_blocks.0._bn1` to `blocks_0/bn1`: indices join the name before them, leading underscores go."""
    return "/".join(part.lstrip("_") for part in re.sub(r"\.(\d+)", r"_\1", path).split("."))


def _torch(names: Iterable[str], module: Callable[[str], str] = _torch_module) -> Renamed:
    """torch's leaves: `weight` is a BatchNorm's scale where the module has running statistics, else a kernel."""
    names = [n for n in names if not n.endswith("num_batches_tracked")]
    norms = {n.rpartition(".")[0] for n in names if n.endswith(".running_mean")}
    renamed = {}
    for name in names:
        path, _, leaf = name.rpartition(".")
        if path in norms and leaf in TORCH_NORM:
            collection, leaf = TORCH_NORM[leaf]
        else:
            collection, leaf = "params", "kernel" if leaf == "weight" else leaf
        renamed[name] = collection, module(path), leaf
    return renamed


def _without_aux(names: Iterable[str], aux_head: bool = False) -> Renamed:
    """torchvision's and timm's Inception: the auxiliary head stays only where it is asked for."""
    return _torch(n for n in names if aux_head or not n.startswith("AuxLogits."))


TIMM_LITE = {  # by whether the block widens first
    True: {"conv_pw": "expand_conv", "bn1": "bn0", "conv_dw": "depthwise_conv", "bn2": "bn1"}
    | {"conv_pwl": "project_conv", "bn3": "bn2"},
    False: {"conv_dw": "depthwise_conv", "bn1": "bn1", "conv_pw": "project_conv", "bn2": "bn2"},
    None: {"conv_stem": "conv_stem", "bn1": "bn0", "conv_head": "conv_head", "bn2": "bn1", "classifier": "fc"},
}


def _timm_lite(names: Iterable[str]) -> Renamed:
    """timm's `tf_efficientnet_lite0` counts blocks within a stage and names their parts otherwise."""
    names = list(names)
    blocks = sorted({tuple(map(int, n.split(".")[1:3])) for n in names if n.startswith("blocks.")})
    widens = {n.rpartition(".conv_pwl")[0] for n in names if ".conv_pwl." in n}

    def module(path: str) -> str:
        if not path.startswith("blocks."):
            return TIMM_LITE[None].get(path, path)
        block, _, part = path.rpartition(".")
        index = blocks.index(tuple(map(int, block.split(".")[1:3])))
        return f"blocks_{index}/{TIMM_LITE[block in widens].get(part, part)}"

    return _torch(names, module)


def _keras_resnet(layer: str) -> str:
    """`conv2_block1_0_conv` of today, or `res2a_branch1` of 2016, to `layer1_0/downsample_0`."""
    if layer in ("predictions", "probs", "fc1000"):
        return "fc"
    stem = {"conv1_conv": "conv1", "conv1": "conv1", "conv1_bn": "bn1", "bn_conv1": "bn1"}
    if layer in stem:
        return stem[layer]
    if match := re.fullmatch(r"conv(\d)_block(\d)_(\d)_(conv|bn)", layer):
        stage, block, part = (int(match[i]) for i in (1, 2, 3))
        kind = match[4]
    elif match := re.fullmatch(r"(res|bn)(\d)([a-f])_branch(1|2[abc])", layer):
        stage, block = int(match[2]), ord(match[3]) - ord("a") + 1
        part = "1abc".index(match[4][-1])
        kind = "bn" if match[1] == "bn" else "conv"
    else:
        return layer
    if part == 0:
        return f"layer{stage - 1}_{block - 1}/downsample_{int(kind == 'bn')}"
    return f"layer{stage - 1}_{block - 1}/{kind}{part}"


def _keras(names: Iterable[str], module: Callable[[str], str] = _keras_resnet) -> Renamed:
    split = {name: name.rpartition("/") for name in names}
    return {
        name: (KERAS_LEAVES[leaf][0], module(layer), KERAS_LEAVES[leaf][1]) for name, (layer, _, leaf) in split.items()
    }


def _keras_inception(names: Iterable[str]) -> Renamed:
    """Layers are named by a counter that starts at 0, 1 or anywhere: the k-th number is the k-th unit created."""
    names, units = list(names), unit_names()
    layers = {name.rpartition("/")[0] for name in names}
    modules = {"predictions": "fc"}
    for kind, leaf in (("conv2d", "conv"), ("batch_normalization", "bn")):
        numbered = {
            layer: int(match[1] or 0) for layer in layers if (match := re.fullmatch(rf"{kind}(?:_(\d+))?", layer))
        }
        if len(numbered) != len(units):
            raise UserError(
                f"the file has {len(numbered)} {kind} layers, Inception-V3 has {len(units)}: not its weights"
            )
        for layer, unit in zip(sorted(numbered, key=numbered.__getitem__), units, strict=True):
            modules[layer] = f"{unit}/{leaf}"
    return _keras(names, lambda layer: modules.get(layer, layer))


def _caffe_onnx(names: Iterable[str]) -> Renamed:
    """The model zoo's `conv1_w_0`, `conv1_b_0`; its Reshape's target shape is no weight."""
    found = {name: re.fullmatch(r"((?:conv|fc)\d)_([wb])_\d+", name) for name in names}
    leaves = {"w": "kernel", "b": "bias"}
    return {
        name: ("params", match[1], leaves[match[2]]) if match else ("params", name, "unknown")
        for name, match in found.items()
        if "shape" not in name.lower()
    }


def _matconvnet(names: Iterable[str]) -> Renamed:
    """MatConvNet's `conv1/filters`, `conv1/biases`; the mean picture is no weight."""
    leaves, split = {"filters": "kernel", "biases": "bias"}, {name: name.rpartition("/") for name in names}
    return {name: ("params", layer, leaves[leaf]) for name, (layer, _, leaf) in split.items() if layer}


def _recentred(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """MatConvNet's arrays for pictures minus `MEAN_RGB` instead of the file's mean, a channel: conv1 is not padded.

    How a mean picture differs from pixel to pixel is dropped.
    """
    if "averageImage" not in arrays or not {"conv1/filters", "conv1/biases"} <= arrays.keys():
        return arrays
    more = np.array(MEAN_RGB) - arrays["averageImage"]
    return {**arrays, "conv1/biases": arrays["conv1/biases"] + np.einsum("hwio,i->o", arrays["conv1/filters"], more)}


RULES: dict[tuple[str, str], Callable[..., Renamed]] = {
    ("alexnet", "onnx"): _caffe_onnx,
    ("alexnet_torchvision", "torchvision"): _torch,
    ("alexnet_caffe", "onnx"): _caffe_onnx,
    ("resnet50", "torchvision"): _torch,
    ("resnet50", "timm"): _torch,
    ("resnet50_v1", "keras"): _keras,
    ("inception_v3", "torchvision"): _without_aux,
    ("inception_v3", "timm"): _without_aux,
    ("inception_v3_keras", "keras"): _keras_inception,
    ("efficientnet_lite0", "lite"): _torch,
    ("efficientnet_lite0", "timm"): _timm_lite,
    ("cnn_f", "matconvnet"): _matconvnet,
}
FLATTENED = {"fc6": 256, "classifier_1": 256}  # dense layers on a flattened picture, and its channels
SINGLE_TOWER = {"conv2": 2, "conv4": 2, "conv5": 2}  # groups that the original has there


def block_diagonal(kernel: np.ndarray, groups: int) -> np.ndarray:
    """A grouped convolution's kernel as an ungrouped one: [kh, kw, I / groups, O] to [kh, kw, I, O], zeros between."""
    kh, kw, inner, outer = kernel.shape
    whole = np.zeros((kh, kw, groups, inner, groups, outer // groups), kernel.dtype)
    for g in range(groups):
        whole[:, :, g, :, g] = kernel.reshape(kh, kw, inner, groups, -1)[..., g, :]
    return whole.reshape(kh, kw, groups * inner, outer)


def _layout(name: str, source: str, module: str, leaf: str, array: np.ndarray) -> np.ndarray:
    """One array as Flax wants it: kernels kh, kw, I, O or in, out."""
    if leaf != "kernel":
        return array
    if source == "matconvnet":  # a dense layer is a convolution there, whose kernel covers all cells
        return array.reshape(-1, array.shape[-1]) if module.startswith("fc") else array
    if source != "keras":
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    if module in FLATTENED and array.ndim == 2:  # rows C, H, W to H, W, C
        channels = FLATTENED[module]
        side = int((len(array) / channels) ** 0.5)
        if channels * side**2 == len(array):
            array = array.reshape(channels, side, side, -1).transpose(1, 2, 0, 3).reshape(len(array), -1)
    if name == "alexnet" and module in SINGLE_TOWER and array.ndim == 4:
        array = block_diagonal(array, SINGLE_TOWER[module])
    return array


def convert(name: str, source: str, arrays: Mapping[str, np.ndarray], **options: Any) -> dict:
    """Foreign arrays to Flax variables.

    Args:
        name: a backbone of the registry.
        source: where the arrays come from, a key of `RULES` with `name`.
        arrays: {source name: ndarray} in the source's layout, as `formats.read` gives them.
        **options: of the variant: `aux_head=True` of `inception_v3` keeps the auxiliary head.

    Returns:
        {"params": ..., "batch_stats": ...}, float32, not yet checked against the model: `merge` does that.

    Raises:
        UserError: for a pair there is no rule for, or an array that is not finite.
    """
    if (name, source) not in RULES:
        known = ", ".join(f"{n} from {s}" for n, s in RULES)
        raise UserError(f"no rule for {name} from {source}: there is {known}")
    if arrays and all(key.startswith("module.") for key in arrays):  # saved by torch's DataParallel
        arrays = {key.removeprefix("module."): array for key, array in arrays.items()}
    if source == "matconvnet":
        arrays = _recentred(arrays)
    flat: dict[str, np.ndarray] = {}
    for key, (collection, module, leaf) in RULES[name, source](arrays, **options).items():
        array = np.asarray(arrays[key])
        if not np.all(np.isfinite(array)):
            raise UserError(f"{key} holds values that are not finite: the checkpoint is damaged, get it again")
        path = f"{collection}/{module}/{leaf}"
        if path in flat:
            raise UserError(f"{key} and another array both belong to {path}: the file holds more than one network")
        flat[path] = np.ascontiguousarray(_layout(name, source, module, leaf, array), np.float32)
    return trees.unflatten(flat)
