"""Fields that every experiment shares."""

from ml_collections import ConfigDict

# At 1e-3 one step of Adam moves the votes of CapsNet's 18,432 capsules so far that both lengths stay at 1: nothing is
# learnt.
BASELINE_RATES = {"capsnet": 1e-4}
SEQUENCES = ("flair", "ce_t1wi", "t2wi")  # the paper's; of those that lesion.data.SEQUENCES knows


def get_common(backbone: str, sequence: str) -> ConfigDict:
    """The paper's recipe (section 2) on one backbone and sequence."""
    config = ConfigDict()
    config.backbone = backbone  # a row of lesion.models.MODELS
    config.sequence = sequence  # a row of lesion.data.SEQUENCES: flair, ce_t1wi, t2wi
    config.weights = ""  # folder written by launch/convert_weights; empty: random weights
    # frozen: features computed once, the head trained on them. finetune: the backbone too. scratch: random weights.
    config.mode = "frozen"
    config.finetune_from = ""  # finetune: the first stage that is trained, e.g. layer4; empty: all of them
    config.batch_norm = "updated"  # finetune: updated by the batches, or frozen at the statistics it came with
    config.cache_activations = False  # finetune_from: compute the stages below once and keep what they give on disk
    config.dtype = "float32"  # of the backbone's arithmetic; bfloat16 on GPU. Parameters and statistics: float32
    config.seed = 0  # of folds, initialisation, order, augmentation and, in active, draws
    config.num_folds = 5  # cross-validation over patients
    # patient: all slices of a patient in one fold. leaky: slice by slice, only to measure how much that flatters.
    config.split = "patient"
    config.labels = "true"  # shuffled: dealt anew among the patients, a control that nothing can be learned from
    config.num_copies = 4  # augmented copies beside each training slice, 0 to 4
    config.augmentation = "fixed"  # fixed: the same copies all along. fresh: drawn anew every epoch (finetune)
    config.num_epochs = 50  # passes over the training slices
    config.batch_size = 32  # examples a step, copies count, of all devices together
    config.class_weights = False  # whether both classes weigh the same in the loss
    config.label_smoothing = 0.0  # labels 0 and 1 become s / 2 and 1 - s / 2
    config.patience = 0  # epochs without a lower validation loss before it stops and takes the best; 0: never
    config.validation = 0.2  # patience: share of the training patients that is kept for it
    config.checkpoint_every = 1  # epochs; finetune. What is lost when a machine dies is at most this
    config.data_on = "auto"  # device: all slices there. host: streamed by Grain. auto: device where they fit
    config.optim = ConfigDict()
    config.optim.lr = 1e-3  # Adam's, in the first epoch
    config.optim.backbone_lr = config.optim.get_oneway_ref("lr")  # of the backbone; follows lr unless set
    config.optim.lr_decay = 0.9  # factor on both rates
    config.optim.decay_every = "epoch"  # epoch or step
    config.head = ConfigDict()
    config.head.widths = (512, 256)  # hidden layers of the new classifier
    config.head.dropout = 0.0  # before each layer of the classifier
    config.head.pooling = ""  # of the last map: mean, max, flatten; empty: the backbone's own
    return config


def add_active(config: ConfigDict) -> ConfigDict:
    """Algorithm 1's fields at the paper's values (section 2.1); a round's fit continues from the last weights."""
    config.initial_labeled = 400  # whole random patients until so many slices are labelled
    config.num_acquire = 50  # K, slices asked for a round
    config.num_rounds = 10  # fits; one fewer question is asked than is used
    config.strategies = ("entropy", "random")  # rows of lesion.active.strategies.STRATEGIES
    config.oracle = "cohort"  # who answers: the dataset, its labels hidden until asked for; or a doctor
    config.seeds = 5  # repetitions a fold: first set, weights, order
    config.unit = "slice"  # what is asked for; patient: whole patients, as many as num_acquire slices hold
    config.aggregate = "mean"  # patient: of its slices' scores; max, or top: the mean of the upper quarter
    config.per_patient = 0  # slice: at most so many of one patient a round; 0: no limit
    config.dropout_samples = 10  # predictions a slice that bald draws
    # Where each rule would have stopped is told; the curves go on. 0 takes a rule out.
    config.entropy_threshold = 0.3  # delta in nats: stop when no unlabelled slice has more
    config.entropy_of = "max"  # what of the unlabelled slices' entropies delta is held against; mean, p95
    config.budget_slices = 0  # stop at so many labelled slices
    config.budget_patients = 0  # stop at so many patients with a labelled slice
    config.plateau = 0.99  # stop when successive models agree so well on the pool, Cohen's kappa over 3 rounds
    config.lanes = 0  # runs side by side in one program; 0: all of them on GPU, one on CPU
    return config


