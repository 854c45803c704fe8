"""The rows of the registries: what the rest of the code knows of a network."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import linen as nn

from lesion.models.stages import Backbone


class ModelSpec(NamedTuple):
    """A network and how to use it: a row of `MODELS`, or part of a row of `BASELINES`.

    Attributes:
        module: function or class that builds the network, called with `num_classes` and the variant's options.
        input_size: side in pixels of the square images that the weights were trained on.
        preprocess: function from pixel values 0-255, float32 [B, H, W, channels], RGB or grey, to what the weights
            were trained on. Converted weights and cached features record its name.
        feature_width: width D of the features [B, D] before the classifier, for images of 224 pixels and more.
        num_params: number of parameters at 1000 classes, without BatchNorm's running statistics; without the
            classifier if the network has none.
        title: name in tables.
        last_map: stage whose output [B, H, W, C] is pooled to the features.
        pooling: how the last map becomes the features, `mean` or `flatten`.
        classifier: modules that `num_classes=None` leaves out; empty if the network has no classifier.
        channels: channels of an image: 3, which repeat the grey slice, or 1.
        resized: whether slices are resized to `input_size`, because dense layers need that size.
        weights_of: name of another row whose converted weights fit this one too; empty if there is none.
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
    """A baseline of the paper's Table 7: a row of `BASELINES`.

    Attributes:
        model: spec of the network below the head: input size, channels, preprocessing, stages.
        head: function that builds its classifier, from features [B, D] to the logit [B]; None for an SVM.
        num_params: number of parameters of network and head, for the paper's two classes.
        loss: loss that is minimised: `bce`, `margin` (with reconstruction), or `hinge` of the support vector machine.
        modes: values of `config.mode` in which it can be trained; the first is the baseline.
        title: name in tables.
        paper_row: row of the paper's Table 7 that it stands for.
        guesses: sentence on what is assumed because it is not published.
    """

    model: ModelSpec
    head: Callable[[], nn.Module] | None
    num_params: int
    loss: str
    modes: tuple[str, ...]
    title: str
    paper_row: str
    guesses: str
