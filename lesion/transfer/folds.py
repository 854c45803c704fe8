"""Cross-validation: arguments and result of one fold's fit, the loop over folds, and the files of each fold."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lesion import files, metrics, trees
from lesion.dataset import Slices, splits
from lesion.errors import Interrupted, UserError
from lesion.runs import checkpoint, processes, rundir
from lesion.runs.processes import StopSignal

PREDICTIONS = ("fold", "patient", "slice", "label", "probability")


class FoldContext(NamedTuple):
    """The surroundings of one fold's fit: folders, title, stop signal.

    Attributes:
        title: beginning of each line of progress.
        checkpoints: folder of the checkpoints that the fit resumes from.
        tensorboard: folder of the fold's scalars.
        fold: index of the fold, from 0.
        stop: signal that asks the run to stop.
        run: JSON-able description of the run, recorded in each checkpoint.
    """

    title: str
    checkpoints: Path
    tensorboard: Path
    fold: int
    stop: StopSignal
    run: dict[str, Any]


class FoldResult(NamedTuple):
    """The result of one fold's fit.

    Attributes:
        variables: trained {"params": ..., "batch_stats": ...}.
        probability: probability of glioma, float32 [N]; may be NaN outside the test units.
        history: scalars of every epoch; empty if the fold only combines networks of other runs.
        notes: JSON-able notes for the fold's record and the run's metrics.
    """

    variables: dict
    probability: np.ndarray
    history: list[dict[str, float]]
    notes: dict[str, Any] | None = None


class Units(NamedTuple):
    """N units that are trained on and predicted: slices, or patients.

    Attributes:
        label: int32 [N].
        patient: pseudonyms, str [N].
        slice_id: str [N]; empty strings if the units are patients.
    """

    label: np.ndarray
    patient: np.ndarray
    slice_id: np.ndarray

    @classmethod
    def of_slices(cls, slices: Slices) -> "Units":
        """Returns slices as units, without their pictures."""
        return cls(slices.label, slices.patient, slices.slice_id)


Keys = tuple[jax.Array, jax.Array]  # of a fold's initialisation and of its training
FitFold = Callable[[Keys, np.ndarray, np.ndarray, FoldContext], FoldResult]


class CrossValidation(NamedTuple):
    """The units and folds of a cross-validation, and the run's identity.

    Attributes:
        title: beginning of each line of progress.
        units: N units.
        folds: folds of the units' patients (of slices with `split=leaky`).
        run: see `rundir.identity`.
    """

    title: str
    units: Units
    folds: splits.Splits
    run: dict[str, Any]


def fold_masks(config: ConfigDict, folds: splits.Splits, units: Units) -> tuple[np.ndarray, np.ndarray]:
    """Returns the train and test masks of every fold, bool [num_folds, N] each."""
    group = units.slice_id if config.split == "leaky" else units.patient
    return folds.masks(group, units.label)


def training_parts(config: ConfigDict, units: Units, train: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Divides the training units, bool [N], into those to train on and, with patience, those of early stopping."""
    if not config.patience:
        return train, None
    held = splits.hold_out(units.patient, units.label, train, config.validation, config.seed)
    return train & ~held, held


def _fold_keys(config: ConfigDict, fold: int) -> Keys:
    key = jax.random.fold_in(jax.random.key(config.seed), fold)
    init, fit = (jax.random.fold_in(key, purpose) for purpose in range(2))
    return init, fit


def _write_fold(folder: Path, rows: list[tuple], result: FoldResult, provenance: dict[str, Any]) -> None:
    """Writes the fold's weights, record and predictions.csv as one folder, atomically."""

    def write_predictions(partial: Path) -> None:
        files.write_csv(partial / "predictions.csv", PREDICTIONS, rows)

    num_params = {part: trees.num_params(tree) for part, tree in result.variables["params"].items()}
    record = provenance | {"history": result.history, "num_params": num_params}
    record |= {"notes": result.notes} if result.notes else {}
    checkpoint.save_variables(folder, result.variables, record, write_predictions)