def add_plan(config: ConfigDict) -> ConfigDict:
    """What launch.reproduce runs: nothing yet. A part's other fields stand over the shared ones."""
    config.transfer = ConfigDict()
    config.transfer.backbones = ()  # Tables 3 to 6, Figs 5 to 8; empty: config.backbone
    config.transfer.sequences = SEQUENCES  # each backbone on each of them
    # The shared fields unless set: the other parts stand on frozen features.
    config.transfer.mode = config.get_oneway_ref("mode")  # frozen, finetune or scratch
    config.transfer.finetune_from = config.get_oneway_ref("finetune_from")  # finetune: the first stage trained
    config.transfer.augmentation = config.get_oneway_ref("augmentation")  # fixed, or fresh every epoch (finetune)
    config.transfer.patience = config.get_oneway_ref("patience")  # epochs without a lower validation loss; 0: never
    config.explain = False  # whether Grad-CAM sheets of each of these are drawn
    config.baselines = add_baselines(ConfigDict())
    config.baselines.backbones = ()  # rows of lesion.models.BASELINES, Table 7
    config.baselines.sequences = ("ce_t1wi",)
    config.baselines.patience = 0  # the SVM has no epochs
    config.baselines.label_smoothing = 0.0  # neither the SVM nor CapsNet knows it
    config.baselines.rates = ConfigDict()  # of those that want their own
    config.baselines.rates.capsnet = BASELINE_RATES["capsnet"]  # optim.lr of capsnet
    config.fusion = add_fusion(ConfigDict())
    config.fusion.sequences = ()  # of a patient, fused
    config.leakage = ConfigDict()
    config.leakage.sequences = ()  # slice-level against patient-level folds, true and shuffled labels
    config.active = add_active(ConfigDict())
    config.active.sequences = ()  # Figs 9 to 11
    config.ablations = ConfigDict()  # {sweep: settings}; a setting is a tuple of (field, value)
    config.ablations.transfer = ConfigDict()
    config.ablations.active = ConfigDict()
    return config


def add_baselines(config: ConfigDict) -> ConfigDict:
    """What a baseline has beside the shared fields: a classifier of its own."""
    config.head = ConfigDict({"widths": (), "dropout": 0.0, "pooling": ""})
    config.svm = ConfigDict()  # of cnn_f_svm alone
    config.svm.num_features = 500  # of 4096, those with the largest F between the classes; a guess
    config.svm.c = 1.0  # of the support vector machine with Gaussian kernel; a guess
    config.svm.augmented = True  # whether the training slices' augmented copies are fitted too
    return config


def add_fusion(config: ConfigDict) -> ConfigDict:
    """Fusion's fields; backbone, weights and recipe are the shared ones."""
    config.sequences = SEQUENCES  # two or more; a patient may lack some
    config.backbones = ConfigDict()  # of each sequence
    for sequence in config.sequences:
        config.backbones[sequence] = ConfigDict()
        config.backbones[sequence].backbone = ""  # a row of lesion.models.MODELS; empty: the shared one
        config.backbones[sequence].weights = ""  # its folder; empty: the shared one
    config.late = "probability"  # late: what of the sequences' heads is averaged; logit
    config.attention_width = 128  # attention: rows of V and U
    config.inner_folds = 3  # best_single: folds of the training patients by which it is chosen
    return config


def split_arg(arg: str, defaults: tuple[str, ...]) -> tuple[str, ...]:
    """`a,b` over the defaults: `resnet50` alone keeps the default sequence."""
    given = tuple(part for part in arg.split(",") if part)
    if len(given) > len(defaults):
        raise ValueError(f"config argument {arg!r}: at most {len(defaults)} parts, BACKBONE,SEQUENCE")
    return given + defaults[len(given) :]
