"""The kinds of experiments: how each is checked, loaded, run, and described before it runs."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lesion.active import doctor
from lesion.active.experiment import check_active, describe_end, make_plan, run_active
from lesion.dataset import UNLABELED, store
from lesion.errors import UserError
from lesion.inference.explain import explain_run
from lesion.runs import rundir
from lesion.transfer import fusion
from lesion.transfer.checks import check_config
from lesion.transfer.folds import Units, fold_masks, training_parts
from lesion.transfer.fusion import FusionSetup
from lesion.transfer.loading import Setup, load
from lesion.transfer.methods import check_cache, run_transfer
from lesion.transfer.permutation import HEAD, NUM_SHUFFLES, run_permutation
from lesion.worklist import round_file

Rows = list[tuple[str, str]]  # (heading, text)


class Kind(NamedTuple):
    """A kind of experiment, as functions.

    Attributes:
        program: module that runs one alone, e.g. `launch.train`; "" if none does.
        check: (config) -> None; raises a one-line `UserError` for a value that cannot be run on any dataset.
        load: (config, data_dir, keep) -> setup; raises a `UserError` for a value that cannot be run on this dataset;
            writes nothing without `keep`.
        run: (config, setup, folder) -> metrics, or None if it was finished before; a message for a doctor's run.
        describe: (config, setup) -> what would run, in words.
        progress: (config, setup, folder) -> how far it is, in words; a `UserError` if the folder holds another run.
        part: subfolder of the experiment's folder that is finished last; "" for the folder itself.
    """

    program: str
    check: Callable[[ConfigDict], None]
    load: Callable[[ConfigDict, Path, bool], Any]
    run: Callable[[ConfigDict, Any, Path], Any]
    describe: Callable[[ConfigDict, Any], str]
    progress: Callable[[ConfigDict, Any, Path], str]
    part: str = ""


class Experiment(NamedTuple):
    """One experiment of many.

    Attributes:
        name: path of its folder below the working directory; "" for the directory itself.
        config: its configuration, locked.
        kind: key of `KINDS`.
        after: name of the experiment whose results it needs, "" for none.
        command: arguments that run it alone, without --data and --workdir; () where only the whole plan can be rerun.
    """

    name: str
    config: ConfigDict
    kind: str
    after: str = ""
    command: tuple[str, ...] = ()


def kind_of(config: ConfigDict) -> str:
    """Returns the kind of experiment that a configuration describes, a key of `KINDS`."""
    if "fusion" in config:
        return "fusion"
    if "strategies" in config:
        return "doctor" if config.oracle == "doctor" else "active"
    return "transfer"


def setup_rows(config: ConfigDict, setup: Any) -> Rows:
    """Returns rows of (heading, text) on an experiment's dataset, folds, weights and devices."""
    if isinstance(setup, FusionSetup):
        counts = ", ".join(f"{len(slices.label):,} of {name}" for name, slices in setup.slices.items())
        patients = len(setup.patients.patient)
        folds = f"{setup.folds.num_folds}, patients kept together"
        rows = [("dataset", f"{setup.data_dir}: {patients} patients; slices: {counts}{_phantom(setup.data_dir)}")]
        weights = [(name, describe_weights(record)) for name, record in setup.weights.items()]
    elif isinstance(setup, Setup):
        slices = setup.slices
        count = f"{len(slices.label):,} slices of {config.sequence}"
        rows = [("dataset", f"{setup.data_dir}: {count}{_phantom(setup.data_dir)}"), ("slices", _label_counts(setup))]
        split = {"patient": "patients kept together", "leaky": "LEAKY: slices of a patient on both sides"}
        sizes = ""
        if setup.folds.num_folds:
            test = fold_masks(config, setup.folds, Units.of_slices(slices))[1]
            sizes = f"; test slices {', '.join(str(n) for n in test.sum(axis=1))}"
        folds = f"{split[config.split]}{sizes}" if sizes else ""
        weights = [("weights", describe_weights(setup.run["weights"]))]
    else:
        return []
    if folds:
        rows.append(("folds", f"{folds}; split {setup.folds.hash[:12]}, seed {config.seed}"))
    kinds = sorted({device.device_kind for device in jax.devices()})
    return [*rows, *weights, ("devices", f"{jax.device_count()} × {' and '.join(kinds)}")]


def _phantom(data_dir: Path) -> str:
    return ", PHANTOM patients" if store.load_info(data_dir)["phantom"] else ""


