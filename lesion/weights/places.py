"""Names for the layers of Keras' files that have none (`.weights.h5` before Keras 3.6), by their order.

Keras writes layers by depth in the graph; a model built by hand may have them as they were made. Shapes tell which.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np

from lesion import trees
from lesion.models.inception import unit_names, unit_names_by_depth
from lesion.models.resnet import LAYERS
from lesion.weights.fit import shapes

PLACE = re.compile(r"(\w+)@(\d+)/(\w+)")  # of an array, as `keras_files` calls it
KINDS = {"conv2d": "conv", "batch_normalization": "bn"}


def name_places(name: str, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Renames `conv2d@3/kernel` to `layer1_0/downsample_0/kernel`, the module here; other names stay.

    Args:
        name: a backbone of the registry, with weights from Keras.
        arrays: {name: array} of `keras_files.read_hdf5`.

    Returns:
        The arrays under names of the order whose shapes fit the backbone, of the order by depth if none does.
    """
    if not any("@" in key for key in arrays):
        return arrays
    orders = [{key: _module_name(key, modules) for key in arrays} for modules in _orders(name)]
    expected = trees.flatten(shapes(name, False)["params"])

    def fits(order: Mapping[str, str]) -> bool:
        return all(
            leaf.shape == arrays[key].shape for key, new in order.items() if (leaf := expected.get(new)) is not None
        )

    order = next(filter(fits, orders), orders[0])
    return {order[key]: array for key, array in arrays.items()}


def _module_name(key: str, modules: Mapping[str, list[str]]) -> str:
    match = PLACE.fullmatch(key)
    if not match:
        return key
    kind, number, leaf = match[1], int(match[2]), match[3]
    if kind == "dense" and number == 0:
        return f"fc/{leaf}"
    places = modules.get(kind, [])
    return f"{places[number]}/{leaf}" if number < len(places) else key


def _orders(name: str) -> Iterator[dict[str, list[str]]]:
    """Yields the modules of the convolutions and of the BatchNorms, by depth and as they are made."""
    if name == "inception_v3_keras":
        for units in (unit_names_by_depth(), unit_names()):
            yield {kind: [f"{unit}/{part}" for unit in units] for kind, part in KINDS.items()}
    else:  # part 0 of a block, beside the other three, is made first and as deep as the third
        for parts in ((1, 2, 0, 3), (0, 1, 2, 3)):
            yield {kind: _resnet_modules(part, parts) for kind, part in KINDS.items()}


def _resnet_modules(kind: str, parts: tuple[int, ...]) -> list[str]:
    modules = [f"{kind}1"]
    for stage, (repeats, *_) in enumerate(LAYERS, 1):
        for block in range(repeats):
            modules += [resnet_module(stage, block, kind, part) for part in parts if part or not block]
    return modules


def resnet_module(stage: int, block: int, kind: str, part: int) -> str:
    """Returns the module of a block's `conv` or `bn`; part 0 is the one beside the other three."""
    return f"layer{stage}_{block}/" + (f"{kind}{part}" if part else f"downsample_{int(kind == 'bn')}")
