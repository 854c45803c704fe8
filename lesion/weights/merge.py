"""Puts loaded arrays in the place of a model's own, strictly."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lesion import trees
from lesion.errors import UserError

SHOWN = 8  # names in an error's line


def merge(variables: Mapping[str, Any], loaded: Mapping[str, Any], reinitialise: str | None = None) -> dict:
    """Replaces every leaf of `variables` by the loaded one of the same name.

    Args:
        variables: what `model.init` gave (arrays or `jax.ShapeDtypeStruct`).
        loaded: the same tree from a checkpoint.
        reinitialise: regex of leaf names, e.g. `^params/fc/`, that keep `variables`' value whatever was loaded.

    Returns:
        The merged tree.

    Raises:
        UserError: if a leaf is missing, extra, or of another shape or type; it lists the names.
    """

    def is_kept(name: str) -> bool:
        return reinitialise is not None and re.search(reinitialise, name) is not None

    own = trees.flatten(variables)
    wanted = {name: leaf for name, leaf in own.items() if not is_kept(name)}
    given = {name: leaf for name, leaf in trees.flatten(loaded).items() if not is_kept(name)}
    wrong = [f"missing {name}" for name in wanted.keys() - given.keys()]
    wrong += [f"extra {name}" for name in given.keys() - wanted.keys()]
    for name in wanted.keys() & given.keys():
        expected, found = wanted[name], given[name]
        if tuple(expected.shape) != tuple(found.shape) or np.dtype(expected.dtype) != np.dtype(found.dtype):
            wrong.append(f"{name} is {found.dtype}{list(found.shape)}, not {expected.dtype}{list(expected.shape)}")
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        names = "; ".join(sorted(wrong)[:SHOWN]) + more
        raise UserError(f"the weights do not fit the model: {names}: was it converted for this variant?")
    return trees.unflatten(own | given)