def _label_counts(setup: Setup) -> str:
    slices = setup.slices

    def count(mask: np.ndarray, text: str) -> str:
        return f"{int(mask.sum()):,} slices of {len(np.unique(slices.patient[mask]))} patients {text}"

    counts = [count(slices.label == value, f"with {name}") for value, name in enumerate(setup.classes)]
    hidden = slices.label == UNLABELED
    return "; ".join([*counts, *([count(hidden, "without label")] if hidden.any() else [])])


def describe_weights(record: dict[str, Any]) -> str:
    """Returns where a backbone's weights come from, in words."""
    if not record["pretrained"]:
        return f"RANDOM, seed {record['seed']}: --config.weights names no folder"
    return f"{record['model']}, {record['source']}'s {record['file']}, sha256 {record['sha256'][:12]}"


def _network(config: ConfigDict) -> str:
    start = f" from {config.finetune_from} on" if config.finetune_from else ""
    modes = {"frozen": "frozen", "finetune": f"fine-tuned{start}", "scratch": "trained from random weights"}
    return f"{config.backbone} {modes[config.mode]}"


def _describe_transfer(config: ConfigDict, setup: Setup) -> str:
    title = f"feature transfer on {config.sequence}, {_network(config)}, {config.num_folds} folds"
    if "svm" in config and config.mode == "frozen":
        return f"{title}: a support vector machine a fold"
    units = Units.of_slices(setup.slices)
    counts = [training_parts(config, units, train)[0].sum() for train in fold_masks(config, setup.folds, units)[0]]
    steps = sum(-(-int(n) * (1 + config.num_copies) // config.batch_size) for n in counts) * config.num_epochs
    fewer = ", fewer where patience ends" * bool(config.patience)
    return f"{title}: {steps:,} steps of at most {config.batch_size} examples in {config.num_epochs} epochs{fewer}"


def _describe_fusion(config: ConfigDict, setup: FusionSetup) -> str:
    return f"fusion of {', '.join(setup.slices)}: {', '.join(fusion.part_names(config))}"


def _describe_active(config: ConfigDict, setup: Setup) -> str:
    """Describes an active-labelling run; steps are approximate where rounds are not of `num_acquire` slices."""
    plan = make_plan(config, setup)
    labeled = plan.first_slices[..., None] + config.num_acquire * np.arange(plan.num_rounds)
    labeled = np.minimum(labeled, plan.pool_slices[:, None, None])
    copies, size = 1 + config.num_copies, config.batch_size
    steps = int((-(-labeled * copies // size)).sum()) * len(config.strategies)
    full = plan.num_rounds * config.num_repeats * int((-(-plan.pool_slices * copies // size)).sum())
    starts, num_strategies = plan.first_slices.size, len(config.strategies)
    each = f"({config.num_folds} folds, {config.num_repeats} repeats, {num_strategies} strategies)"
    text = (
        f"active labelling on {config.sequence}, {_network(config)}: {', '.join(config.strategies)}: "
        f"{starts * num_strategies:,} runs {each} of {plan.num_rounds} rounds, {config.num_epochs} epochs each, and "
        f"{starts} with all labels: about {config.num_epochs * (steps + full):,} steps of at most {size} examples"
    )
    return "; ".join(part for part in (text, describe_end(config, plan)) if part)


def _describe_doctor(config: ConfigDict, setup: Setup) -> str:
    hidden = int((setup.slices.label == UNLABELED).sum())
    return (
        f"active labelling of {config.sequence} with a doctor, {_network(config)}, by {config.strategies[0]}: asks for "
        f"{config.num_acquire} of {hidden:,} slices a round, at most {config.num_rounds} rounds"
    )


def _state(setup: Any, folder: Path, how_far: str) -> str:
    """Returns `finished already`, `goes on` with `how_far` the run is, or `new`; raises as `rundir.is_finished`."""
    if rundir.is_finished(folder, setup.run):
        return "finished already, nothing would be done"
    return f"goes on, {how_far}" if (folder / rundir.CONFIG).exists() else "new"


def _transfer_progress(config: ConfigDict, setup: Setup, folder: Path) -> str:
    done = sum((folder / "checkpoints" / f"fold_{k}").exists() for k in range(config.num_folds))
    return _state(setup, folder, f"{done} of {config.num_folds} folds are finished")


def _fusion_progress(config: ConfigDict, setup: FusionSetup, folder: Path) -> str:
    parts = fusion.part_names(config)
    done = [name for name in parts if rundir.is_finished(folder / name, setup.run | {"part": name})]
    return f"{len(done)} of {len(parts)} parts are finished {', '.join(done)}".rstrip()


def _active_progress(config: ConfigDict, setup: Setup, folder: Path) -> str:
    del config
    num_files = len(list((folder / "rounds").rglob("*.npz")))  # one file per batch of runs side by side
    return _state(setup, folder, f"{num_files} results of runs are saved there")


def _doctor_progress(config: ConfigDict, setup: Setup, folder: Path) -> str:
    del config
    numbers, waits = round_file.numbers(folder), ""
    if numbers:
        last = round_file.read(round_file.folder_of(folder, numbers[-1]))
        waits = f", {round_file.num_open(folder, last)} of {len(last.items)} slices of the last to answer"
    return _state(setup, folder, f"{len(numbers)} rounds queried so far{waits}")


def _load_transfer(config: ConfigDict, data_dir: Path, keep: bool) -> Setup:
    setup = load(config, data_dir, keep=keep)
    check_cache(config, setup)
    return setup


def _load_fusion(config: ConfigDict, data_dir: Path, keep: bool) -> FusionSetup:
    setup = fusion.load(config, data_dir, keep=keep)
    for name in setup.slices:
        check_cache(fusion.sequence_config(config, name), setup.of_sequence(name))
    return setup


def _load_active(config: ConfigDict, data_dir: Path, keep: bool) -> Setup:
    setup = _load_transfer(config, data_dir, keep)
    make_plan(config, setup)
    return setup


def _load_doctor(config: ConfigDict, data_dir: Path, keep: bool) -> Setup:
    setup = doctor.with_given(config, load(config, data_dir, with_folds=False, keep=keep))
    doctor.check_unlabeled(config, setup)
    check_cache(config, setup)
    return setup


def _explain(config: ConfigDict, data_dir: Path, folder: Path) -> dict[str, Any] | None:
    """Writes the Grad-CAM sheet of the transfer run of the same name."""
    run = folder.parents[2] / "transfer" / folder.parent.name / folder.name
    return explain_run(run, data_dir, folder, weights=config.weights)


KINDS = {
    "transfer": Kind(
        "launch.train",
        check_config,
        _load_transfer,
        run_transfer,
        _describe_transfer,
        _transfer_progress,
    ),
    "fusion": Kind(
        "launch.train",
        fusion.check,
        _load_fusion,
        fusion.run_fusion,
        _describe_fusion,
        _fusion_progress,
        part=fusion.LAST_PART,
    ),
    "permutation": Kind(
        "",
        check_config,
        lambda config, data_dir, keep: load(config, data_dir, keep=keep),
        run_permutation,
        lambda config, setup: f"permutation test on {config.sequence}, {NUM_SHUFFLES} shuffles of the labels: {HEAD}",
        lambda config, setup, folder: _state(setup, folder, "it begins anew"),
    ),
    "active": Kind("launch.active", check_active, _load_active, run_active, _describe_active, _active_progress),
    "doctor": Kind(
        "launch.active", doctor.check_doctor, _load_doctor, doctor.run_doctor, _describe_doctor, _doctor_progress
    ),
    "explain": Kind(
        "",
        check_config,
        lambda config, data_dir, keep: data_dir,
        _explain,
        lambda config, data_dir: "Grad-CAM sheet of the transfer run of the same name, after it",
        lambda config, data_dir, folder: "finished already" if (folder / rundir.METRICS).exists() else "new",
    ),
}
# Fields that loading does not read; any other field is assumed to matter.
NOT_LOADED = {"num_epochs", "batch_size", "num_copies", "checkpoint_every", "optim", "head", "data_on"}


def load_all(experiments: Sequence[Experiment], data_dir: Path) -> list[Any]:
    """Returns each experiment's setup, or its `UserError`; writes nothing, and loads once what several share."""
    loaded: dict[str, Any] = {}
    setups = []
    for experiment in experiments:
        fields = json.loads(experiment.config.to_json())
        shared = {name: value for name, value in fields.items() if name not in NOT_LOADED}
        key = json.dumps([experiment.kind, shared], sort_keys=True)
        if key not in loaded:
            try:
                loaded[key] = KINDS[experiment.kind].load(experiment.config, data_dir, False)
            except UserError as error:
                loaded[key] = error
        setup = loaded[key]
        if isinstance(setup, Setup | FusionSetup):
            setup = setup._replace(run=setup.run | {"config": fields})
        setups.append(setup)
    return setups
