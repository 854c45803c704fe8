"""Puts loaded arrays in the place of a model's own, strictly."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lesion import trees
from lesion.errors import UserError


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
    ours, theirs = trees.flatten(variables), trees.flatten(loaded)
    kept = {k for k in ours if reinitialise and re.search(reinitialise, k)}
    theirs = {k: v for k, v in theirs.items() if not (reinitialise and re.search(reinitialise, k))}
    wrong = [f"missing {k}" for k in ours.keys() - kept - theirs.keys()]
    wrong += [f"extra {k}" for k in theirs.keys() - ours.keys()]
    for k in ours.keys() & theirs.keys() - kept:
        expected, found = ours[k], theirs[k]
        if tuple(expected.shape) != tuple(found.shape) or np.dtype(expected.dtype) != np.dtype(found.dtype):
            wrong.append(f"{k} is {found.dtype}{list(found.shape)}, not {expected.dtype}{list(expected.shape)}")
    if wrong:
        shown = "; ".join(sorted(wrong)[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise UserError(f"the weights do not fit the model: {shown}: was it converted for this variant?")
    return trees.unflatten({k: ours[k] if k in kept else theirs[k] for k in ours})
