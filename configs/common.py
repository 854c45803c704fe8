"""Fields that every experiment shares."""

from ml_collections import ConfigDict


def get_common(backbone: str, sequence: str) -> ConfigDict:
    """The paper's recipe (section 2) on one backbone and sequence."""
    config = ConfigDict()
    config.backbone = backbone  # a row of lesion.models.MODELS
    config.sequence = sequence  # flair, ce_t1wi or t2wi
    config.weights = ""  # folder written by launch/convert_weights; empty: random weights
    config.mode = "frozen"  # frozen: features computed once, the head trained on them
    config.seed = 0  # of folds, initialisation, order, augmentation and, in active, draws
    config.num_folds = 5  # cross-validation over patients
    config.num_copies = 4  # augmented copies beside each training slice, 0 to 4
    config.num_epochs = 50  # passes over the training slices
    config.batch_size = 32  # examples a step, copies count
    config.optim = ConfigDict()
    config.optim.lr = 1e-3  # Adam's, in the first epoch
    config.optim.lr_decay = 0.9  # factor after every epoch
    config.head = ConfigDict()
    config.head.widths = (512, 256)  # hidden layers of the new classifier
    config.head.dropout = 0.0  # before each of its layers
    return config


def add_active(config: ConfigDict) -> ConfigDict:
    """Algorithm 1's fields at the paper's values (section 2.1); a round's fit continues from the last weights."""
    config.initial_labeled = 400  # whole random patients until so many slices are labelled
    config.num_acquire = 50  # K, slices asked for a round
    config.num_rounds = 10  # fits; one fewer question is asked than is used
    config.strategies = ("entropy", "random")  # rows of lesion.active.acquisition.STRATEGIES
    config.seeds = 5  # repetitions a fold: first set, weights, order
    config.entropy_threshold = 0.3  # delta in nats: stop when no unlabelled slice has more
    return config


def split_arg(arg: str, defaults: tuple[str, ...]) -> tuple[str, ...]:
    """`a,b` over the defaults: `resnet50` alone keeps the default sequence."""
    given = tuple(part for part in arg.split(",") if part)
    if len(given) > len(defaults):
        raise ValueError(f"config argument {arg!r}: at most {len(defaults)} parts, BACKBONE,SEQUENCE")
    return given + defaults[len(given) :]
