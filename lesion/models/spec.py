"""What there is to know of a network that slices are shown to."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import linen as nn


class ModelSpec(NamedTuple):
    """What there is to know of a variant.

    Attributes:
        module: builds it, called with `num_classes` and the variant's options.
        input_size: side in pixels of the square pictures that the weights were trained on.
        preprocess: pixel values 0-255, float32 [B, H, W, channels], RGB or grey, to what the weights were trained on.
        feature_width: D of the features [B, D] before the classifier, for pictures of 224 and more.
        num_params: at 1000 classes, without BatchNorm's running statistics; of the features alone where there is no
            such classifier.
        classifier: the modules that `num_classes=None` leaves out; none: there is no other `num_classes`.
        title: as in a table.
        last_map: the stage whose output [B, H, W, C] is pooled to the features.
        pooling: how, `mean` or `flatten`.
        channels: of a picture: 3, a grey slice three times, or 1.
        resized: whether slices are resized to `input_size`, because dense layers want that one size.
        weights_of: another row, whose converted weights are this one's too.
    """

    module: Callable[..., nn.Module]
    input_size: int
    preprocess: Callable[[jax.Array], jax.Array]
    feature_width: int
    num_params: int
    classifier: tuple[str, ...]
    title: str
    last_map: str
    pooling: str = "mean"
    channels: int = 3
    resized: bool = False
    weights_of: str = ""
