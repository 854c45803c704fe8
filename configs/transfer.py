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
    """Returns the paper's recipe (section 2) on one backbone and sequence."""
    config = ConfigDict()
    config.backbone, config.sequence = common.split_arg(arg, ("efficientnet_lite0", "ce_t1wi"))
    config.weights = ""  # folder written by launch.convert_weights; empty: random weights
    # frozen: a head on features computed once. finetune: the backbone too. scratch: both, from random weights.
    config.mode = "frozen"
    config.finetune_from = ""  # finetune: first stage that is trained, e.g. layer4; empty: the first
    config.batch_norm = "updated"  # finetune: BatchNorm statistics: updated by the batches, or frozen as loaded
    config.cache_activations = False  # finetune_from: compute the stages below once, keep their outputs on disk
    config.dtype = "float32"  # type of the backbone's arithmetic; bfloat16 is for GPUs. Parameters stay float32
    config.seed = 0  # seed of folds, initialisation, order and augmentation

    config.num_folds = 5  # cross-validation over patients
    config.num_deals = 1  # cross-validations, the folds dealt anew for each
    # patient: all slices of a patient in one fold. leaky: slice by slice, only to measure how much that flatters.
    config.split = "patient"
    config.label_control = "none"  # shuffled: labels permuted among the patients, so that nothing can be learnt

    config.num_copies = 4  # augmented copies beside each training slice, 0 to 4
    config.augmentation = "fixed"  # fixed: the same copies in every epoch. fresh: new ones (finetune)
    config.data_on = "auto"  # device: all slices on it. host: streamed by Grain. auto: device if they fit

    config.num_epochs = 50  # passes over the training slices
    config.batch_size = 32  # examples per step, on all devices together; copies count
    config.class_weights = False  # whether the loss weighs both classes equally
    config.label_smoothing = 0.0  # s: labels 0 and 1 become s / 2 and 1 - s / 2
    config.patience = 0  # epochs without a lower validation loss before training ends, with the best; 0: never
    config.validation = 0.2  # patience: share of the training patients held out for validation
    config.checkpoint_every = 1  # finetune: epochs between checkpoints

    config.optim = ConfigDict()
    config.optim.lr = 1e-3  # Adam's learning rate in the first epoch
    config.optim.backbone_lr = config.optim.get_oneway_ref("lr")  # the backbone's; follows lr unless set
    config.optim.lr_decay = 0.9  # factor on both rates, after each decay_every
    config.optim.decay_every = "epoch"  # epoch or step

    config.head = ConfigDict()
    config.head.widths = (512, 256)  # units of the hidden layers of the new classifier
    config.head.dropout = 0.0  # dropout rate before each layer of the classifier
    config.head.pooling = ""  # pooling of the last map: mean, max or flatten; empty: the backbone's own
    return config.lock()
