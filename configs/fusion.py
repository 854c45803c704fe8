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
    """Returns the paper's recipe on patients: heads on frozen features of several sequences."""
    config = ConfigDict()
    (config.backbone,) = common.split_arg(arg, ("efficientnet_lite0",))
    config.weights = ""  # folder written by launch.convert_weights; empty: random weights
    config.sequence = ""  # fixed: fusion.sequences replaces it
    config.seed = 0  # seed of folds, initialisation, order and augmentation
    config.num_folds = 5  # cross-validation over patients

    config.fusion = ConfigDict()
    config.fusion.sequences = common.SEQUENCES  # two or more; a patient may lack some
    config.fusion.backbones = ConfigDict()  # by sequence; empty: the shared backbone and weights
    for sequence in common.SEQUENCES:
        config.fusion.backbones[sequence] = ConfigDict({"backbone": "", "weights": ""})
    config.fusion.late = "probability"  # late: output of the sequences' heads that is averaged; or logit
    config.fusion.attention_width = 128  # attention: rows of V and U
    config.fusion.inner_folds = 3  # best_single: folds of the training patients that choose the sequence

    config.num_copies = 4  # augmented copies beside each training slice: copy 2 of a patient is copy 2 of each slice
    config.num_epochs = 50  # passes over the training patients
    config.batch_size = 32  # examples per step: patients and their copies
    config.class_weights = False  # whether the loss weighs both classes equally
    config.label_smoothing = 0.0  # s: labels 0 and 1 become s / 2 and 1 - s / 2
    config.patience = 0  # epochs without a lower validation loss before training ends, with the best; 0: never
    config.validation = 0.2  # patience: share of the training patients held out for validation
    config.dtype = "float32"  # type of the backbone's arithmetic; bfloat16 is for GPUs

    config.optim = ConfigDict()
    config.optim.lr = 1e-3  # Adam's learning rate in the first epoch
    config.optim.backbone_lr = config.optim.get_oneway_ref("lr")  # not used: backbones are frozen
    config.optim.lr_decay = 0.9  # factor on the rate, after each decay_every
    config.optim.decay_every = "epoch"  # epoch or step

    config.head = ConfigDict()
    config.head.widths = (512, 256)  # units of the classifier's hidden layers; attention comes after the first
    config.head.dropout = 0.0  # dropout rate before each layer of the classifier
    config.head.pooling = ""  # pooling of the last map: mean, max or flatten; empty: the backbone's own

    # Fixed: other values are for one sequence (configs/transfer.py).
    config.mode, config.finetune_from, config.cache_activations = "frozen", "", False
    config.batch_norm, config.augmentation, config.data_on, config.checkpoint_every = "updated", "fixed", "auto", 1
    config.split, config.label_control = "patient", "none"
    return config.lock()
