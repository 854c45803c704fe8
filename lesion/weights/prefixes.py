"""The network among a torch checkpoint's arrays: below a prefix, as children of a Sequential, beside other networks.

Wrappers name a network's arrays anew: DataParallel `module.conv1.weight`, Lightning `model.conv1.weight`, a training
loop `teacher.backbone.conv1.weight`, and RadImageNet's `nn.Sequential(*children)` `backbone.0.weight`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lesion import models, trees
from lesion.errors import UserError
from lesion.models.inception import unit_names
from lesion.weights.fit import list_names, shapes

# Where a file holds several copies of the network, the first whose prefix has one of these parts is taken.
PREFERRED = ("state_dict", "model_state_dict", "model", "teacher", "ema", "encoder_q", "online", "online_encoder")
RESNET = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")
# The modules with arrays, in torch's order, of networks that may come as numbered children.
CHILDREN = {
    "resnet50": RESNET,
    "resnet50_v1": RESNET,
    "inception_v3": (*dict.fromkeys(unit.split("/")[0] for unit in unit_names()), "fc"),
    "alexnet_torchvision": ("features", "classifier"),
}
LEAST_SHARE = 0.5  # of the features' variables that must be found below a prefix

Arrays = Mapping[str, np.ndarray]


def find_network(name: str, arrays: Arrays, rule: Callable[[Any], Mapping[str, Any]]) -> tuple[Arrays, list[str]]:
    """Finds the arrays of a backbone in a file of torch, and gives them their plain names.

    Args:
        name: a backbone of the registry.
        arrays: {name: array} as the file has them.
        rule: name rule of the file's source, see `rules.Rule`.

    Returns:
        {plain name: array}, and the names in the file of arrays that belong to something else. If no prefix helps,
        that is all arrays, and none.

    Raises:
        UserError: if the file holds several networks between which nothing decides.
    """
    own = {*models.stage_names(name), *models.get_spec(name).classifier}

    def paths(names: Mapping[str, Any]) -> list[str]:
        try:
            return ["/".join(target) for target in rule(names).values()]
        except (ValueError, IndexError, KeyError):  # names below a wrong prefix
            return []

    if all(path.split("/")[1] in own for path in paths(arrays)):
        return arrays, []  # plain names, as nearly always; the shapes below take a second
    expected = trees.flatten(shapes(name, False))

    def score(names: Mapping[str, Any]) -> int:
        return len(expected.keys() & set(paths(names)))

    candidates: dict[str, dict[str, str]] = {}  # prefix: {plain name: name in the file}
    best = max(score(arrays), LEAST_SHARE * len(expected))
    if score(arrays) >= best:
        return arrays, []
    for prefix in dict.fromkeys(p for key in arrays for p in _prefixes(key)):
        below = {key.removeprefix(prefix): key for key in arrays if key.startswith(prefix)}
        for plain in (below, _unnumbered(name, below)):
            found = score(plain)
            if found > best:
                candidates.clear()
            if found >= best:
                best = found
                candidates.setdefault(prefix, plain)
    if not candidates:
        return arrays, []
    chosen = candidates[_choose(list(candidates))]
    return {plain: arrays[key] for plain, key in chosen.items()}, sorted(arrays.keys() - set(chosen.values()))


def _prefixes(key: str) -> list[str]:
    """Returns "", `a.`, `a.b.` for `a.b.c`."""
    parts = key.split(".")
    return ["".join(f"{part}." for part in parts[:n]) for n in range(len(parts))]


def _unnumbered(name: str, below: Mapping[str, str]) -> dict[str, str]:
    """Names the children `0`, `1`, `4`, ... of a Sequential as the network does; empty if they have no numbers."""
    firsts = {key.partition(".")[0] for key in below}
    numbers = sorted(int(first) for first in firsts if first.isdecimal())
    # An auxiliary classifier, the one child of Inception with a `conv0`, has no place among the others.
    numbers = [n for n in numbers if f"{n}.conv0.conv.weight" not in below]
    modules = {str(n): module for n, module in zip(numbers, CHILDREN.get(name, ()), strict=False)}
    parts = {key: key.partition(".") for key in below}
    return {f"{modules[i]}.{rest}": below[key] for key, (i, _, rest) in parts.items() if i in modules}


def _choose(prefixes: list[str]) -> str:
    if len(prefixes) == 1:
        return prefixes[0]
    for word in PREFERRED:
        for prefix in prefixes:
            if word in prefix.split("."):
                return prefix
    raise UserError(
        f"the file holds several networks, below {list_names(prefixes)}: save the arrays of one of them to a file"
    )
