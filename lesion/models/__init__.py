"""The registry: one row a variant of a backbone; the baselines of Table 7 have a registry of their own beside it."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lesion.errors import UserError
from lesion.models.alexnet import AlexNet, AlexNetTorchvision
from lesion.models.baselines import BASELINES, BaselineSpec, baseline_table, describe
from lesion.models.efficientnet_lite import EfficientNetLite0
from lesion.models.inception import TORCH_MEAN, TORCH_STD, InceptionV3
from lesion.models.resnet import ResNet50
from lesion.models.spec import ModelSpec

__all__ = ["BASELINES", "MODELS", "BaselineSpec", "ModelSpec", "baseline_table", "describe"]


def lite(x: jax.Array) -> jax.Array:
    """EfficientNet-Lite's: (x − 127) / 128."""
    return (x - 127.0) / 128.0


def torchvision_mean_std(x: jax.Array) -> jax.Array:
    """torchvision's: ImageNet's mean 0, its deviation 1, a channel."""
    return (x / 255.0 - np.array(TORCH_MEAN, np.float32)) / np.array(TORCH_STD, np.float32)


def keras_tf(x: jax.Array) -> jax.Array:
    """Keras' "tf" mode: [-1, 1]."""
    return x / 127.5 - 1.0


def keras_caffe(x: jax.Array) -> jax.Array:
    """Keras' "caffe" mode: blue first, minus ImageNet's mean."""
    return x[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)


def bvlc(x: jax.Array) -> jax.Array:
    """Caffe's: blue first, minus the average of its mean picture."""
    return x[..., ::-1] - np.array([104.00699, 116.66877, 122.67892], np.float32)


_resnet50_v1 = functools.partial(ResNet50, v1=True, conv_bias=True, epsilon=1.001e-5, momentum=0.99)
_inception_keras = functools.partial(InceptionV3, bn_scale=False, count_padding=False, dropout=0.0, momentum=0.99)
_FC, _CAFFE_FC, _TORCH_FC = ("fc",), ("fc6", "fc7", "fc8"), ("classifier_1", "classifier_4", "classifier_6")

MODELS = {
    "alexnet": ModelSpec(AlexNet, 224, bvlc, 9216, 62_378_344, _CAFFE_FC, "AlexNet, single tower", "pool5", "flatten"),
    "alexnet_torchvision": ModelSpec(
        AlexNetTorchvision,
        224,
        torchvision_mean_std,
        9216,
        61_100_840,
        _TORCH_FC,
        "AlexNet, torchvision",
        "avgpool",
        "flatten",
    ),
    "alexnet_caffe": ModelSpec(
        functools.partial(AlexNet, groups=2),
        224,
        bvlc,
        9216,
        60_965_224,
        _CAFFE_FC,
        "AlexNet, two groups",
        "pool5",
        "flatten",
    ),
    "resnet50": ModelSpec(
        ResNet50, 224, torchvision_mean_std, 2048, 25_557_032, _FC, "ResNet-50 v1.5, torchvision", "layer4"
    ),
    "resnet50_v1": ModelSpec(_resnet50_v1, 224, keras_caffe, 2048, 25_583_592, _FC, "ResNet-50 v1, Keras", "layer4"),
    # torchvision's weights were trained in [-1, 1]: its mean and deviation followed by its transform_input give that.
    "inception_v3": ModelSpec(
        InceptionV3, 299, keras_tf, 2048, 23_834_568, _FC, "Inception-V3, torchvision", "Mixed_7c"
    ),
    "inception_v3_keras": ModelSpec(
        _inception_keras, 299, keras_tf, 2048, 23_817_352, _FC, "Inception-V3, Keras", "Mixed_7c"
    ),
    "efficientnet_lite0": ModelSpec(EfficientNetLite0, 224, lite, 1280, 4_652_008, _FC, "EfficientNet-Lite0", "bn1"),
}


def get_spec(name: str) -> ModelSpec:
    """The row of `MODELS` or a baseline's model; an unknown name is a `UserError` that lists the known ones."""
    if name in BASELINES:
        return BASELINES[name].model
    if name not in MODELS:
        raise UserError(f"no backbone {name!r}: choose one of {', '.join([*MODELS, *BASELINES])}")
    return MODELS[name]


def get_model(name: str, num_classes: int | None = 1000, **options: Any) -> nn.Module:
    """Builds a backbone.

    Args:
        name: a row of `MODELS` or `BASELINES`.
        num_classes: width of the classifier; None gives features [B, D].
        **options: of the variant, e.g. `aux_head=True` of `inception_v3`.

    Returns:
        A module: `model.apply(variables, images [B, H, W, 3] float32, train=False)` gives logits [B, num_classes];
        `start="layer3"` takes that stage's output instead of images, `stop="layer3"` returns it.
    """
    return get_spec(name).module(num_classes=num_classes, **options)


def table() -> dict[str, dict[str, Any]]:
    """Table 2: what a reader wants of every row, JSON-able."""
    fields = ("title", "num_params", "input_size", "feature_width")
    return {name: {field: getattr(spec, field) for field in fields} for name, spec in MODELS.items()}


def stage_names(name: str) -> tuple[str, ...]:
    """A backbone's stages in order, as `start` and `stop` take them; one with parameters bears its module's name."""
    return tuple(stage for stage, _ in get_model(name).stages(False))


def map_stages(name: str) -> tuple[str, ...]:
    """A backbone's stages in order, up to the one that gives its last map."""
    names, last = stage_names(name), get_spec(name).last_map
    found = [i for i, stage in enumerate(names) if stage == last or stage.startswith(f"{last}_")]
    return names[: found[-1] + 1]


def stage_before(name: str, first: str) -> str | None:
    """The stage before `first` or before the first of those it begins, None if there is none; unknown: `UserError`."""
    names = stage_names(name)
    found = [i for i, stage in enumerate(names) if stage == first or stage.startswith(f"{first}_")]
    if not found:
        raise UserError(f"no stage {first!r} in {name}: choose one of {', '.join(names)}")
    return names[found[0] - 1] if found[0] else None


def split(name: str, variables: Mapping[str, Any], boundary: str | None) -> tuple[dict, dict]:
    """A backbone's variables up to stage `boundary` and after it, both without the classifier.

    Args:
        name: a row of `MODELS` or `BASELINES`.
        variables: {"params": {module: ...}, "batch_stats": {module: ...}}.
        boundary: the last stage of the lower part; None makes that empty.
    """
    names = stage_names(name)
    below = set(names[: names.index(boundary) + 1]) if boundary else set()
    above = set(names) - below

    def part(modules: set[str]) -> dict:
        return {c: {m: v for m, v in tree.items() if m in modules} for c, tree in variables.items()}

    return part(below), part(above)


def preprocess(name: str, image: jax.Array) -> jax.Array:
    """Grey slices to a backbone's input.

    Args:
        name: a row of `MODELS` or `BASELINES`.
        image: [B, H, W], grey values 0-255, uint8 or float32.

    Returns:
        float32 [B, H, W, channels], where the row says so resized (linear, smoothed where it becomes smaller).
    """
    assert image.ndim == 3, image.shape
    spec, grey = get_spec(name), image.astype(jnp.float32)
    if spec.resized:
        grey = jax.image.resize(grey, (len(image), spec.input_size, spec.input_size), "linear")
    return spec.preprocess(jnp.broadcast_to(grey[..., None], (*grey.shape, spec.channels)))
