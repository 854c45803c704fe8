r"""The ten-minute taste: transfer on the three sequences, Algorithm 1 against random on CE-T1WI, a report.

    bash launch/demo.sh
    python -m launch.reproduce --config=configs/demo.py --config.weights=runs/demo/weights \
        --data=runs/demo/data --workdir=runs/demo

On the demo phantom of 48 patients; sizes of the labelling loop are scaled down with the cohort. Fields that are not set
here are those of configs/plan.py, configs/transfer.py and configs/active.py.
"""

from ml_collections import ConfigDict

from configs import common, plan

ARGUMENT = "BACKBONE"  # of --config, after the colon


def get_config(arg: str = "") -> ConfigDict:
    """Returns the plan of the demo."""
    (backbone,) = common.split_arg(arg, ("efficientnet_lite0",))
    config = plan.get_plan(backbone)
    config.active.sequences = ("ce_t1wi",)  # sequences to label actively
    config.active.mode = "frozen"  # mode of the labelling loop, whatever transfer's is
    config.active.num_epochs = 4  # per round; the paper's 50 would take ten times as long
    config.active.initial_labeled = 40  # of about 190 slices in the training folds
    config.active.num_acquire = 15
    config.active.num_rounds = 8  # the last labels three quarters of them
    return config.lock()
