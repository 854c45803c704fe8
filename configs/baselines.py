r"""The baselines of Table 7 on one sequence, under the same folds and augmentation as transfer.

    python -m launch.train --config=configs/baselines.py:hncnn,ce_t1wi --data=DATA_DIR --workdir=runs/hncnn_ce_t1wi
    python -m launch.train --config=configs/baselines.py:cnn_f_svm,ce_t1wi \
        --config.weights=runs/weights/cnn_f --data=DATA_DIR --workdir=runs/cnn_f_svm_ce_t1wi

Rows: cnn_f, capsnet, diamant, hncnn, kiryu, trained from random weights, and cnn_f_svm, an SVM on features of CNN-F,
whose ImageNet weights you bring yourself (README). CNN-F from those weights: --config.mode=finetune. What of them is a
guess lesion/models/baselines.py says, and each run's config.json. Writes what launch.train always does; the paper's
Table 7 has accuracies of 82.39 to 85.56 %, of its own patients.
"""

from ml_collections import ConfigDict

from configs import common

ARGUMENT = "BASELINE,SEQUENCE"  # of --config, after the colon
SVM = "cnn_f_svm"


def get_config(arg: str = "") -> ConfigDict:
    baseline, sequence = common.split_arg(arg, ("hncnn", "ce_t1wi"))
    config = common.get_common(baseline, sequence)  # backbone: a row of lesion.models.BASELINES
    config.mode = "frozen" if baseline == SVM else "scratch"
    config.optim.lr = common.BASELINE_RATES.get(baseline, config.optim.lr)
    return common.add_baselines(config).lock()
