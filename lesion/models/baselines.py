"""The baselines of Table 7: what each is, how many parameters it has, and what of it is not published but assumed."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from lesion.models import cnn
from lesion.models.capsnet import CapsuleHead, CapsuleTrunk
from lesion.models.cnn_f import CNNF, HIDDEN, minus_mean
from lesion.models.spec import ModelSpec


class BaselineSpec(NamedTuple):
    """A row.

    Attributes:
        model: its features, with input size, channels, preprocessing and stages.
        head: builds its own classifier, features [B, D] to the logit [B]; None: a support vector machine.
        num_params: of both, for the paper's two classes.
        loss: `bce`, `margin` (with reconstruction), or `hinge` of the support vector machine.
        modes: of `config.mode` that it can be trained in; the first is the baseline.
        title: as in a table.
        paper_row: of the paper's Table 7, that it stands for.
        guesses: a sentence of what is assumed here and not published.
    """

    model: ModelSpec
    head: Callable[[], nn.Module] | None
    num_params: int
    loss: str
    modes: tuple[str, ...]
    title: str
    paper_row: str
    guesses: str


def unit(x: jax.Array) -> jax.Array:
    """[0, 1]."""
    return x / 255.0


def _grey(module: Callable, size: int, width: int, num_params: int, title: str, last_map: str) -> ModelSpec:
    """A network on grey pictures of one size, without a classifier."""
    return ModelSpec(module, size, unit, width, num_params, (), title, last_map, "flatten", 1, True)


_CNN_F = ModelSpec(
    CNNF, 224, minus_mean, 9216, 60_834_536, ("fc6", "fc7", "fc8"), "CNN-F", "pool5", "flatten", resized=True
)
_FC7 = _CNN_F._replace(
    module=functools.partial(CNNF, dense_stages=True),
    feature_width=HIDDEN,
    classifier=("fc8",),
    title="CNN-F, fc7",
    last_map="relu7",
    weights_of="cnn_f",
)
_small = functools.partial(functools.partial, cnn.SmallCNN)

BASELINES = {
    "cnn_f": BaselineSpec(
        _CNN_F,
        functools.partial(cnn.Classifier, (HIDDEN, HIDDEN), (0.5, 0.5), names=("fc6", "fc7")),
        56_741_633,
        "bce",
        ("scratch", "finetune"),
        "CNN-F, trained whole",
        "CNN-F [12]",
        "[12] took features of ImageNet-trained CNN-F to a classical classifier: that the network is trained whole, "
        "with one output in the place of 1000, and its initial weights are assumptions.",
    ),
    "cnn_f_svm": BaselineSpec(
        _FC7,
        None,
        60_834_536 - 4_097_000,
        "hinge",
        ("frozen",),
        "CNN-F features, SVM",
        "CNN-F [12]",
        "Which layer's features, how they were selected and which classifier [12] used is assumed: fc7 after its ReLU, "
        "standardised, the best by the F statistic, an SVM with Gaussian kernel, probabilities by Platt's sigmoid.",
    ),
    "capsnet": BaselineSpec(
        _grey(CapsuleTrunk, 64, 147_456, 1_332_608, "CapsNet", "primary"),
        CapsuleHead,
        10_791_808,
        "margin",
        ("scratch",),
        "CapsNet",
        "CapsNet [11]",
        "[11] adds a coarse box around the tumour as input, which this data does not have: left out; initial weights, "
        "the learning rate (1e-4: at the paper's 1e-3 both capsules saturate) and the probability, one capsule's "
        "share of both lengths, are assumptions.",
    ),
    "diamant": BaselineSpec(
        _grey(_small(cnn.DIAMANT, "prelu"), 224, 512, 93_408, "CNN after Diamant 2019", "prelu3"),
        functools.partial(cnn.Classifier, (256,), (0.5,), "prelu"),
        225_249,
        "bce",
        ("scratch",),
        "CNN after Diamant 2019",
        "CNN of [9]",
        "What is published is incomplete: known here are the filters, their sizes, PReLU and dropout .5; input of 224 "
        "pixels, no padding, maxima of 4x4 and one dense layer of 256 are guesses.",
    ),
    "hncnn": BaselineSpec(
        _grey(_small(cnn.HNCNN, "leaky"), 180, 512, 9_472, "HNCNN", "leaky3"),
        functools.partial(cnn.Classifier, (128, 64, 32), (0.3, 0.2, 0.1), "leaky"),
        85_505,
        "bce",
        ("scratch",),
        "HNCNN (Mateus 2023)",
        "CNN of [9]",
        "A stand-in for the CNN of [9], because its layers are fully specified; where between the dense layers its "
        "dropout lies and its initial weights are assumptions.",
    ),
    "kiryu": BaselineSpec(
        _grey(_small(cnn.KIRYU, "relu"), 128, 32_768, 286_432, "CNN after Kiryu 2019", "relu6"),
        functools.partial(cnn.Classifier, (256, 64)),
        8_691_809,
        "bce",
        ("scratch",),
        "CNN after Kiryu 2019",
        "CNN of [10]",
        "Known here is only a plain stack of six 3x3 convolutions, three maxima and three dense layers: input of 128 "
        "pixels, 32 to 128 filters, dense layers of 256 and 64 and no dropout are guesses.",
    ),
}
__doc__ = "\n\n".join([__doc__, *(f"{name}: {spec.guesses}" for name, spec in BASELINES.items())])


def baseline_table() -> dict[str, dict[str, Any]]:
    """What a reader wants of every row, JSON-able."""
    return {name: describe(name) for name in BASELINES}


def describe(name: str) -> dict[str, Any]:
    """What a reader wants of one row, JSON-able."""
    spec = BASELINES[name]
    fields = ("title", "paper_row", "num_params", "loss", "guesses")
    return {field: getattr(spec, field) for field in fields} | {"input_size": spec.model.input_size}
