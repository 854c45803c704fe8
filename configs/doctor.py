r"""Algorithm 1 with a doctor as the oracle, on a dataset most of whose slices have no label.

    python -m launch.active --config=configs/doctor.py:efficientnet_lite0,ce_t1wi \
        --config.weights=runs/weights/efficientnet_lite0 --data=DATA_DIR --workdir=runs/doctor_ce_t1wi
    python -m launch.annotate --workdir=runs/doctor_ce_t1wi

In turn, until a rule says to stop: no slice with more entropy than --config.entropy_threshold, or another of
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
    config.oracle = "doctor"  # who answers: launch.annotate takes the answers
    config.seed = 0  # of initialisation, order, augmentation and draws

    config.initial_labeled = 400  # whole random patients are asked about until so many slices are labelled
    config.num_acquire = 50  # K, slices asked about a round
    config.num_rounds = 40  # at most; the rules below stop it before
    config.strategies = ("entropy",)  # one: nobody answers twice to compare
    config.unit = "slice"  # what is asked about; patient: whole patients, as many as num_acquire slices hold
    config.aggregate = "mean"  # patient: of its slices' scores; max, or top: the mean of the upper quarter
    config.max_per_patient = 0  # slice: at most so many of one patient a round; 0: no limit
    config.dropout_samples = 10  # predictions a slice that bald draws
    config.num_folds, config.num_repeats, config.parallel_runs = 5, 1, 0  # play no part here

    # When to stop asking. 0 takes a rule out.
    config.entropy_threshold = 0.3  # delta in nats: stop when no unlabelled slice has more
    config.entropy_statistic = "max"  # what of the unlabelled slices' entropies delta is held against; mean, p95
    config.budget_slices = 0  # stop at so many labelled slices
    config.budget_patients = 0  # stop at so many patients with a labelled slice
    config.stabilizing_predictions = 0.0  # agreement of successive models: off, the paper stops by entropy alone

    # A round's fit, as in configs/transfer.py; it continues from the last weights.
    config.mode = "frozen"  # frozen: features computed once. finetune: the backbone too. scratch: random weights
    config.finetune_from = ""  # finetune: the first stage that is trained, e.g. layer4; empty: all of them
    config.batch_norm = "updated"  # finetune: updated by the batches, or frozen at the statistics it came with
    config.cache_activations = False  # finetune_from: compute the stages below once and keep what they give on disk
    config.dtype = "float32"  # of the backbone's arithmetic; bfloat16 on GPU
    config.num_copies = 4  # augmented copies beside each training slice, 0 to 4; they cost no label
    config.augmentation = "fixed"  # fixed: the same copies all along. fresh: drawn anew every epoch (finetune)
    config.data_on = "auto"  # device: all slices there. host: streamed by Grain. auto: device where they fit
    config.num_epochs = 50  # passes over the labelled slices a round
    config.batch_size = 32  # examples a step, copies count, of all devices together
    config.class_weights = False  # whether both classes weigh the same in the loss
    config.label_smoothing = 0.0  # labels 0 and 1 become s / 2 and 1 - s / 2
    config.checkpoint_every = 1  # epochs; finetune
    config.split, config.label_control = "patient", "none"  # stay so here: other ones are for configs/transfer.py
    config.patience, config.validation = 0, 0.2  # patience stays 0: a round trains all its epochs

    config.optim = ConfigDict()
    config.optim.lr = 1e-3  # Adam's, in the first epoch of each round
    config.optim.backbone_lr = config.optim.get_oneway_ref("lr")  # of the backbone; follows lr unless set
    config.optim.lr_decay = 0.9  # factor on both rates
    config.optim.decay_every = "epoch"  # epoch or step

    config.head = ConfigDict()
    config.head.widths = (512, 256)  # hidden layers of the new classifier
    config.head.dropout = 0.0  # before each layer of the classifier; bald needs some
    config.head.pooling = ""  # of the last map: mean, max, flatten; empty: the backbone's own
    return config.lock()
