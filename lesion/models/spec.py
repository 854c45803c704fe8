"""What there is to know of a network that slices are shown to: a row of the registry."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import linen as nn

from lesion.models.stages import Backbone


class ModelSpec(NamedTuple):
    """A row of the registry.

    Attributes:
        module: builds the network, called with `num_classes` and the variant's options.
        input_size: side in pixels of the square images that the weights were trained on.
        preprocess: pixel values 0-255, float32 [B, H, W, channels], RGB or grey, to what the weights were trained on.
            Weights and features keep its name.
        feature_width: D of the features [B, D] before the classifier, for images of 224 and more.
        num_params: at 1000 classes, without BatchNorm's running statistics; of the features alone where there is no
            such classifier.
        title: as in a table.
        last_map: the stage whose output [B, H, W, C] is pooled to the features.
        pooling: how the last map becomes the features, `mean` or `flatten`.
        classifier: the modules that `num_classes=None` leaves out; none: there is no other `num_classes`.
        channels: of an image: 3, a grey slice three times, or 1.
        resized: whether slices are resized to `input_size`, because dense layers want that one size.
        weights_of: another row, whose converted weights are this one's too.
    """

    module: Callable[..., Backbone]
    input_size: int
    preprocess: Callable[[jax.Array], jax.Array]
    feature_width: int
    num_params: int
    title: str
    last_map: str
    pooling: str = "mean"
    classifier: tuple[str, ...] = ("fc",)
    channels: int = 3
    resized: bool = False
    weights_of: str = ""


class BaselineSpec(NamedTuple):
    """A row of the baselines' registry.

    Attributes:
        model: its features, with input size, channels, preprocessing and stages.
        head: builds its own classifier, features [B, D] to the logit [B]; None: a support vector machine.
        num_params: of both, for the paper's two classes.
        loss: `bce`, `margin` (with reconstruction), or `hinge` of the support vector machine.
        modes: the values of `config.mode` that it can be trained in; the first is the baseline.
        title: as in a table.
        paper_row: the row of the paper's Table 7 that it stands for.
        guesses: what is assumed here and not published, in a sentence.
    """

    model: ModelSpec
    head: Callable[[], nn.Module] | None
    num_params: int
    loss: str
    modes: tuple[str, ...]
    title: str
    paper_row: str
    guesses: str
