r"""The ten-minute taste: transfer on the three sequences, Algorithm 1 against random on CE-T1WI, a report.

    bash launch/demo.sh
    python -m launch.reproduce --config=configs/demo.py --config.weights=runs/demo/weights \
        --data=runs/demo/data --workdir=runs/demo

On the demo phantom of 48 patients; sizes of the labelling loop are scaled down with the cohort. The fields that are not
named here are those of configs/plan.py, configs/transfer.py and configs/active.py.
"""

from ml_collections import ConfigDict

from configs import common, plan

ARGUMENT = "BACKBONE"  # of --config, after the colon


def get_config(arg: str = "") -> ConfigDict:
    """Returns the plan of the demo."""
    (backbone,) = common.split_arg(arg, ("efficientnet_lite0",))
    config = plan.get_plan(backbone)
    config.active.sequences = ("ce_t1wi",)  # which of the three to label actively
    config.active.mode = "frozen"  # of the labelling loop, whatever transfer does
    config.active.num_epochs = 4  # a round; the paper's 50 cost ten times the time
    config.active.initial_labeled = 40  # of about 190 slices in a training fold
    config.active.num_acquire = 15
    config.active.num_rounds = 8  # ends at three quarters of them
    return config.lock()
