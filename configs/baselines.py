r"""The baselines of Table 7 on one sequence, under the same folds and augmentation as transfer.

    python -m launch.train --config=configs/baselines.py:hncnn,ce_t1wi --data=DATA_DIR --workdir=runs/hncnn_ce_t1wi
    python -m launch.train --config=configs/baselines.py:cnn_f_svm,ce_t1wi \
        --config.weights=runs/weights/cnn_f --data=DATA_DIR --workdir=runs/cnn_f_svm_ce_t1wi

Rows: cnn_f, capsnet, diamant, hncnn, kiryu, trained from random weights, and cnn_f_svm, an SVM on features of CNN-F,
whose ImageNet weights you bring yourself (lesion/models/README.md). CNN-F from those weights: --config.mode=finetune.
lesion/models/baselines.py and each run's config.json say which of their parts are guesses. Writes the same files as any
run of launch.train; the paper's Table 7 has accuracies of 82.39 to 85.56 %, of its own patients.
"""

from ml_collections import ConfigDict

from configs import common

ARGUMENT = "BASELINE,SEQUENCE"  # of --config, after the colon
SVM = "cnn_f_svm"
# At 1e-3 one step of Adam moves the votes of CapsNet's 18,432 capsules so far that both lengths stay at 1 and nothing
# is learnt.
RATES = {"capsnet": 1e-4}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the paper's recipe for one of the networks of Table 7, each with a classifier of its own."""
    config = ConfigDict()
    config.backbone, config.sequence = common.split_arg(arg, ("hncnn", "ce_t1wi"))  # a row of lesion.models.BASELINES
    config.weights = ""  # folder written by launch.convert_weights; empty: random weights
    # scratch: from random weights. finetune: CNN-F from ImageNet's. frozen: features computed once, for the SVM.
    config.mode = "frozen" if config.backbone == SVM else "scratch"
    config.finetune_from = ""  # finetune: first stage that is trained; empty: the first
    config.batch_norm = "updated"  # no baseline has BatchNorm
    config.cache_activations = False  # finetune_from: compute the stages below once, keep their outputs on disk
    config.dtype = "float32"  # type of the arithmetic; bfloat16 is for GPUs
    config.seed = 0  # seed of folds, initialisation, order and augmentation

    config.num_folds = 5  # cross-validation over patients
    config.num_deals = 1  # cross-validations, the folds dealt anew for each
    config.split = "patient"  # all slices of a patient in one fold; leaky: slice by slice
    config.label_control = "none"  # shuffled: labels permuted among the patients, so that nothing can be learnt

    config.num_copies = 4  # augmented copies beside each training slice, 0 to 4
    config.augmentation = "fixed"  # fixed: the same copies in every epoch. fresh: new ones
    config.data_on = "auto"  # device: all slices on it. host: streamed by Grain. auto: device if they fit

    config.num_epochs = 50  # passes over the training slices
    config.batch_size = 32  # examples per step, on all devices together; copies count
    config.class_weights = False  # whether the loss weighs both classes equally
    config.label_smoothing = 0.0  # s: labels 0 and 1 become s / 2 and 1 - s / 2; not for the SVM or CapsNet
    config.patience = 0  # epochs without a lower validation loss before training ends; not for the SVM
    config.validation = 0.2  # patience: share of the training patients held out for validation
    config.checkpoint_every = 1  # epochs between checkpoints

    config.optim = ConfigDict()
    config.optim.lr = RATES.get(config.backbone, 1e-3)  # Adam's learning rate in the first epoch
    config.optim.backbone_lr = config.optim.get_oneway_ref("lr")  # the features'; follows lr unless set
    config.optim.lr_decay = 0.9  # factor on both rates, after each decay_every
    config.optim.decay_every = "epoch"  # epoch or step

    config.head = ConfigDict({"widths": (), "dropout": 0.0, "pooling": ""})  # fixed: baselines have their own
    config.svm = ConfigDict()  # of cnn_f_svm alone
    config.svm.num_features = 500  # those of 4096 with the largest F between the classes; a guess
    config.svm.c = 1.0  # C of the support vector machine with Gaussian kernel; a guess
    config.svm.augmented = True  # whether it is fitted on augmented copies too
    return config.lock()
