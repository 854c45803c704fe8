"""From a source's names and layouts to ours: one name rule and one layout rule a source."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from lesion import trees
from lesion.errors import UserError


class Rule(NamedTuple):
    """How one source names and lays out its arrays.

    Attributes:
        ignore: regex of source names that hold nothing to keep.
        rename: source name, e.g. `layer1.0.conv1.weight`, to (module path, leaf).
    """

    ignore: str
    rename: Callable[[str], tuple[str, str]]


def _torch_module(path: str) -> str:
    """`_blocks.0._bn1` to `blocks_0/bn1`: indices join the name before them, leading underscores go."""
    return "/".join(part.lstrip("_") for part in re.sub(r"\.(\d+)", r"_\1", path).split("."))


def _torch_rename(name: str) -> tuple[str, str]:
    path, _, leaf = name.rpartition(".")
    return _torch_module(path), leaf


RULES: dict[tuple[str, str], Rule] = {
    ("efficientnet_lite0", "lite"): Rule(r"num_batches_tracked$", _torch_rename),
}


def _torch_leaf(leaf: str, array: np.ndarray, is_norm: bool) -> tuple[str, str, np.ndarray]:
    """(collection, name, array in Flax layout) of one torch leaf."""
    if is_norm:
        collection, name = {
            "weight": ("params", "scale"),
            "bias": ("params", "bias"),
            "running_mean": ("batch_stats", "mean"),
            "running_var": ("batch_stats", "var"),
        }[leaf]
        return collection, name, array
    if leaf == "weight":
        # (O, I, kh, kw) -> (kh, kw, I, O); (O, I) -> (I, O)
        return "params", "kernel", array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return "params", leaf, array


def convert(name: str, source: str, arrays: Mapping[str, np.ndarray]) -> dict:
    """Foreign arrays to Flax variables.

    Args:
        name: a backbone of the registry.
        source: where the arrays come from, a key of `RULES` with `name`.
        arrays: {source name: ndarray} in the source's layout.

    Returns:
        {"params": ..., "batch_stats": ...}, float32, not yet checked against the model: `merge` does that.

    Raises:
        UserError: for a pair there is no rule for, or an array that is not finite.
    """
    if (name, source) not in RULES:
        known = ", ".join(f"{n} from {s}" for n, s in RULES)
        raise UserError(f"no rule for {name} from {source}: there is {known}")
    rule = RULES[name, source]
    norms = {n.rpartition(".")[0] for n in arrays if n.endswith(".running_mean")}
    flat: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        if re.search(rule.ignore, key):
            continue
        if not np.all(np.isfinite(array)):
            raise UserError(f"{key} holds values that are not finite: the checkpoint is damaged, get it again")
        module, leaf = rule.rename(key)
        collection, leaf, array = _torch_leaf(leaf, array, key.rpartition(".")[0] in norms)
        flat[f"{collection}/{module}/{leaf}"] = np.ascontiguousarray(array, np.float32)
    return trees.unflatten(flat)
