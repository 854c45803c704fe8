r"""Algorithm 1 against random choice on one sequence at the paper's sizes (Figs 9-11).

    python -m launch.active --config=configs/active.py:efficientnet_lite0,ce_t1wi \
        --config.weights=runs/weights/efficientnet_lite0 --data=DATA_DIR --workdir=runs/active_ce_t1wi

Writes curves.csv, acquisitions.csv and stops.csv, every fold and repeat, and metrics.json. Other strategies:
--config.strategies=entropy,badge,random; by patient: --config.unit=patient; fine-tuned: --config.mode=finetune
--config.finetune_from=layer4.
"""

from ml_collections import ConfigDict

from configs import common

ARGUMENT = "BACKBONE,SEQUENCE"  # of --config, after the colon


def get_config(arg: str = "") -> ConfigDict:
    """Returns Algorithm 1 at the paper's values (section 2.1); a round's fit continues from the last weights."""
    config = ConfigDict()
    config.backbone, config.sequence = common.split_arg(arg, ("efficientnet_lite0", "ce_t1wi"))
    config.weights = ""  # folder written by launch.convert_weights; empty: random weights
    config.oracle = "cohort"  # who labels: cohort: the dataset, its labels hidden until queried; or doctor
    config.seed = 0  # seed of folds, initialisation, order, augmentation and draws
    config.num_folds = 5  # cross-validation over patients
    config.num_repeats = 5  # runs of each fold, which differ in first set, weights and order

    config.initial_labeled = 400  # slices of the first labelled set, rounded up to whole random patients
    config.num_acquire = 50  # K, slices queried per round
    config.num_rounds = 10  # each a fit and a query; the last query is not trained on
    config.strategies = ("entropy", "random")  # rows of lesion.active.strategies.STRATEGIES
    config.unit = "slice"  # slice, or patient: queries whole patients, as many as num_acquire slices hold
    config.aggregate = "mean"  # patient: its score is the mean or max of its slices', or top: mean of the upper quarter
    config.max_per_patient = 0  # slice: most slices of one patient per round; 0: no limit
    config.dropout_samples = 10  # bald: predictions drawn per slice
    config.parallel_runs = 0  # runs side by side in one program; 0: all of them on GPU, one on CPU

    # Stopping rules: stops.csv records where each would have stopped, all rounds are run. 0 turns a rule off.
    config.entropy_threshold = 0.3  # delta, nats: stop when no unlabelled slice has as much entropy
    config.budget_slices = 0  # stop at this number of labelled slices
    config.budget_patients = 0  # stop at this number of patients with a labelled slice
    config.stabilizing_predictions = 0.99  # stop at this agreement of successive models, Cohen's kappa over 3 rounds

    # A round's fit, as in configs/transfer.py.
    config.mode = "frozen"  # frozen: a head on features. finetune: the backbone too. scratch: from random weights
    config.finetune_from = ""  # finetune: first stage that is trained, e.g. layer4; empty: the first
    config.batch_norm = "updated"  # finetune: BatchNorm statistics: updated by the batches, or frozen as loaded
    config.cache_activations = False  # finetune_from: compute the stages below once, keep their outputs on disk
    config.dtype = "float32"  # type of the backbone's arithmetic; bfloat16 is for GPUs
    config.num_copies = 4  # augmented copies beside each training slice, 0 to 4; they cost no label
    config.augmentation = "fixed"  # fixed: the same copies in every epoch. fresh: new ones (finetune)
    config.data_on = "auto"  # device: all slices on it. host: streamed by Grain. auto: device if they fit
    config.num_epochs = 50  # passes over the labelled slices per round
    config.batch_size = 32  # examples per step, on all devices together; copies count
    config.class_weights = False  # whether the loss weighs both classes equally
    config.label_smoothing = 0.0  # s: labels 0 and 1 become s / 2 and 1 - s / 2
    config.checkpoint_every = 1  # finetune: epochs between checkpoints
    config.split, config.label_control = "patient", "none"  # fixed: other values are for configs/transfer.py
    config.patience, config.validation = 0, 0.2  # fixed at 0: a round trains all its epochs

    config.optim = ConfigDict()
    config.optim.lr = 1e-3  # Adam's learning rate in the first epoch of each round
    config.optim.backbone_lr = config.optim.get_oneway_ref("lr")  # the backbone's; follows lr unless set
    config.optim.lr_decay = 0.9  # factor on both rates, after each decay_every
    config.optim.decay_every = "epoch"  # epoch or step

    config.head = ConfigDict()
    config.head.widths = (512, 256)  # units of the hidden layers of the new classifier
    config.head.dropout = 0.0  # dropout rate before each layer of the classifier; bald needs some
    config.head.pooling = ""  # pooling of the last map: mean, max or flatten; empty: the backbone's own
    return config.lock()