def _read_fold(folder: Path, provenance: dict[str, Any]) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Returns the rows of predictions.csv and the record in a folder of `_write_fold`."""
    record = checkpoint.read_provenance(folder)
    for name, value in provenance.items():
        if record.get(name) != value:
            raise UserError(f"{folder} is of another run ({name} differs): name another --workdir, or remove it")
    return files.read_csv(folder / "predictions.csv"), record


def run_folds(
    config: ConfigDict,
    validation: CrossValidation,
    workdir: Path,
    build: Callable[[], FitFold],
    stop: StopSignal,
    summarise: Callable[[list[Any]], dict[str, Any]] = lambda notes: {},
) -> dict[str, Any] | None:
    """Runs a cross-validation; finished folds are kept, so that a killed run resumes.

    Args:
        config: the run's configuration.
        validation: units and folds.
        workdir: the run's folder; gets config.json, checkpoints/, predictions.csv and, last, metrics.json.
        build: returns the function that fits one fold; called only if a fold is left to fit.
        stop: signal that asks the run to stop.
        summarise: turns the list of all folds' notes into further entries of metrics.json.

    Returns:
        The metrics, or None if the run was finished before.

    Raises:
        UserError: if a fit diverged, or the folder is another run's.
        Interrupted: if a stop was requested; everything is saved before.
    """
    if rundir.open_run(workdir, validation.run):
        return None
    title, units, run, fit_fold = validation.title, validation.units, validation.run, None
    train, test = fold_masks(config, validation.folds, units)
    rows: list[dict[str, str]] = []
    records: list[dict[str, Any]] = []
    folders = [workdir / "checkpoints" / f"fold_{fold}" for fold in range(config.num_folds)]
    # Asked once, of the first process: it may finish a fold before another one has begun it.
    finished = processes.of_first("finished folds", lambda: [folder.exists() for folder in folders])
    for fold, folder in enumerate(folders):
        checkpoints = folder.with_name(f"fold_{fold}_training")
        provenance = {"fold": fold, "split_hash": run["split_hash"], "backbone": run["weights"]["sha256"]}
        provenance |= {"config": _without_places(run["config"])} | {k: run[k] for k in ("part",) if k in run}
        if not finished[fold]:
            fit_fold = fit_fold or build()
            fold_title = f"{title}, fold {fold + 1} of {config.num_folds}"
            ctx = FoldContext(fold_title, checkpoints, workdir / "tensorboard" / folder.name, fold, stop, provenance)
            result = fit_fold(_fold_keys(config, fold), train[fold], test[fold], ctx)
            if not np.isfinite(result.probability[test[fold]]).all():  # the last update comes after the last loss
                raise UserError(f"{fold_title}: diverged in its last step: lower --config.optim.lr")
            if processes.is_first():
                _write_fold(folder, _rows(units, fold, test[fold], result.probability), result, provenance)
            processes.wait_for_all(f"{title} fold {fold}")
            if stop.requested() and fold + 1 < config.num_folds:
                raise Interrupted(f"stopped after fold {fold + 1} of {config.num_folds}, all saved")
        if processes.is_first():  # the fold is finished and needs its checkpoints no longer
            shutil.rmtree(checkpoints, ignore_errors=True)
        fold_rows, record = _read_fold(folder, provenance)
        rows += fold_rows
        records.append(record)
    return _finish(workdir, rows, records, summarise)


def _without_places(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns a recorded config with empty paths of weights, which may have been moved since."""
    return {k: _without_places(v) if isinstance(v, dict) else "" if k == "weights" else v for k, v in settings.items()}


def _rows(units: Units, fold: int, test: np.ndarray, probability: np.ndarray) -> list[tuple]:
    return [
        (fold, units.patient[i], units.slice_id[i], int(units.label[i]), float(probability[i]))
        for i in np.flatnonzero(test)
    ]


def _finish(workdir: Path, rows: list[dict[str, str]], records: list, summarise: Callable) -> dict[str, Any]:
    """Joins the folds' predictions, scores them, marks the run as finished, and returns the metrics."""
    label = np.array([int(row["label"]) for row in rows])
    probability = np.array([float(row["probability"]) for row in rows])
    scores = metrics.evaluate(label, probability, np.array([row["patient"] for row in rows]))
    histories = [record["history"] for record in records]
    losses = [[epoch["loss"] for epoch in history] for history in histories]
    trained = {"train_loss": losses, "history": histories, "head_params": records[-1]["num_params"]["head"]}
    result = scores | trained | summarise([record.get("notes") for record in records])
    if processes.is_first():
        files.write_csv(workdir / "predictions.csv", PREDICTIONS, [[row[k] for k in PREDICTIONS] for row in rows])
        rundir.finish(workdir, result)
    return result
