r"""Algorithm 1 with a doctor as the oracle, on a dataset most of whose slices have no label.

    python -m launch.active --config=configs/doctor.py:efficientnet_lite0,ce_t1wi \
        --config.weights=runs/weights/efficientnet_lite0 --data=DATA_DIR --workdir=runs/doctor_ce_t1wi
    python -m launch.annotate --workdir=runs/doctor_ce_t1wi

In turn, until a rule says to stop: no slice with more entropy than --config.entropy_threshold, or another of
--config.{plateau,budget_slices,budget_patients}. Writes rounds.csv, predictions.csv of every slice, and the last model.
"""

from ml_collections import ConfigDict

from configs import common

ARGUMENT = "BACKBONE,SEQUENCE"  # of --config, after the colon


def get_config(arg: str = "") -> ConfigDict:
    backbone, sequence = common.split_arg(arg, ("efficientnet_lite0", "ce_t1wi"))
    config = common.add_active(common.get_common(backbone, sequence))
    config.oracle = "doctor"
    config.strategies = ("entropy",)  # one: nobody answers twice to compare
    config.num_rounds = 40  # at most; the rules below stop it before
    config.plateau = 0.0  # agreement of successive models: off, the paper stops by entropy alone
    return config.lock()
