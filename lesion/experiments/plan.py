"""The experiments of a plan, each named by its folder."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from lesion import files, models
from lesion.dataset import store
from lesion.errors import UserError
from lesion.experiments.kinds import KINDS, Experiment
from lesion.runs import checkpoint, rundir
from lesion.transfer.loading import cohort_folds

# Groups of a plan's fields for one part each; its other fields are shared by all experiments.
PARTS = ("transfer", "explain", "baselines", "fusion", "leakage", "active", "ablations")
LISTS = ("backbones", "sequences", "rates")  # of a part, span its experiments; its other fields override shared ones
LEAKAGE = {
    "patient_true": {},
    "leaky_true": {"split": "leaky"},
    "leaky_shuffled": {"split": "leaky", "label_control": "shuffled"},
}


def experiment_config(config: ConfigDict, part: str = "", **fields: Any) -> ConfigDict:
    """Returns the config of one experiment: the shared fields, overridden by those of its part and then by `fields`.

    Names of nested fields have dots, as on the command line; the weights are those of the experiment's backbone.
    """
    whole = copy.deepcopy(config)  # keeps references between fields
    own = {k: v for k, v in (whole[part].items() if part else ()) if k not in LISTS}
    made = ConfigDict({k: v for k, v in whole.items() if k not in PARTS} | own)
    if part == "active":
        del made.num_deals  # its folds are dealt once, and runs repeated (num_repeats)
    made.update_from_flattened_dict(fields)
    if made.mode == "scratch":
        made.weights = ""
    elif "weights" not in fields:
        made.weights = weights_of(models.get_spec(made.backbone).weights_of or made.backbone, config.weights)
    return made.lock()


def weights_of(backbone: str, folder: str) -> str:
    """Returns the folder of a backbone's weights: `folder`, or its subfolder of the backbone's name; "" for neither.

    Raises:
        UserError: if there is no such folder, or it holds another backbone's weights.
    """
    path = Path(folder)
    if not folder or (path / backbone).is_dir():
        return str(path / backbone) if folder else ""
    if (path / checkpoint.PROVENANCE).is_file() or not path.is_dir():
        model = checkpoint.read_provenance(path)["model"]
        if model != backbone:
            raise UserError(f"{path} holds weights of {model}, not of {backbone}: name a folder with one of each in it")
        return folder
    return ""


def plan(config: ConfigDict, data_dir: Path) -> tuple[list[Experiment], dict[str, str]]:
    """Lists all experiments of `config`, checked as far as possible before anything is computed.

    Returns:
        The experiments in running order, and {name: reason} of those that the cohort has no slices for.

    Raises:
        UserError: if a value of the configuration cannot be run on any dataset, or nothing is left.
    """
    sequences = {name for name, counts in store.load_info(data_dir)["sequences"].items() if counts}
    experiments, left_out = [], {}
    for part in (_transfer, _baselines, _fusion, _leakage, _active, _ablations):
        for experiment in part(config):
            try:
                KINDS[experiment.kind].check(experiment.config)
            except UserError as error:
                raise UserError(f"{experiment.name}: {error}") from error
            is_fusion = experiment.kind == "fusion"
            wanted = experiment.config.fusion.sequences if is_fusion else (experiment.config.sequence,)
            absent = [name for name in wanted if name not in sequences]
            if absent:
                left_out[experiment.name] = f"the cohort has no {' and no '.join(absent)}"
            else:
                experiments.append(experiment)
    if not experiments:
        raise UserError(f"nothing to run on {data_dir}: {'; '.join(sorted(set(left_out.values()))) or 'an empty plan'}")
    return experiments, left_out


def identity(config: ConfigDict, data_dir: Path, *, keep: bool = True) -> dict[str, Any]:
    """Returns the identity of a plan's run, see `rundir.identity`, without weights: each experiment has its own.

    Writes the dataset's split, but nothing without `keep`.
    """
    folds = cohort_folds(data_dir, config.num_folds, config.seed, keep)
    return rundir.identity(config, store.load_info(data_dir), folds.hash, {}, jax.devices()[0].device_kind)


def as_recorded(workdir: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """Returns the identity `whole` with the parts that `workdir` records: a plan may grow or shrink there.

    Its experiments are recognised by their own configurations.
    """
    path = workdir / rundir.CONFIG
    if not path.exists():
        return whole
    recorded = files.read_json(path)["config"]
    shared = {k: v for k, v in whole["config"].items() if k not in PARTS}
    return whole | {"config": shared | {k: v for k, v in recorded.items() if k in PARTS}}


def _transfer(config: ConfigDict) -> Iterator[Experiment]:
    """Yields the runs of Tables 3 to 6 and Figures 5 to 8, and their Grad-CAM sheets."""
    for backbone in config.transfer.backbones or (config.backbone,):
        for sequence in config.transfer.sequences:
            name = f"{backbone}/{sequence}"
            made = experiment_config(config, "transfer", backbone=backbone, sequence=sequence)
            yield Experiment(f"transfer/{name}", made, "transfer")
            if config.explain:
                yield Experiment(f"explain/{name}", made, "explain", after=f"transfer/{name}")


def _baselines(config: ConfigDict) -> Iterator[Experiment]:
    """Yields the runs of Table 7: other networks, with classifiers of their own."""
    for backbone in config.baselines.backbones:
        for sequence in config.baselines.sequences:
            mode = {"mode": models.BASELINES[backbone].modes[0]} if backbone in models.BASELINES else {}
            rate = {"optim.lr": config.baselines.rates[backbone]} if backbone in config.baselines.rates else {}
            made = experiment_config(config, "baselines", backbone=backbone, sequence=sequence, **mode, **rate)
            yield Experiment(f"baselines/{backbone}/{sequence}", made, "transfer")


def _fusion(config: ConfigDict) -> Iterator[Experiment]:
    """Yields the run of the paper's future work: the three sequences of a patient together."""
    if config.fusion.sequences:
        made = experiment_config(config, sequence="")
        with made.unlocked():
            made.fusion = copy.deepcopy(config.fusion)
            for own in made.fusion.backbones.values():
                if own.backbone and not own.weights:
                    own.weights = weights_of(own.backbone, config.weights)
        yield Experiment("fusion", made, "fusion")


def _leakage(config: ConfigDict) -> Iterator[Experiment]:
    """Yields runs that measure how much a split by slices flatters, and the control that honest folds do not."""
    for sequence in config.leakage.sequences:
        for name, fields in LEAKAGE.items():
            made = experiment_config(config, "leakage", sequence=sequence, **fields)
            yield Experiment(f"leakage/{sequence}/{name}", made, "transfer")
        made = experiment_config(config, "leakage", sequence=sequence, mode="frozen", finetune_from="")
        yield Experiment(f"permutation/{sequence}", made, "permutation")


def _active(config: ConfigDict) -> Iterator[Experiment]:
    """Yields the runs of Figures 9 to 11."""
    for sequence in config.active.sequences:
        made = experiment_config(config, "active", sequence=sequence)
        yield Experiment(f"active/{sequence}", made, "active")


def _ablations(config: ConfigDict) -> Iterator[Experiment]:
    """Yields runs that change one thing at a time: of the shared fields, or of the labelling loop."""
    parts = ("transfer", "", config.ablations.transfer), ("active", "active", config.ablations.active)
    for kind, part, sweeps in parts:
        for sweep, settings in sweeps.items():
            for overrides in settings:
                made = experiment_config(config, part, **dict(overrides))
                yield Experiment(f"ablations/{sweep}/{rundir.setting_name(overrides)}", made, kind)
