"""What a backbone expects of a file: the shapes of its variables, and which arrays belong to a head that may go."""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lesion import models, trees

SHOWN = 4  # number of names that a sentence lists


@functools.cache
def shapes(name: str, classifier: bool = True) -> dict:
    """Returns the shapes of a backbone's variables, at 1000 classes or without classifier; computes no arrays."""
    model = models.get_model(name, 1000 if classifier else None)
    return jax.eval_shape(lambda key: model.init(key, blank_image(name)), jax.random.key(0))


def blank_image(name: str) -> jax.Array:
    """Returns a black image [1, H, W, channels] to initialise a backbone with."""
    spec = models.get_spec(name)
    return jnp.zeros((1, spec.input_size, spec.input_size, spec.channels))


def list_names(names: Iterable[str]) -> str:
    """Returns the first names, joined, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(ordered[:SHOWN]) + more


def _stem(path: str) -> str:
    """Returns `layer3` for `params/layer3_5/conv1/kernel`."""
    return re.sub(r"(_\d+)+$", "", path.split("/")[1])


def without_foreign_head(name: str, variables: Mapping[str, Any]) -> tuple[dict, list[str]]:
    """Leaves out a classifier that is not ImageNet's: of another number of classes, or of layers of its own.

    Nothing is left out unless all features' variables are there and fit. A convolution, or a layer whose name is that
    of a stage (`layer3_6`, of a deeper network), is no head: `merge` refuses those by name.

    Args:
        name: a backbone of the registry.
        variables: what `rules.convert` returned.

    Returns:
        The variables, and the names of those left out.
    """
    given, features = trees.flatten(variables), trees.flatten(shapes(name, False))
    whole = trees.flatten(shapes(name))
    if {n: tuple(a.shape) for n, a in given.items()} == {n: s.shape for n, s in whole.items()}:
        return dict(variables), []
    if any(n not in given or tuple(given[n].shape) != s.shape for n, s in features.items()):
        return dict(variables), []
    head = sorted(given.keys() - features.keys())
    stems = {_stem(n) for n in features}
    if any(_stem(n) in stems or len(given[n].shape) > 2 for n in head):
        return dict(variables), []
    return trees.unflatten({n: given[n] for n in features}), [f"{n} {list(given[n].shape)}" for n in head]
