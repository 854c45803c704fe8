r"""Everything that Tables 2 to 7 and Figures 1 and 5 to 11 need, at the paper's sizes: for GPU machines.

    python -m launch.reproduce --config=configs/paper.py --config.weights=runs/weights \
        --data=DATA_DIR --workdir=runs/paper

runs/weights holds a folder of converted weights for each backbone, of the backbone's name (launch.convert_weights
--output=runs/weights/resnet50); one that is missing runs with random weights, and the report says so in capitals.
Stopped or killed, the same command resumes. On other backbones: configs/paper.py:resnet50_v1 alone, or
--config.transfer.backbones=alexnet_torchvision,resnet50_v1. configs/paper_small.py is the same in small.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from configs import common, head_search, plan

ARGUMENT = "BACKBONE"  # of --config, after the colon
BACKBONES = ("alexnet", "resnet50", "inception_v3")
BASELINES = ("cnn_f", "cnn_f_svm", "capsnet", "diamant", "hncnn", "kiryu")
Add = Callable[..., Any]
# First trained stages of fine-tuning, from the last part of a backbone to all of it.
STARTS = {
    "alexnet": ("conv5", "conv3", "conv1"),
    "alexnet_caffe": ("conv5", "conv3", "conv1"),
    "alexnet_torchvision": ("features_10", "features_6", "features_0"),
    "resnet50": ("layer4", "layer3", "layer2", "layer1", "conv1"),
    "resnet50_v1": ("layer4", "layer3", "layer2", "layer1", "conv1"),
    "inception_v3": ("Mixed_7a", "Mixed_6a", "Mixed_5b", "Conv2d_1a_3x3"),
    "inception_v3_keras": ("Mixed_7a", "Mixed_6a", "Mixed_5b", "Conv2d_1a_3x3"),
    "efficientnet_lite0": ("conv_head", "blocks_11", "blocks_5", "conv_stem"),
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the plan of the whole paper."""
    (given,) = common.split_arg(arg, ("",))
    config = plan.get_plan(given or "resnet50")  # backbone of Figs 9-11 and of the ablations
    config.transfer.backbones = (given,) if given else BACKBONES
    config.transfer.mode = "finetune"
    config.explain = True
    config.baselines.backbones = BASELINES
    config.fusion.sequences = common.SEQUENCES
    config.leakage.sequences = ("ce_t1wi",)
    # Figs 9-11 as the paper has them, fine-tuned: a run costs as much as ten folds of transfer, so one repeat a fold.
    # On frozen features: --config.active.mode=frozen --config.active.num_repeats=5.
    config.active.sequences = common.SEQUENCES
    config.active.mode = "finetune"
    config.active.num_repeats = 1
    config.ablations.transfer.head = common.settings(head_search.sweep)
    config.ablations.transfer.start = common.settings(lambda add: sweep_start(add, config.backbone))
    config.ablations.transfer.copies = common.settings(sweep_copies)
    config.ablations.active.num_acquire = common.settings(sweep_num_acquire)
    config.ablations.active.initial = common.settings(sweep_initial)
    return config.lock()


def sweep_start(add: Add, backbone: str, **shared: Any) -> None:
    """Adds frozen, fine-tuned from each of `STARTS`, and without ImageNet weights; all with the `shared` fields."""
    add(mode="frozen", **shared)
    for stage in STARTS.get(backbone, ()):
        add(mode="finetune", finetune_from=stage, **shared)
    add(weights="", **shared)
    add(mode="scratch", **shared)


def sweep_copies(add: Add) -> None:
    """Adds numbers of augmented copies, from none to the paper's four."""
    for copies in range(5):
        add(num_copies=copies)


def sweep_num_acquire(add: Add) -> None:
    """Adds smaller and larger rounds that end at the same number of labels; on frozen features."""
    for slices in (25, 50, 90, 150):
        add(num_acquire=slices, num_rounds=1 + 450 // slices, mode="frozen", num_repeats=5)


def sweep_initial(add: Add) -> None:
    """Adds smaller first labelled sets than the paper's 400; on frozen features."""
    for slices in (100, 200, 400):
        add(initial_labeled=slices, mode="frozen", num_repeats=5)
