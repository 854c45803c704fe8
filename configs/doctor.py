r"""Algorithm 1 with a doctor as the oracle, on a dataset most of whose slices have no label.

    python -m launch.active --config=configs/doctor.py:efficientnet_lite0,ce_t1wi \
        --config.weights=runs/weights/efficientnet_lite0 --data=DATA_DIR --workdir=runs/doctor_ce_t1wi
    python -m launch.annotate --workdir=runs/doctor_ce_t1wi

The two take turns until a stopping rule applies: no slice has more entropy than --config.entropy_threshold, or one of
--config.{stabilizing_predictions,budget_slices,budget_patients}. Writes rounds.csv, predictions.csv of every slice, and
the last model.
"""

from ml_collections import ConfigDict

from configs import common

ARGUMENT = "BACKBONE,SEQUENCE"  # of --config, after the colon


def get_config(arg: str = "") -> ConfigDict:
    """Returns Algorithm 1 at the paper's values (section 2.1), one strategy, no folds: no slice is held back."""
    config = ConfigDict()
    config.backbone, config.sequence = common.split_arg(arg, ("efficientnet_lite0", "ce_t1wi"))
    config.weights = ""  # folder written by launch.convert_weights; empty: random weights
    config.oracle = "doctor"  # who labels: a doctor, by launch.annotate
    config.contradictions = "ask"  # a patient said to have both classes: ask again, last or majority of the answers
    config.given_labels = ""  # labels.csv of another run or tool, known from the beginning
    config.seed = 0  # seed of initialisation, order, augmentation and draws

    config.initial_labeled = 400  # slices of the first labelled set, rounded up to whole random patients
    config.num_acquire = 50  # K, slices queried per round
    config.num_rounds = 40  # most rounds; the rules below stop earlier; one more asks again what could not be told
    config.strategies = ("entropy",)  # one only: a doctor does not answer twice to compare
    config.unit = "slice"  # slice, or patient: queries whole patients, as many as num_acquire slices hold
    config.aggregate = "mean"  # patient: its score is the mean or max of its slices', or top: mean of the upper quarter
    config.max_per_patient = 0  # slice: most slices of one patient per round; 0: no limit
    config.dropout_samples = 10  # bald: predictions drawn per slice
    config.num_folds, config.num_repeats, config.parallel_runs = 5, 1, 0  # not used here

    # Rules for when to stop querying. 0 turns a rule off.
    config.entropy_threshold = 0.3  # delta, nats: stop when no unlabelled slice has as much entropy
    config.budget_slices = 0  # stop at this number of labelled slices
    config.budget_patients = 0  # stop at this number of patients with a labelled slice
    config.stabilizing_predictions = 0.0  # agreement of successive models: off, the paper stops by entropy alone

    # A round's fit, as in configs/transfer.py; it continues from the last weights.
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
