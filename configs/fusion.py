r"""The three sequences of a patient fused: early, late and by attention over slices, beside each alone.

    python -m launch.train --config=configs/fusion.py:efficientnet_lite0 \
        --config.weights=runs/weights/efficientnet_lite0 --data=DATA_DIR --workdir=runs/fusion

The paper's future work: it gives no numbers to expect. On frozen features, one row a patient, the folds of every other
experiment. Writes only_SEQUENCE/, early/, late/, best_single/ and attention/, each a run of its own. One sequence with
another backbone: --config.fusion.backbones.flair.backbone=resnet50 --config.fusion.backbones.flair.weights=WEIGHTS.
"""

from ml_collections import ConfigDict

from configs import common

ARGUMENT = "BACKBONE"  # of --config, after the colon


def get_config(arg: str = "") -> ConfigDict:
    (backbone,) = common.split_arg(arg, ("efficientnet_lite0",))
    config = common.get_common(backbone, "")  # fusion.sequences in place of one
    config.fusion = common.add_fusion(ConfigDict())
    return config.lock()
