"""Conversion of names and layouts to Flax's: a name rule for each backbone and source (`RULES`), and `convert`."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from lesion import trees
from lesion.errors import UserError
from lesion.models.inception import unit_names
from lesion.models.preprocessing import MEAN_RGB
from lesion.weights import places, prefixes


class Target(NamedTuple):
    """The place of an array among a backbone's variables, e.g. `params`, `layer1_0/conv1`, `kernel`."""

    collection: str
    module: str
    leaf: str


# A name rule maps all array names of a file to {name: target}, without the arrays that are not needed.
Rule = Callable[[Iterable[str]], dict[str, Target]]

TORCH_NORM_LEAVES = {
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


def torch_module(path: str) -> str:
    """Returns `blocks_0/bn1` for `_blocks.0._bn1`: indices join the name before them, leading underscores go."""
    return "/".join(part.lstrip("_") for part in re.sub(r"\.(\d+)", r"_\1", path).split("."))


def torch_rule(names: Iterable[str], module: Callable[[str], str] = torch_module) -> dict[str, Target]:
    """Maps torch's names; `weight` is a BatchNorm's scale where the module has running statistics, else a kernel."""
    names = [n for n in names if not n.endswith("num_batches_tracked")]
    norms = {n.rpartition(".")[0] for n in names if n.endswith(".running_mean")}
    targets = {}
    for name in names:
        path, _, leaf = name.rpartition(".")
        if path in norms and leaf in TORCH_NORM_LEAVES:
            collection, leaf = TORCH_NORM_LEAVES[leaf]
        else:
            collection, leaf = "params", "kernel" if leaf == "weight" else leaf
        targets[name] = Target(collection, module(path), leaf)
    return targets


def torch_inception_rule(names: Iterable[str]) -> dict[str, Target]:
    """Maps torchvision's and timm's Inception names without the auxiliary classifier, which the network here lacks."""
    return torch_rule(n for n in names if not n.startswith("AuxLogits."))


TIMM_STEM_AND_TOP = {"conv_stem": "conv_stem", "bn1": "bn0", "conv_head": "conv_head", "bn2": "bn1", "classifier": "fc"}
TIMM_WIDENING_BLOCK = {
    "conv_pw": "expand_conv",
    "bn1": "bn0",
    "conv_dw": "depthwise_conv",
    "bn2": "bn1",
    "conv_pwl": "project_conv",
    "bn3": "bn2",
}
TIMM_FIRST_BLOCK = {"conv_dw": "depthwise_conv", "bn1": "bn1", "conv_pw": "project_conv", "bn2": "bn2"}


def timm_lite_rule(names: Iterable[str]) -> dict[str, Target]:
    """Maps the names of timm's `tf_efficientnet_lite0`, which counts blocks per stage and renames their parts."""
    names = list(names)
    blocks = sorted({tuple(map(int, n.split(".")[1:3])) for n in names if n.startswith("blocks.")})
    widening = {n.rpartition(".conv_pwl")[0] for n in names if ".conv_pwl." in n}

    def module(path: str) -> str:
        if not path.startswith("blocks."):
            return TIMM_STEM_AND_TOP.get(path, path)
        block, _, part = path.rpartition(".")
        index = blocks.index(tuple(map(int, block.split(".")[1:3])))
        parts = TIMM_WIDENING_BLOCK if block in widening else TIMM_FIRST_BLOCK
        return f"blocks_{index}/{parts.get(part, part)}"

    return torch_rule(names, module)


def keras_resnet_module(layer: str) -> str:
    """Returns `layer1_0/downsample_0` for Keras' `conv2_block1_0_conv`, or `res2a_branch1` in files of 2016."""
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
    return places.resnet_module(stage - 1, block - 1, kind, part)


def keras_rule(names: Iterable[str], module: Callable[[str], str] = keras_resnet_module) -> dict[str, Target]:
    """Maps Keras' names `layer/leaf`; `module` gives the Flax module of a layer."""
    targets = {}
    for name in names:
        layer, _, leaf = name.rpartition("/")
        collection, leaf = KERAS_LEAVES.get(leaf, ("params", leaf))
        targets[name] = Target(collection, module(layer), leaf)
    return targets


def keras_inception_rule(names: Iterable[str]) -> dict[str, Target]:
    """Maps the names of Keras' Inception, whose layers are numbered by a counter that may start anywhere.

    The layer with the k-th smallest number belongs to the k-th of `unit_names`; more layers than units are of a head on
    top.
    """
    names, units = list(names), unit_names()
    layers = {name.rpartition("/")[0] for name in names}
    modules = {"predictions": "fc"}
    for kind, leaf in (("conv2d", "conv"), ("batch_normalization", "bn")):
        numbers = {
            layer: int(match[1] or 0) for layer in layers if (match := re.fullmatch(rf"{kind}(?:_(\d+))?", layer))
        }
        if len(numbers) < len(units) and not any(layer.startswith("Mixed_") for layer in layers):  # named by its place
            raise UserError(
                f"the file has {len(numbers)} {kind} layers, Inception-V3 has {len(units)}: not its weights"
            )
        for layer, unit in zip(sorted(numbers, key=numbers.__getitem__), units, strict=False):
            modules[layer] = f"{unit}/{leaf}"
    return keras_rule(names, lambda layer: modules.get(layer, layer))


def caffe_onnx_rule(names: Iterable[str]) -> dict[str, Target]:
    """Maps the ONNX model zoo's names `conv1_w_0`, `conv1_b_0`; drops Reshape's target shape, which is no weight."""
    matches = {name: re.fullmatch(r"((?:conv|fc)\d)_([wb])_\d+", name) for name in names}
    leaves = {"w": "kernel", "b": "bias"}
    return {
        name: Target("params", match[1], leaves[match[2]]) if match else Target("params", name, "unknown")
        for name, match in matches.items()
        if "shape" not in name.lower()
    }


def matconvnet_rule(names: Iterable[str]) -> dict[str, Target]:
    """Maps MatConvNet's names `conv1/filters`, `conv1/biases`; drops the mean image, which is no weight."""
    leaves, parts = {"filters": "kernel", "biases": "bias"}, {name: name.rpartition("/") for name in names}
    return {name: Target("params", layer, leaves[leaf]) for name, (layer, _, leaf) in parts.items() if layer}


RULES: dict[tuple[str, str], Rule] = {
    ("alexnet", "onnx"): caffe_onnx_rule,
    ("alexnet_torchvision", "torchvision"): torch_rule,
    ("alexnet_caffe", "onnx"): caffe_onnx_rule,
    ("resnet50", "torchvision"): torch_rule,
    ("resnet50", "timm"): torch_rule,
    ("resnet50_v1", "keras"): keras_rule,
    ("resnet50_v1", "torchvision"): torch_rule,  # Keras' network in torch, as a port of RadImageNet's has it
    ("inception_v3", "torchvision"): torch_inception_rule,
    ("inception_v3", "timm"): torch_inception_rule,
    ("inception_v3_keras", "keras"): keras_inception_rule,
    ("efficientnet_lite0", "lite"): torch_rule,
    ("efficientnet_lite0", "timm"): timm_lite_rule,
    ("cnn_f", "matconvnet"): matconvnet_rule,
}
TORCH_SOURCES = ("torchvision", "timm", "lite")
FLATTENED = {"fc6": 256, "classifier_1": 256}  # dense layers on a flattened map: its number of channels
SINGLE_TOWER = {"conv2": 2, "conv4": 2, "conv5": 2}  # AlexNet's convolutions: their groups in the original


def find_rule(name: str, source: str) -> Rule:
    """Returns the name rule of a backbone and a source; a `UserError` for a pair without one lists the known pairs."""
    if (name, source) not in RULES:
        known = ", ".join(f"{n} from {s}" for n, s in RULES)
        raise UserError(f"no rule for {name} from {source}: there is {known}")
    return RULES[name, source]


def block_diagonal(kernel: np.ndarray, groups: int) -> np.ndarray:
    """Returns a grouped convolution's kernel [kh, kw, I / groups, O] as an ungrouped one's [kh, kw, I, O]."""
    assert kernel.ndim == 4 and kernel.shape[3] % groups == 0, (kernel.shape, groups)
    kh, kw, inner, outer = kernel.shape
    whole = np.zeros((kh, kw, groups, inner, groups, outer // groups), kernel.dtype)
    for g in range(groups):
        whole[:, :, g, :, g] = kernel.reshape(kh, kw, inner, groups, -1)[..., g, :]
    return whole.reshape(kh, kw, groups * inner, outer)


def _flax_kernel(name: str, source: str, module: str, array: np.ndarray) -> np.ndarray:
    """Returns a kernel in Flax's layout: [kh, kw, I, O] for a convolution, [I, O] for a dense layer."""
    if source == "matconvnet":  # its dense layers are convolutions whose kernel covers all cells
        return array.reshape(-1, array.shape[-1]) if module.startswith("fc") else array
    if source != "keras":
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    if module in FLATTENED and array.ndim == 2:  # reorders rows from C, H, W to H, W, C
        channels = FLATTENED[module]
        side = int((len(array) / channels) ** 0.5)
        if channels * side**2 == len(array):
            array = array.reshape(channels, side, side, -1).transpose(1, 2, 0, 3).reshape(len(array), -1)
    if name == "alexnet" and module in SINGLE_TOWER and array.ndim == 4:
        array = block_diagonal(array, SINGLE_TOWER[module])
    return array


def _recentred(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Returns MatConvNet's arrays for inputs minus `MEAN_RGB` instead of minus the file's mean of each channel.

    conv1's biases absorb the difference, exactly, since conv1 is not padded; the mean's spatial pattern is ignored.
    """
    if "averageImage" not in arrays or not {"conv1/filters", "conv1/biases"} <= arrays.keys():
        return arrays
    difference = np.array(MEAN_RGB) - arrays["averageImage"]
    shift = np.einsum("hwio,i->o", arrays["conv1/filters"], difference)
    return {**arrays, "conv1/biases": arrays["conv1/biases"] + shift}


def find_network(
    name: str, source: str, arrays: Mapping[str, np.ndarray]
) -> tuple[Mapping[str, np.ndarray], list[str]]:
    """Returns a backbone's arrays under their source's plain names, and the names of all others in the file."""
    rule = find_rule(name, source)
    if source not in TORCH_SOURCES:
        return arrays, []
    return prefixes.find_network(name, arrays, rule)


def convert(name: str, source: str, arrays: Mapping[str, np.ndarray]) -> dict:
    """Turns foreign arrays into Flax variables.

    Args:
        name: a backbone of the registry.
        source: source of the arrays; (name, source) is a key of `RULES`.
        arrays: {source name: ndarray} in the source's layout, as `formats.read` gives them.

    Returns:
        {"params": ..., "batch_stats": ...}, float32, not yet checked against the model: `merge` does that.

    Raises:
        UserError: if there is no rule for the pair, an array is not finite, two arrays have one target, or the file
            holds several networks.
    """
    find_rule(name, source)
    try:
        return _convert(name, source, arrays)
    except (ValueError, TypeError, LookupError, AssertionError) as error:  # names and shapes of a damaged file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"these are not the arrays of {name} from {source} ({reason}): get the file again, or name its source"
        ) from error


def _convert(name: str, source: str, arrays: Mapping[str, np.ndarray]) -> dict:
    rule = find_rule(name, source)
    arrays, _ = find_network(name, source, arrays)
    if source == "matconvnet":
        arrays = _recentred(arrays)
    if source == "keras":
        arrays = places.name_places(name, arrays)
    flat: dict[str, np.ndarray] = {}
    for key, target in rule(arrays).items():
        array = np.asarray(arrays[key])
        if not np.all(np.isfinite(array)):
            raise UserError(f"{key} holds values that are not finite: the checkpoint is damaged, get it again")
        path = "/".join(target)
        if path in flat:
            raise UserError(f"{key} and another array both belong to {path}: the file holds more than one network")
        if target.leaf == "kernel":
            array = _flax_kernel(name, source, target.module, array)
        flat[path] = np.ascontiguousarray(array, np.float32)
    return trees.unflatten(flat)
