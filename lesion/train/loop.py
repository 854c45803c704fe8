"""The impure shell of training: loads, checks, runs the folds, writes the results."""

import csv
import functools
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lesion import metrics, models, trees
from lesion.data import Slices, cohort, splits
from lesion.errors import Interrupted, UserError
from lesion.train import checkpoint, methods, pretrained, resume, rundir

PREDICTIONS = ("fold", "patient", "slice", "label", "probability")


class Setup(NamedTuple):
    """What every experiment on one sequence starts from.

    Attributes:
        data_dir: what `launch/prepare` wrote.
        slices: N of them.
        folds: over their patients.
        variables: of the backbone.
        run: see `rundir.identity`.
    """

    data_dir: Path
    slices: Slices
    folds: splits.Splits
    variables: dict
    run: dict[str, Any]


LEAST = {"num_epochs": 1, "batch_size": 1, "num_copies": 0, "num_folds": 2, "patience": 0, "checkpoint_every": 1}
CHOICES = {
    "mode": ("frozen", "finetune", "scratch"),
    "batch_norm": ("frozen", "updated"),
    "augmentation": ("fixed", "fresh"),
    "dtype": ("float32", "bfloat16"),
    "data_on": ("auto", "device", "host"),
    "split": ("patient", "leaky"),
    "labels": ("true", "shuffled"),
    "optim.decay_every": ("epoch", "step"),
    "head.pooling": ("", "mean", "max", "flatten"),
}


def _field(config: ConfigDict, name: str) -> Any:
    return functools.reduce(lambda part, key: part[key], name.split("."), config)


def check_config(config: ConfigDict) -> None:
    """Raises a one-line `UserError` for a value that cannot be run."""
    models.get_spec(config.backbone)
    for name, least in LEAST.items():
        if config[name] < least:
            raise UserError(f"--config.{name}={config[name]}: {least} is the least")
    for name, choices in CHOICES.items():
        if _field(config, name) not in choices:
            known = ", ".join(repr(c) for c in choices)
            raise UserError(f"--config.{name}={_field(config, name)}: choose one of {known}")
    if config.num_copies > 4:
        raise UserError(f"--config.num_copies={config.num_copies}: 4 is the most")
    if not 0 < config.validation < 1:
        raise UserError(f"--config.validation={config.validation}: a share of the patients, between 0 and 1")
    if not 0 <= config.label_smoothing < 1:
        raise UserError(f"--config.label_smoothing={config.label_smoothing}: between 0 and 1")
    if config.mode == "scratch" and config.weights:
        raise UserError("--config.mode=scratch begins from random weights: leave out --config.weights")
    if config.finetune_from:
        if config.mode != "finetune":
            raise UserError(f"--config.finetune_from is for --config.mode=finetune, not {config.mode}")
        models.stage_before(config.backbone, config.finetune_from)
    elif config.cache_activations:
        raise UserError("--config.cache_activations needs --config.finetune_from: the stages below it are cached")
    if config.cache_activations and config.augmentation == "fresh":
        raise UserError("--config.cache_activations needs --config.augmentation=fixed: fresh copies cannot be cached")
    if config.mode == "frozen" and config.augmentation == "fresh":
        raise UserError("--config.augmentation=fresh needs --config.mode=finetune: frozen features are computed once")


def cohort_folds(data_dir: Path, num_folds: int, seed: int) -> splits.Splits:
    """One deal of the cohort's patients for all its sequences, so that results on them can be compared and fused."""
    present = [name for name, counts in cohort.load_info(data_dir)["sequences"].items() if counts]
    loaded = [cohort.load_slices(data_dir, name) for name in present]
    label = np.concatenate([s.label for s in loaded])
    patient = np.concatenate([s.patient for s in loaded])
    return splits.load_or_make(data_dir, label, patient, num_folds, seed)


def _folds(config: ConfigDict, data_dir: Path, slices: Slices) -> splits.Splits:
    """The cohort's deal of patients; or, to measure what a leak is worth, a deal of slices that is kept nowhere."""
    if config.split == "leaky":
        return splits.make(slices.label, slices.slice_id, config.num_folds, config.seed)
    return cohort_folds(data_dir, config.num_folds, config.seed)


def fold_masks(config: ConfigDict, slices: Slices, folds: splits.Splits) -> tuple[np.ndarray, np.ndarray]:
    """Train and test masks of every fold, bool [num_folds, N] each."""
    unit = slices.slice_id if config.split == "leaky" else slices.patient
    return folds.masks(unit, slices.label)


@functools.cache  # several experiments of one process share them
def _weights(backbone: str, directory: str, seed: int) -> tuple[dict, dict[str, Any]]:
    if directory:
        return pretrained.load(backbone, directory)
    return pretrained.random_variables(backbone, seed)


def load_weights(config: ConfigDict) -> tuple[dict, dict[str, Any]]:
    """The backbone's variables and provenance: converted where `config.weights` names a folder, else random."""
    return _weights(config.backbone, config.weights, config.seed)


