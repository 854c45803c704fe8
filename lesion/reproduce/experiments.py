"""What a configuration asks for: a list of experiments, each with the folder that it goes to."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lesion.active.experiment import check_asking, run_active
from lesion.data import cohort
from lesion.errors import UserError
from lesion.train import checkpoint, fusion
from lesion.train.loop import check_config, load, run_transfer

# Of a plan alone; what else stands in a configuration is shared by all its experiments.
PARTS = ("transfer", "fusion", "leakage", "active", "ablations")
LISTS = ("backbones", "sequences")  # of a part; its other fields stand over the shared ones
LEAKAGE = {f"{split}_{labels}": (split, labels) for split in ("patient", "leaky") for labels in ("true", "shuffled")}


class Experiment(NamedTuple):
    """One experiment of a plan.

    Attributes:
        name: of its folder.
        config: resolved.
        load: (config, data_dir) -> what `run` starts from, with `run`, its identity.
        run: (config, setup, workdir) -> metrics, or None if it was finished before.
    """

    name: str
    config: ConfigDict
    load: Callable[..., Any]
    run: Callable[[ConfigDict, Any, Path], dict[str, Any] | None]


def setting_name(overrides: tuple[tuple[str, Any], ...]) -> str:
    """A folder's name for what a run differs in: `head.widths=512-256,head.dropout=0.5`."""

    def text(value: Any) -> str:
        if isinstance(value, tuple | list):
            return "-".join(map(str, value)) or "none"
        return str(value).replace("/", "_") or "none"

    return ",".join(f"{name}={text(value)}" for name, value in overrides)


def experiment_config(config: ConfigDict, part: str = "", **fields: Any) -> ConfigDict:
    """The config of one experiment: the shared fields, those of its part of the plan over them, then `fields`.

    A field of a field is written with dots, as on the command line; the weights are those of its backbone.
    """
    whole = copy.deepcopy(config)  # what follows another field goes on following it
    own = {k: v for k, v in (whole[part].items() if part else ()) if k not in LISTS}
    made = ConfigDict({k: v for k, v in whole.items() if k not in PARTS} | own)
    made.update_from_flattened_dict(fields)
    if made.mode == "scratch":
        made.weights = ""
    elif "weights" not in fields:
        made.weights = weights_of(made.backbone, config.weights)
    return made.lock()


def weights_of(backbone: str, folder: str) -> str:
    """Where a backbone's weights are: `folder`, or what has the backbone's name in there; "" if nothing has.

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
    """Everything `config` asks for, checked as far as it can be before anything is computed.

    Returns:
        The experiments in the order in which they are run; and {name: why} of those the cohort has no slices for.

    Raises:
        UserError: if a value of the configuration cannot be run on any dataset, or nothing is left.
    """
    sequences = {name for name, counts in cohort.load_info(data_dir)["sequences"].items() if counts}
    experiments, left_out = [], {}
    for one in [*_transfer(config), *_fusion(config), *_leakage(config), *_active(config), *_ablations(config)]:
        _check(one)
        wanted = one.config.fusion.sequences if one.run is fusion.run_fusion else (one.config.sequence,)
        absent = [name for name in wanted if name not in sequences]
        if absent:
            left_out[one.name] = f"the cohort has no {' and no '.join(absent)}"
        else:
            experiments.append(one)
    if not experiments:
        raise UserError(f"nothing to run on {data_dir}: {'; '.join(sorted(set(left_out.values()))) or 'an empty plan'}")
    return experiments, left_out


def _check(one: Experiment) -> None:
    """Raises a one-line `UserError` for a value that cannot be run on any dataset."""
    if one.run is fusion.run_fusion:
        return fusion.check(one.config)
    check_config(one.config)
    if one.run is run_active:
        check_asking(one.config)


def _transfer(config: ConfigDict) -> Iterator[Experiment]:
    """Tables 3 to 6, Figures 5 to 8."""
    for backbone in config.transfer.backbones or (config.backbone,):
        for sequence in config.transfer.sequences:
            one = experiment_config(config, "transfer", backbone=backbone, sequence=sequence)
            yield Experiment(f"transfer/{backbone}/{sequence}", one, load, run_transfer)


def _fusion(config: ConfigDict) -> Iterator[Experiment]:
    """The paper's future work: the three sequences of a patient together."""
    if config.fusion.sequences:
        one = experiment_config(config, sequence="")
        with one.unlocked():
            one.fusion = copy.deepcopy(config.fusion)
        yield Experiment("fusion", one, fusion.load, fusion.run_fusion)


def _leakage(config: ConfigDict) -> Iterator[Experiment]:
    """How much a split by slices flatters, with the true labels and with shuffled ones."""
    for sequence in config.leakage.sequences:
        for which, (split, labels) in LEAKAGE.items():
            one = experiment_config(config, "leakage", sequence=sequence, split=split, labels=labels)
            yield Experiment(f"leakage/{sequence}/{which}", one, load, run_transfer)


def _active(config: ConfigDict) -> Iterator[Experiment]:
    """Figures 9 to 11."""
    for sequence in config.active.sequences:
        one = experiment_config(config, "active", sequence=sequence)
        yield Experiment(f"active/{sequence}", one, load, run_active)


def _ablations(config: ConfigDict) -> Iterator[Experiment]:
    """One thing changed at a time: of the shared fields, and of the labelling loop."""
    for run, part, sweeps in (
        (run_transfer, "", config.ablations.transfer),
        (run_active, "active", config.ablations.active),
    ):
        for sweep, settings in sweeps.items():
            for overrides in settings:
                one = experiment_config(config, part, **dict(overrides))
                yield Experiment(f"ablations/{sweep}/{setting_name(overrides)}", one, load, run)
