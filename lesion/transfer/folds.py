"""Cross-validation: what the fit of one fold is given and returns, the loop over folds, and what is kept of them."""

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
    """Where a fold is fitted.

    Attributes:
        title: begins what is shown.
        checkpoints: folder of those to go on from.
        tensorboard: folder of all folds' scalars.
        fold: its number.
        stop: asks the run to stop.
        run: JSON, kept in each checkpoint.
    """

    title: str
    checkpoints: Path
    tensorboard: Path
    fold: int
    stop: StopSignal
    run: dict[str, Any]


class FoldResult(NamedTuple):
    """What the fit of a fold returns.

    Attributes:
        variables: {"params": ..., "batch_stats": ...} of what was trained.
        probability: of glioma, float32 [N]; NaN where nobody asked.
        history: scalars of every epoch; none where nothing was trained that another run has not.
        notes: JSON for the fold's record and the run's metrics.
    """

    variables: dict
    probability: np.ndarray
    history: list[dict[str, float]]
    notes: dict[str, Any] | None = None


class Units(NamedTuple):
    """What is learnt from and predicted, N of it: slices, or patients.

    Attributes:
        label: int32 [N].
        patient: str [N].
        slice_id: str [N], empty where a unit is a patient.
    """

    label: np.ndarray
    patient: np.ndarray
    slice_id: np.ndarray

    @classmethod
    def of_slices(cls, slices: Slices) -> "Units":
        """Returns the slices, without their pictures."""
        return cls(slices.label, slices.patient, slices.slice_id)


Keys = tuple[jax.Array, jax.Array]  # of a fold's initialisation and of its training
FitFold = Callable[[Keys, np.ndarray, np.ndarray, FoldContext], FoldResult]


class CrossValidation(NamedTuple):
    """What is cross-validated.

    Attributes:
        title: begins what is shown.
        units: N of them.
        folds: over their patients.
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
    """Returns which of the training units [N] are trained on, and which early stopping looks at, if it is on."""
    if not config.patience:
        return train, None
    held = splits.hold_out(units.patient, units.label, train, config.validation, config.seed)
    return train & ~held, held


def _fold_keys(config: ConfigDict, fold: int) -> Keys:
    key = jax.random.fold_in(jax.random.key(config.seed), fold)
    init, fit = (jax.random.fold_in(key, purpose) for purpose in range(2))
    return init, fit


def _write_fold(folder: Path, rows: list[tuple], result: FoldResult, provenance: dict[str, Any]) -> None:
    """Writes the fold's weights and predictions, all at once."""

    def write_predictions(partial: Path) -> None:
        files.write_csv(partial / "predictions.csv", PREDICTIONS, rows)

    num_params = {part: trees.num_params(tree) for part, tree in result.variables["params"].items()}
    record = provenance | {"history": result.history, "num_params": num_params}
    record |= {"notes": result.notes} if result.notes else {}
    checkpoint.save_variables(folder, result.variables, record, write_predictions)


def _read_fold(folder: Path, provenance: dict[str, Any]) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Reads what `_write_fold` wrote: rows and record."""
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
    """Runs a cross-validation; each finished fold is kept.

    Args:
        config: of the recipe.
        validation: what is cross-validated.
        workdir: gets config.json, checkpoints/, predictions.csv and, last, metrics.json.
        build: returns what fits one fold; called if there is one to fit.
        stop: asks the run to stop.
        summarise: turns the folds' notes into what metrics.json has beside the scores.

    Returns:
        The metrics, or None if this run was finished before.

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
    for fold in range(config.num_folds):
        folder = workdir / "checkpoints" / f"fold_{fold}"
        training_folder = folder.with_name(f"fold_{fold}_training")
        provenance = {"fold": fold, "split_hash": run["split_hash"], "backbone": run["weights"]["sha256"]}
        provenance |= {"config": _without_places(run["config"])} | {k: run[k] for k in ("part",) if k in run}
        if not folder.exists():
            fit_fold = fit_fold or build()
            fold_title = f"{title}, fold {fold + 1} of {config.num_folds}"
            ctx = FoldContext(fold_title, training_folder, workdir / "tensorboard", fold, stop, provenance)
            result = fit_fold(_fold_keys(config, fold), train[fold], test[fold], ctx)
            if not np.isfinite(result.probability[test[fold]]).all():  # no later loss tells of the last update
                raise UserError(f"{fold_title}: diverged in its last step: lower --config.optim.lr")
            if processes.is_first():
                _write_fold(folder, _rows(units, fold, test[fold], result.probability), result, provenance)
            processes.wait_for_all(f"{title} fold {fold}")
            if stop.requested() and fold + 1 < config.num_folds:
                raise Interrupted(f"stopped after fold {fold + 1} of {config.num_folds}, all saved")
        if processes.is_first():  # the fold is finished: nothing to go on from
            shutil.rmtree(training_folder, ignore_errors=True)
        fold_rows, record = _read_fold(folder, provenance)
        rows += fold_rows
        records.append(record)
    return _finish(workdir, rows, records, summarise)


def _without_places(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns a recorded config without where weights lie: the same may lie elsewhere by now."""
    return {k: _without_places(v) if isinstance(v, dict) else "" if k == "weights" else v for k, v in settings.items()}


def _rows(units: Units, fold: int, test: np.ndarray, probability: np.ndarray) -> list[tuple]:
    return [
        (fold, units.patient[i], units.slice_id[i], int(units.label[i]), float(probability[i]))
        for i in np.flatnonzero(test)
    ]


def _finish(workdir: Path, rows: list[dict[str, str]], records: list, summarise: Callable) -> dict[str, Any]:
    """Joins the folds' predictions, scores them, marks the run as finished."""
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