def load(config: ConfigDict, data_dir: Path, *, with_folds: bool = True) -> Setup:
    """Reads and checks what an experiment needs; writes nothing but the dataset's split.

    Without folds nothing is held back, and few labels are enough.
    """
    check_config(config)
    slices = cohort.load_slices(data_dir, config.sequence)
    if config.labels == "shuffled":
        slices = slices._replace(label=splits.shuffled(slices.label, slices.patient, config.seed))
    info = cohort.load_info(data_dir)
    folds = splits.Splits({}, 0, config.seed)
    if with_folds:
        folds = _folds(config, data_dir, slices)
    if config.patience and with_folds:
        for train in fold_masks(config, slices, folds)[0]:
            splits.hold_out(slices.patient, slices.label, train, config.validation, config.seed)
    variables, weights = load_weights(config)
    run = rundir.identity(config, info, folds.hash, weights, jax.devices()[0].device_kind)
    return Setup(data_dir, slices, folds, variables, run)


def _fold_keys(config: ConfigDict, fold: int) -> tuple[jax.Array, jax.Array]:
    """Of a fold's initialisation and of its training."""
    key = jax.random.fold_in(jax.random.key(config.seed), fold)
    init, fit = (jax.random.fold_in(key, purpose) for purpose in range(2))
    return init, fit


def _write_fold(folder: Path, rows: list[tuple], result: methods.Fitted, provenance: dict[str, Any]) -> None:
    """The fold's weights and predictions, all at once."""

    def predictions(partial: Path) -> None:
        rundir.write_csv(partial / "predictions.csv", PREDICTIONS, rows)

    num_params = {part: trees.num_params(tree) for part, tree in result.variables["params"].items()}
    record = provenance | {"history": result.history, "num_params": num_params}
    checkpoint.save_variables(folder, result.variables, record, predictions)


def _read_fold(folder: Path, provenance: dict[str, Any]) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """What `_write_fold` wrote: rows and record."""
    record = checkpoint.read_provenance(folder)
    for name, value in provenance.items():
        if record.get(name) != value:
            raise UserError(f"{folder} is of another run ({name} differs): name another --workdir, or remove it")
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file)), record


def run_transfer(config: ConfigDict, setup: Setup, workdir: Path) -> dict[str, Any] | None:
    """Cross-validation over patients on one sequence (Tables 3-5).

    Args:
        config: of `configs/transfer.py`.
        setup: of `load`.
        workdir: gets config.json, checkpoints/, tensorboard/, predictions.csv and, last, metrics.json.

    Returns:
        The metrics, or None if this run was finished before.
    """
    if rundir.open_run(workdir, setup.run):
        return None
    slices, fit_fold = setup.slices, None
    train, test = fold_masks(config, slices, setup.folds)
    rows: list[dict[str, str]] = []
    histories, num_params = [], 0
    with resume.heed_sigterm() as bell:
        for fold in range(config.num_folds):
            folder = workdir / "checkpoints" / f"fold_{fold}"
            weights = setup.run["weights"]["sha256"]
            settings = setup.run["config"] | {"weights": ""}  # the same weights may lie elsewhere by now
            provenance = {"fold": fold, "split_hash": setup.run["split_hash"], "backbone": weights, "config": settings}
            if not folder.exists():
                fit_fold = fit_fold or methods.build(config, setup.data_dir, slices, setup.variables, weights)
                place = _place(config, workdir, fold, bell, provenance)
                result = fit_fold(_fold_keys(config, fold), train[fold], test[fold], place)
                if not np.isfinite(result.probability[test[fold]]).all():  # no later loss tells of the last update
                    raise UserError(f"{place.title}: diverged in its last step: lower --config.optim.lr")
                found = _rows(slices, fold, test[fold], result.probability)
                if rundir.is_first():
                    _write_fold(folder, found, result, provenance)
                rundir.wait_for_all(f"fold {fold}")
                if bell.heard() and fold + 1 < config.num_folds:
                    raise Interrupted(f"stopped after fold {fold + 1} of {config.num_folds}, all saved")
            if rundir.is_first():  # the fold is finished: nothing to go on from
                shutil.rmtree(_training(workdir, fold), ignore_errors=True)
            of_fold, record = _read_fold(folder, provenance)
            rows += of_fold
            histories.append(record["history"])
            num_params = record["num_params"]["head"]
    return _finish(workdir, rows, histories, num_params)


def _place(config: ConfigDict, workdir: Path, fold: int, bell: resume.Bell, run: dict[str, Any]) -> methods.Place:
    title = f"transfer {config.sequence}, fold {fold + 1} of {config.num_folds}"
    return methods.Place(title, _training(workdir, fold), workdir / "tensorboard", fold, bell, run)


def _training(workdir: Path, fold: int) -> Path:
    """The checkpoints of a fold that goes on."""
    return workdir / "checkpoints" / f"fold_{fold}_training"


def _rows(slices: Slices, fold: int, test: np.ndarray, probability: np.ndarray) -> list[tuple]:
    return [
        (fold, slices.patient[i], slices.slice_id[i], int(slices.label[i]), float(probability[i]))
        for i in np.flatnonzero(test)
    ]


def _finish(workdir: Path, rows: list[dict[str, str]], histories: list, head_params: int) -> dict[str, Any]:
    """Joins the folds' predictions, scores them, marks the run as finished."""
    label = np.array([int(row["label"]) for row in rows])
    probability = np.array([float(row["probability"]) for row in rows])
    scores = metrics.evaluate(label, probability, np.array([row["patient"] for row in rows]))
    losses = [[epoch["loss"] for epoch in history] for history in histories]
    result = scores | {"train_loss": losses, "history": histories, "head_params": head_params}
    if rundir.is_first():
        rundir.write_csv(workdir / "predictions.csv", PREDICTIONS, [[row[k] for k in PREDICTIONS] for row in rows])
        rundir.finish(workdir, result)
    return result
