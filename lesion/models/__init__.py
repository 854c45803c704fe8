"""The registry of networks: each row of `MODELS` is a variant of a backbone, each of `BASELINES` one of Table 7's.

A new backbone needs a `stages.Backbone` and a row here, see README.md in this folder.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lesion.errors import UserError
from lesion.models.alexnet import AlexNet, AlexNetTorchvision
from lesion.models.baselines import BASELINES, baseline_table, describe
from lesion.models.efficientnet_lite import EfficientNetLite0
from lesion.models.inception import InceptionV3
from lesion.models.preprocessing import bvlc, keras_caffe, keras_tf, lite, torchvision_mean_std
from lesion.models.resnet import ResNet50
from lesion.models.spec import BaselineSpec, ModelSpec
from lesion.models.stages import Backbone, find_stages

__all__ = ["BASELINES", "MODELS", "BaselineSpec", "ModelSpec", "baseline_table", "describe"]

MODELS = {
    "alexnet": ModelSpec(
        module=AlexNet,
        input_size=224,
        preprocess=bvlc,
        feature_width=9216,
        num_params=62_378_344,
        title="AlexNet, single tower",
        last_map="pool5",
        pooling="flatten",
        classifier=("fc6", "fc7", "fc8"),
    ),
    "alexnet_torchvision": ModelSpec(
        module=AlexNetTorchvision,
        input_size=224,
        preprocess=torchvision_mean_std,
        feature_width=9216,
        num_params=61_100_840,
        title="AlexNet, torchvision",
        last_map="avgpool",
        pooling="flatten",
        classifier=("classifier_1", "classifier_4", "classifier_6"),
    ),
    "alexnet_caffe": ModelSpec(
        module=functools.partial(AlexNet, groups=2),
        input_size=224,
        preprocess=bvlc,
        feature_width=9216,
        num_params=60_965_224,
        title="AlexNet, two groups",
        last_map="pool5",
        pooling="flatten",
        classifier=("fc6", "fc7", "fc8"),
    ),
    "resnet50": ModelSpec(
        module=ResNet50,
        input_size=224,
        preprocess=torchvision_mean_std,
        feature_width=2048,
        num_params=25_557_032,
        title="ResNet-50 v1.5, torchvision",
        last_map="layer4",
    ),
    "resnet50_v1": ModelSpec(
        module=functools.partial(ResNet50, v1=True, conv_bias=True, epsilon=1.001e-5, momentum=0.99),
        input_size=224,
        preprocess=keras_caffe,
        feature_width=2048,
        num_params=25_583_592,
        title="ResNet-50 v1, Keras",
        last_map="layer4",
    ),
    "inception_v3": ModelSpec(
        module=InceptionV3,
        input_size=299,
        preprocess=keras_tf,  # [-1, 1], as torchvision's normalisation followed by its `transform_input`
        feature_width=2048,
        num_params=23_834_568,
        title="Inception-V3, torchvision",
        last_map="Mixed_7c",
    ),
    "inception_v3_keras": ModelSpec(
        module=functools.partial(InceptionV3, bn_scale=False, count_padding=False, dropout=0.0, momentum=0.99),
        input_size=299,
        preprocess=keras_tf,
        feature_width=2048,
        num_params=23_817_352,
        title="Inception-V3, Keras",
        last_map="Mixed_7c",
    ),
    "efficientnet_lite0": ModelSpec(
        module=EfficientNetLite0,
        input_size=224,
        preprocess=lite,
        feature_width=1280,
        num_params=4_652_008,
        title="EfficientNet-Lite0",
        last_map="bn1",
    ),
}


def get_spec(name: str) -> ModelSpec:
    """Returns the spec of a row of `MODELS` or `BASELINES`; an unknown name is a `UserError` that lists the rows."""
    if name in BASELINES:
        return BASELINES[name].model
    if name not in MODELS:
        raise UserError(f"no backbone {name!r}: choose one of {', '.join([*MODELS, *BASELINES])}")
    return MODELS[name]


def get_model(name: str, num_classes: int | None = 1000, **options: Any) -> Backbone:
    """Builds a backbone.

    Args:
        name: a row of `MODELS` or `BASELINES`.
        num_classes: width of the classifier; None builds a network that returns features [B, D].
        **options: further attributes of the module, e.g. `axis_name`, see `stages.Backbone`.

    Returns:
        A module: `model.apply(variables, images [B, H, W, 3] float32, train=False)` gives logits [B, num_classes];
        `start="layer3"` takes that stage's output instead of images, `stop="layer3"` returns it.
    """
    return get_spec(name).module(num_classes=num_classes, **options)


def table() -> dict[str, dict[str, Any]]:
    """Returns the paper's Table 2 as JSON-able values: title, parameters, input size, feature width."""
    fields = ("title", "num_params", "input_size", "feature_width")
    return {name: {field: getattr(spec, field) for field in fields} for name, spec in MODELS.items()}


def stage_names(name: str) -> tuple[str, ...]:
    """Returns the names of a backbone's stages in order; `start` and `stop` of its call accept them."""
    return tuple(stage for stage, _ in get_model(name).stages(False))


def map_stages(name: str) -> tuple[str, ...]:
    """Returns the names of a backbone's stages in order, up to the stage whose output is its last map."""
    names = stage_names(name)
    return names[: find_stages(names, get_spec(name).last_map)[-1] + 1]


def stage_before(name: str, first: str) -> str | None:
    """Returns the name of the stage before `first`, None if `first` is a network's first stage.

    `first` may be a prefix, see `find_stages`. An unknown stage raises a `UserError` that lists the known ones.
    """
    names = stage_names(name)
    positions = find_stages(names, first)
    if not positions:
        raise UserError(f"no stage {first!r} in {name}: choose one of {', '.join(names)}")
    return names[positions[0] - 1] if positions[0] else None


def split(name: str, variables: Mapping[str, Any], boundary: str | None) -> tuple[dict, dict]:
    """Splits a backbone's variables into those up to stage `boundary` and those after it, both without the classifier.

    Args:
        name: a row of `MODELS` or `BASELINES`.
        variables: {"params": {module: ...}, "batch_stats": {module: ...}}.
        boundary: last stage of the lower part; None leaves that part empty.
    """
    names = stage_names(name)
    below = set(names[: names.index(boundary) + 1]) if boundary else set()
    above = set(names) - below

    def part(modules: set[str]) -> dict:
        return {
            collection: {module: tree[module] for module in tree if module in modules}
            for collection, tree in variables.items()
        }

    return part(below), part(above)


def preprocess(name: str, image: jax.Array) -> jax.Array:
    """Turns grey slices into a backbone's input.

    Args:
        name: a row of `MODELS` or `BASELINES`.
        image: [B, H, W], grey values 0-255, uint8 or float32.

    Returns:
        float32 [B, H, W, channels]; if the row has `resized`, resized to its `input_size` (linear, antialiased).
    """
    assert image.ndim == 3, image.shape
    spec, grey = get_spec(name), image.astype(jnp.float32)
    if spec.resized:
        grey = jax.image.resize(grey, (len(image), spec.input_size, spec.input_size), "linear")
    return spec.preprocess(jnp.broadcast_to(grey[..., None], (*grey.shape, spec.channels)))
