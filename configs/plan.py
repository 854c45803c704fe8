"""The fields of a plan, run by launch.reproduce: fields shared by its experiments, then a group for each part."""

from ml_collections import ConfigDict

from configs import active, baselines, common, fusion, transfer


def get_plan(backbone: str) -> ConfigDict:
    """Returns a plan that runs feature transfer on each sequence; a part's own fields override the shared ones."""
    config = transfer.get_config(f"{backbone},ce_t1wi").unlock()

    config.transfer = ConfigDict()
    config.transfer.backbones = ()  # Tables 3 to 6, Figs 5 to 8; empty: config.backbone
    config.transfer.sequences = common.SEQUENCES  # of each backbone
    for name in ("mode", "finetune_from", "augmentation", "patience"):  # follow the shared fields unless set
        config.transfer[name] = config.get_oneway_ref(name)
    config.explain = False  # whether to draw a Grad-CAM sheet of each of these runs

    config.baselines = ConfigDict()
    config.baselines.backbones = ()  # rows of lesion.models.BASELINES, Table 7
    config.baselines.sequences = ("ce_t1wi",)
    config.baselines.patience = 0  # the SVM trains no epochs
    config.baselines.label_smoothing = 0.0  # neither the SVM nor CapsNet has it
    config.baselines.rates = ConfigDict(baselines.RATES)  # {backbone: its own optim.lr}
    config.baselines.head, config.baselines.svm = baselines.get_config().head, baselines.get_config().svm

    config.fusion = fusion.get_config().fusion.unlock()
    config.fusion.sequences = ()  # sequences of a patient to fuse; empty: no fusion

    config.leakage = ConfigDict()
    config.leakage.sequences = ()  # slice-level against patient-level folds, and shuffled labels

    config.active = ConfigDict({name: value for name, value in active.get_config().items() if name not in config})
    config.active.sequences = ()  # Figs 9 to 11

    config.ablations = ConfigDict()  # {name: settings}, see `common.settings`
    config.ablations.transfer = ConfigDict()  # override the shared fields
    config.ablations.active = ConfigDict()  # override those of `active`
    return config
