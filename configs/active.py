r"""Algorithm 1 against random choice on one sequence at the paper's sizes (Figs 9-11).

    python -m launch.active --config=configs/active.py:efficientnet_lite0,ce_t1wi \
        --config.weights=runs/weights/efficientnet_lite0 --data=DATA_DIR --workdir=runs/active_ce_t1wi

Writes curves.csv, acquisitions.csv and stops.csv, every fold and seed, and metrics.json. Other strategies:
--config.strategies="('entropy','badge','random')"; by patient: --config.unit=patient; fine-tuned:
--config.mode=finetune --config.finetune_from=layer4.
"""

from ml_collections import ConfigDict

from configs import common

ARGUMENT = "BACKBONE,SEQUENCE"  # of --config, after the colon


def get_config(arg: str = "") -> ConfigDict:
    backbone, sequence = common.split_arg(arg, ("efficientnet_lite0", "ce_t1wi"))
    return common.add_active(common.get_common(backbone, sequence)).lock()
