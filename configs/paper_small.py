r"""Every part of configs/paper.py in small: under an hour on two cores, on the demo phantom of 48 patients.

    python -m launch.reproduce --config=configs/paper_small.py --config.weights=runs/weights \
        --data=runs/demo/data --workdir=runs/paper_small

As in configs/paper.py, runs/weights holds a folder of weights for each backbone; EfficientNet-Lite0's come with a
package (launch.convert_weights --output=runs/weights/efficientnet_lite0), so that one network here is trained on
ImageNet whatever else is at hand. Backbones are frozen but in Figs 9-11, copies and epochs fewer.
"""

from ml_collections import ConfigDict

from configs import common, head_search, paper, plan

ARGUMENT = "BACKBONE"  # of --config, after the colon


def get_config(arg: str = "") -> ConfigDict:
    """Returns the plan of the whole paper in small."""
    (backbone,) = common.split_arg(arg, ("efficientnet_lite0",))
    config = plan.get_plan(backbone)
    config.num_copies = 1
    config.num_epochs = 20
    config.transfer.backbones = (backbone, *(name for name in paper.BACKBONES if name != backbone))
    config.explain = True
    config.baselines.backbones = paper.BASELINES
    config.baselines.num_epochs = 3  # too few to learn much: this size can only show that every part runs
    config.baselines.num_copies = 0
    config.fusion.sequences = common.SEQUENCES
    config.leakage.sequences = ("ce_t1wi",)
    config.active.sequences = common.SEQUENCES
    config.active.mode = "finetune"  # as in configs/paper.py, but the last stage only: what is below is computed once
    config.active.finetune_from = paper.STARTS.get(backbone, ("",))[0]
    config.active.cache_activations = True
    config.active.num_epochs = 4  # sizes as in configs/demo.py
    config.active.num_repeats = 1
    config.active.initial_labeled = 40
    config.active.num_acquire = 15
    config.active.num_rounds = 8
    config.ablations.transfer.head = tuple((("head.widths", widths),) for widths in head_search.WIDTHS)
    config.ablations.transfer.start = common.settings(
        lambda add: paper.sweep_start(add, backbone, num_epochs=2, num_copies=0)
    )
    config.ablations.transfer.copies = tuple((("num_copies", n),) for n in (0, 1, 2, 4))
    frozen = ("mode", "frozen"), ("finetune_from", ""), ("cache_activations", False), ("num_repeats", 2)
    config.ablations.active.num_acquire = tuple(
        (("num_acquire", k), ("num_rounds", 1 + 105 // k), *frozen) for k in (5, 15, 35)
    )
    config.ablations.active.initial = tuple((("initial_labeled", n), *frozen) for n in (20, 40, 80))
    return config.lock()
