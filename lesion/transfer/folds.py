"""Cross-validation: what one fold's fit is given and gives, the loop over folds, and what is kept of them."""

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
from lesion.runs import checkpoint, resume, rundir

PREDICTIONS = ("fold", "patient", "slice", "label", "probability")


class Place(NamedTuple):
    """Where a fold is fitted.

    Attributes:
        title: begins what is shown.
        checkpoints: folder of those to go on from.
        tensorboard: folder of all folds' scalars.
        fold: its number.
        bell: rings when the run is to stop.
        run: JSON, kept in each checkpoint.
    """

    title: str
    checkpoints: Path
    tensorboard: Path
    fold: int
    bell: resume.Bell
    run: dict[str, Any]


class Fitted(NamedTuple):
    """What came of a fold.

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


class Cases(NamedTuple):
    """What is learnt from and predicted, N of it: slices, or patients.

    Attributes:
        label: int32 [N].
        patient: str [N].
        slice_id: str [N], empty where a patient is a case.
    """

    label: np.ndarray
    patient: np.ndarray
    slice_id: np.ndarray


FitFold = Callable[[tuple[jax.Array, jax.Array], np.ndarray, np.ndarray, Place], Fitted]


def cases_of(slices: Slices) -> Cases:
    """The slices, without their pictures."""
    return Cases(slices.label, slices.patient, slices.slice_id)


class Crossed(NamedTuple):
    """What is cross-validated.

    Attributes:
        title: begins what is shown.
        cases: N of them.
        folds: over their patients.
        run: see `rundir.identity`.
    """

    title: str
    cases: Cases
    folds: splits.Splits
    run: dict[str, Any]


def fold_masks(config: ConfigDict, folds: splits.Splits, cases: Cases) -> tuple[np.ndarray, np.ndarray]:
    """Train and test masks of every fold, bool [num_folds, N] each."""
    unit = cases.slice_id if config.split == "leaky" else cases.patient
    return folds.masks(unit, cases.label)


def _fold_keys(config: ConfigDict, fold: int) -> tuple[jax.Array, jax.Array]:
    """Of a fold's initialisation and of its training."""
    key = jax.random.fold_in(jax.random.key(config.seed), fold)
    init, fit = (jax.random.fold_in(key, purpose) for purpose in range(2))
    return init, fit


def _write_fold(folder: Path, rows: list[tuple], result: Fitted, provenance: dict[str, Any]) -> None:
    """The fold's weights and predictions, all at once."""

    def predictions(partial: Path) -> None:
        files.write_csv(partial / "predictions.csv", PREDICTIONS, rows)

    num_params = {part: trees.num_params(tree) for part, tree in result.variables["params"].items()}
    record = provenance | {"history": result.history, "num_params": num_params}
    record |= {"notes": result.notes} if result.notes else {}
    checkpoint.save_variables(folder, result.variables, record, predictions)


def _read_fold(folder: Path, provenance: dict[str, Any]) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """What `_write_fold` wrote: rows and record."""
    record = checkpoint.read_provenance(folder)
    for name, value in provenance.items():
        if record.get(name) != value:
            raise UserError(f"{folder} is of another run ({name} differs): name another --workdir, or remove it")
    return files.read_csv(folder / "predictions.csv"), record


def run_folds(
    config: ConfigDict,
    what: Crossed,
    workdir: Path,
    build: Callable[[], FitFold],
    bell: resume.Bell,
    summarise: Callable[[list[Any]], dict[str, Any]] = lambda notes: {},
) -> dict[str, Any] | None:
    """Cross-validation, each finished fold kept.

    Args:
        config: of the recipe.
        what: is predicted.
        workdir: gets config.json, checkpoints/, predictions.csv and, last, metrics.json.
        build: gives what fits one fold; called if there is one to fit.
        bell: rings when the run is to stop.
        summarise: the folds' notes to what metrics.json says beside the scores.

    Returns:
        The metrics, or None if this run was finished before.

    Raises:
        UserError: if a fit diverged, or the folder is another run's.
        Interrupted: if the bell rang; everything is saved before.
    """
    if rundir.open_run(workdir, what.run):
        return None
    cases, run, fit_fold = what.cases, what.run, None
    train, test = fold_masks(config, what.folds, cases)
    rows: list[dict[str, str]] = []
    records: list[dict[str, Any]] = []
    for fold in range(config.num_folds):
        folder = workdir / "checkpoints" / f"fold_{fold}"
        provenance = {"fold": fold, "split_hash": run["split_hash"], "backbone": run["weights"]["sha256"]}
        provenance |= {"config": _placeless(run["config"])} | {k: run[k] for k in ("part",) if k in run}
        if not folder.exists():
            fit_fold = fit_fold or build()
            title = f"{what.title}, fold {fold + 1} of {config.num_folds}"
            kept = _training(workdir, fold), workdir / "tensorboard"
            result = fit_fold(
                _fold_keys(config, fold), train[fold], test[fold], Place(title, *kept, fold, bell, provenance)
            )
            if not np.isfinite(result.probability[test[fold]]).all():  # no later loss tells of the last update
                raise UserError(f"{title}: diverged in its last step: lower --config.optim.lr")
            if rundir.is_first():
                _write_fold(folder, _rows(cases, fold, test[fold], result.probability), result, provenance)
            rundir.wait_for_all(f"{what.title} fold {fold}")
            if bell.heard() and fold + 1 < config.num_folds:
                raise Interrupted(f"stopped after fold {fold + 1} of {config.num_folds}, all saved")
        if rundir.is_first():  # the fold is finished: nothing to go on from
            shutil.rmtree(_training(workdir, fold), ignore_errors=True)
        of_fold, record = _read_fold(folder, provenance)
        rows += of_fold
        records.append(record)
    return _finish(workdir, rows, records, summarise)


def _placeless(settings: dict[str, Any]) -> dict[str, Any]:
    """A recorded config without where weights lie: the same may lie elsewhere by now."""
    return {k: _placeless(v) if isinstance(v, dict) else "" if k == "weights" else v for k, v in settings.items()}


def _training(workdir: Path, fold: int) -> Path:
    """The checkpoints of a fold that goes on."""
    return workdir / "checkpoints" / f"fold_{fold}_training"


def _rows(cases: Cases, fold: int, test: np.ndarray, probability: np.ndarray) -> list[tuple]:
    return [
        (fold, cases.patient[i], cases.slice_id[i], int(cases.label[i]), float(probability[i]))
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
    if rundir.is_first():
        files.write_csv(workdir / "predictions.csv", PREDICTIONS, [[row[k] for k in PREDICTIONS] for row in rows])
        rundir.finish(workdir, result)
    return result
