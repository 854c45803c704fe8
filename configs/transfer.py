r"""Feature transfer on one sequence, 5-fold cross-validation over patients (Tables 3-5).

    python -m launch.train --config=configs/transfer.py:efficientnet_lite0,ce_t1wi \
        --config.weights=runs/weights/efficientnet_lite0 --data=DATA_DIR --workdir=runs/transfer_ce_t1wi

Writes predictions.csv, metrics.json, checkpoints/ and tensorboard/; on the phantom `table1` see the README's table.
Fine-tuned from a stage on: --config.mode=finetune --config.finetune_from=layer4; from random weights:
--config.mode=scratch.
"""

from ml_collections import ConfigDict

from configs import common

ARGUMENT = "BACKBONE,SEQUENCE"  # of --config, after the colon


def get_config(arg: str = "") -> ConfigDict:
    backbone, sequence = common.split_arg(arg, ("efficientnet_lite0", "ce_t1wi"))
    return common.get_common(backbone, sequence).lock()
