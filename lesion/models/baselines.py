"""The baselines of Table 7: their networks, numbers of parameters, losses, and the assumptions behind each.

README.md in this folder shows how to add a row of `BASELINES`.
"""

import functools
from typing import Any

from lesion.models import cnn
from lesion.models.alexnet import CNNF, HIDDEN
from lesion.models.capsnet import CapsuleHead, CapsuleTrunk
from lesion.models.heads import BaselineHead
from lesion.models.preprocessing import minus_mean, unit
from lesion.models.spec import BaselineSpec, ModelSpec


def _grey_images(**row: Any) -> ModelSpec:
    """Returns the spec of a network for grey images of one size, with flattened features and without a classifier."""
    return ModelSpec(**row, preprocess=unit, pooling="flatten", classifier=(), channels=1, resized=True)


_CNN_F = ModelSpec(
    module=CNNF,
    input_size=224,
    preprocess=minus_mean,
    feature_width=9216,
    num_params=60_834_536,
    title="CNN-F",
    last_map="pool5",
    pooling="flatten",
    classifier=("fc6", "fc7", "fc8"),
    resized=True,
)
_CNN_F_FC7 = _CNN_F._replace(
    module=functools.partial(CNNF, dense_stages=True),
    feature_width=HIDDEN,
    classifier=("fc8",),
    title="CNN-F, fc7",
    last_map="relu7",
    weights_of="cnn_f",
)

BASELINES = {
    "cnn_f": BaselineSpec(
        model=_CNN_F,
        head=functools.partial(BaselineHead, (HIDDEN, HIDDEN), (0.5, 0.5), names=("fc6", "fc7")),
        num_params=56_741_633,
        loss="bce",
        modes=("scratch", "finetune"),
        title="CNN-F, trained whole",
        paper_row="CNN-F [12]",
        guesses=(
            "[12] took features of ImageNet-trained CNN-F to a classical classifier: that the network is trained "
            "whole, with one output in the place of 1000, and its initial weights are assumptions."
        ),
    ),
    "cnn_f_svm": BaselineSpec(
        model=_CNN_F_FC7,
        head=None,
        num_params=60_834_536 - 4_097_000,
        loss="hinge",
        modes=("frozen",),
        title="CNN-F features, SVM",
        paper_row="CNN-F [12]",
        guesses=(
            "Which layer's features, how they were selected and which classifier [12] used is assumed: fc7 after "
            "its ReLU, standardised, the best by the F statistic, an SVM with Gaussian kernel, probabilities by "
            "Platt's sigmoid."
        ),
    ),
    "capsnet": BaselineSpec(
        model=_grey_images(
            module=CapsuleTrunk,
            input_size=64,
            feature_width=147_456,
            num_params=1_332_608,
            title="CapsNet",
            last_map="primary",
        ),
        head=CapsuleHead,
        num_params=10_791_808,
        loss="margin",
        modes=("scratch",),
        title="CapsNet",
        paper_row="CapsNet [11]",
        guesses=(
            "[11] adds a coarse box around the tumour as input, which this data does not have: left out; initial "
            "weights, the learning rate (1e-4: at the paper's 1e-3 both capsules saturate) and the probability, "
            "one capsule's share of both lengths, are assumptions."
        ),
    ),
    "diamant": BaselineSpec(
        model=_grey_images(
            module=functools.partial(cnn.SmallCNN, cnn.DIAMANT, "prelu"),
            input_size=224,
            feature_width=512,
            num_params=93_408,
            title="CNN after Diamant 2019",
            last_map="prelu3",
        ),
        head=functools.partial(BaselineHead, (256,), (0.5,), "prelu"),
        num_params=225_249,
        loss="bce",
        modes=("scratch",),
        title="CNN after Diamant 2019",
        paper_row="CNN of [9]",
        guesses=(
            "What is published is incomplete: known here are the filters, their sizes, PReLU and dropout .5; "
            "input of 224 pixels, no padding, maxima of 4x4 and one dense layer of 256 are guesses."
        ),
    ),
    "hncnn": BaselineSpec(
        model=_grey_images(
            module=functools.partial(cnn.SmallCNN, cnn.HNCNN, "leaky"),
            input_size=180,
            feature_width=512,
            num_params=9_472,
            title="HNCNN",
            last_map="leaky3",
        ),
        head=functools.partial(BaselineHead, (128, 64, 32), (0.3, 0.2, 0.1), "leaky"),
        num_params=85_505,
        loss="bce",
        modes=("scratch",),
        title="HNCNN (Mateus 2023)",
        paper_row="CNN of [9]",
        guesses=(
            "A stand-in for the CNN of [9], because its layers are fully specified; where between the dense "
            "layers its dropout lies and its initial weights are assumptions."
        ),
    ),
    "kiryu": BaselineSpec(
        model=_grey_images(
            module=functools.partial(cnn.SmallCNN, cnn.KIRYU, "relu"),
            input_size=128,
            feature_width=32_768,
            num_params=286_432,
            title="CNN after Kiryu 2019",
            last_map="relu6",
        ),
        head=functools.partial(BaselineHead, (256, 64)),
        num_params=8_691_809,
        loss="bce",
        modes=("scratch",),
        title="CNN after Kiryu 2019",
        paper_row="CNN of [10]",
        guesses=(
            "Known here is only a plain stack of six 3x3 convolutions, three maxima and three dense layers: input "
            "of 128 pixels, 32 to 128 filters, dense layers of 256 and 64 and no dropout are guesses."
        ),
    ),
}


def baseline_table() -> dict[str, dict[str, Any]]:
    """Returns {name: `describe(name)`} of all baselines."""
    return {name: describe(name) for name in BASELINES}


def describe(name: str) -> dict[str, Any]:
    """Returns a baseline's description for the run's config.json and the report, as JSON-able values."""
    spec = BASELINES[name]
    fields = ("title", "paper_row", "num_params", "loss", "guesses")
    return {field: getattr(spec, field) for field in fields} | {"input_size": spec.model.input_size}
