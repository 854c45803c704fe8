"""Replaces a model's variables by loaded ones; both must agree in names, shapes and types."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lesion import trees
from lesion.errors import UserError

SHOWN = 8  # number of names that an error lists


def merge(variables: Mapping[str, Any], loaded: Mapping[str, Any], reinitialise: str | None = None) -> dict:
    """Replaces every leaf of `variables` by the loaded leaf of the same name.

    Args:
        variables: variables from `model.init` (arrays or `jax.ShapeDtypeStruct`).
        loaded: tree of a checkpoint with the same leaves.
        reinitialise: regex of names, e.g. `^params/fc/`, of leaves that keep the value in `variables`.

    Returns:
        The merged tree.

    Raises:
        UserError: if a leaf is missing, extra, or of another shape or type; lists the names.
    """

    def is_kept(name: str) -> bool:
        return reinitialise is not None and re.search(reinitialise, name) is not None

    own = trees.flatten(variables)
    wanted = {name: leaf for name, leaf in own.items() if not is_kept(name)}
    given = {name: leaf for name, leaf in trees.flatten(loaded).items() if not is_kept(name)}
    wrong = [f"missing {name}" for name in wanted.keys() - given.keys()]
    wrong += [f"extra {name}" for name in given.keys() - wanted.keys()]
    for name in wanted.keys() & given.keys():
        expected, actual = wanted[name], given[name]
        if tuple(expected.shape) != tuple(actual.shape) or np.dtype(expected.dtype) != np.dtype(actual.dtype):
            wrong.append(f"{name} is {actual.dtype}{list(actual.shape)}, not {expected.dtype}{list(expected.shape)}")
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        names = "; ".join(sorted(wrong)[:SHOWN]) + more
        raise UserError(f"the weights do not fit the model: {names}: was it converted for this variant?")
    return trees.unflatten(own | given)
