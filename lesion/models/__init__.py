"""The registry: one row a variant of a backbone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.errors import UserError
from lesion.models.efficientnet_lite import EfficientNetLite0


class ModelSpec(NamedTuple):
    """What there is to know of a variant.

    Attributes:
        module: builds it, called with `num_classes` and the variant's options.
        input_size: side of the square input in pixels.
        preprocess: pixel values 0-255, float32 [B, H, W, 3] RGB, to what the weights were trained on.
        feature_width: D of the features [B, D] before the classifier.
        num_params: at 1000 classes, without BatchNorm's running statistics.
    """

    module: Callable[..., nn.Module]
    input_size: int
    preprocess: Callable[[jax.Array], jax.Array]
    feature_width: int
    num_params: int


def _lite(x: jax.Array) -> jax.Array:
    return (x - 127.0) / 128.0


MODELS = {
    "efficientnet_lite0": ModelSpec(EfficientNetLite0, 224, _lite, 1280, 4_652_008),
}


def get_spec(name: str) -> ModelSpec:
    """The registry's row; an unknown name is a `UserError` that lists the known ones."""
    if name not in MODELS:
        raise UserError(f"no backbone {name!r}: choose one of {', '.join(MODELS)}")
    return MODELS[name]


def get_model(name: str, num_classes: int | None = 1000, **options: Any) -> nn.Module:
    """Builds a backbone.

    Args:
        name: a row of `MODELS`.
        num_classes: width of the classifier; None gives features [B, D].
        **options: of the variant.

    Returns:
        A module: `model.apply(variables, images [B, H, W, 3] float32, train=False)` gives logits [B, num_classes].
    """
    return get_spec(name).module(num_classes=num_classes, **options)


def preprocess(name: str, image: jax.Array) -> jax.Array:
    """Grey slices to a backbone's input.

    Args:
        name: a row of `MODELS`.
        image: [B, H, W], grey values 0-255, uint8 or float32.

    Returns:
        float32 [B, H, W, 3].
    """
    assert image.ndim == 3, image.shape
    rgb = jnp.broadcast_to(image.astype(jnp.float32)[..., None], (*image.shape, 3))
    return get_spec(name).preprocess(rgb)
