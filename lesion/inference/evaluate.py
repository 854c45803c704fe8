"""A finished run, unchanged, on another labelled cohort: external validation."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lesion import files, metrics
from lesion.classes import Classes
from lesion.dataset import Slices, store
from lesion.errors import UserError
from lesion.inference import new_patients, trained_run
from lesion.inference.predict import open_checkpoint, probabilities
from lesion.inference.trained_run import TrainedRun
from lesion.runs import rundir

EVALUATION = "evaluation.json"
FOLD = "external"  # stands in predictions.csv where a run's has the fold
COLUMNS = ("fold", "patient", "slice", "label", "probability")


class Thresholds(NamedTuple):
    """Thresholds of a patient's probability, fixed before the other cohort is seen.

    Attributes:
        half: ½, as everywhere in the report.
        youden: threshold with the greatest Youden index on the run's test folds.
    """

    half: float
    youden: float


def evaluate(
    checkpoint: Path, data_dir: Path, output: Path, *, weights: str = "", recalibrate_on: Path | None = None
) -> str:
    """Writes what a run's networks predict for a labelled cohort that none of them was trained on, and its scores.

    Every slice gets the mean probability of the networks of all folds, a patient the mean over the slices.

    Args:
        checkpoint: finished run of launch.train, or one fold of it.
        data_dir: dataset of launch.prepare; patients without a label are left out.
        output: folder to make: config.json, evaluation.json, predictions.csv, metrics.json; kept if it holds the same
            evaluation already.
        weights: current folder of the backbone's converted weights, if they were moved.
        recalibrate_on: text file with a pseudonym of `data_dir` a line. The intercept of the probabilities is fitted on
            these patients, who are then left out where recalibrated probabilities are scored.

    Returns:
        A summary for the user.

    Raises:
        UserError: if `checkpoint` is no finished run, `data_dir` was prepared in another way, has other classes or
            one class only, or shares a patient with the run; if `output` holds something else, or `recalibrate_on`
            names nobody.
    """
    run = open_checkpoint(checkpoint, weights)
    thresholds, cross_validated = _on_own_cohort(run)
    info = store.load_info(data_dir)
    slices = store.load_slices(data_dir, run.config.sequence)
    slices = slices._replace(**{name: column[slices.label >= 0] for name, column in slices._asdict().items()})
    _check_cohort(run, data_dir, info, slices)
    compared = _check_unseen(run, data_dir, slices)

    answered = np.array([np.mean(image > 0) >= new_patients.MIN_FILLED for image in slices.image])
    label, patient, slice_id = (column[answered] for column in (slices.label, slices.patient, slices.slice_id))
    _check_both_classes(data_dir, label, run.classes)
    chosen = _read_patients(recalibrate_on, patient)
    identity = _identity(run, info, chosen)
    if rundir.is_finished(output, identity):
        return f"{output}: made before, kept"
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty: name a new --output, or remove it")
    probability = probabilities(run, slices.image[answered]).mean(axis=0)
    by_patient = metrics.patient_means(label, probability, patient)
    record = {
        "run": str(run.folder),
        "num_networks": len(run.folds),
        "thresholds": thresholds._asdict(),
        "cross_validated": cross_validated,
        "slices_compared": compared,
        "flagged_slices": int((~answered).sum()),
        "num_slices": len(slices.label),
        "unanswered_patients": len(set(slices.patient) - set(patient)),
        "recalibration": _recalibration(by_patient, chosen, run.classes),
    }
    scores = metrics.evaluate(label, probability, patient)
    with files.new_folder(output) as folder:
        rundir.open_run(folder, identity)
        rows = zip([FOLD] * len(label), patient, slice_id, label, probability, strict=True)
        files.write_csv(folder / "predictions.csv", COLUMNS, rows)
        files.write_json(folder / EVALUATION, record)
        rundir.finish(folder, scores)
    auc = scores["patient"]["auc"]
    return "\n".join(
        [
            f"{scores['num_patients']} patients by {len(run.folds)} networks of {run.folder}: AUC of patients "
            f"{auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f}), on the run's own test folds "
            f"{cross_validated['patient']['auc']['value']:.2f}",
            f"{record['flagged_slices']} of {record['num_slices']} slices are unlike those trained on and were left "
            f"out, {record['unanswered_patients']} patients with them",
            f"{compared} slices of the run's cohort were compared by their pixels: none is in {data_dir}"
            if compared
            else "the run does not record its source pixels: whether it shares a patient was not checked",
        ]
    )


def _identity(run: TrainedRun, info: dict[str, Any], recalibrated_on: list[str]) -> dict[str, Any]:
    """Returns the description of an evaluation as `rundir.identity` has it; `info` is of the other cohort."""
    trained = run.record
    phantom = trained["phantom"] if trained["phantom"] == info["phantom"] else "mixed"
    made = rundir.identity(run.config, info, trained["split_hash"], trained["weights"], jax.devices()[0].device_kind)
    own = {"fingerprint": trained["data"]["fingerprint"], "folds": run.folds, "recalibrated_on": recalibrated_on}
    return made | {"phantom": phantom, "evaluated": own}


def _on_own_cohort(run: TrainedRun) -> tuple[Thresholds, dict[str, Any]]:
    """Returns the thresholds that the run's test folds give, and the scores there."""
    predictions = trained_run.read_predictions(run)
    columns = [np.array([getattr(p, name) for p in predictions]) for name in ("label", "probability", "patient")]
    label, probability, _ = metrics.patient_means(*columns)
    thresholds = Thresholds(metrics.THRESHOLD, metrics.youden_threshold(label, probability))
    return thresholds, metrics.evaluate(*columns)


def _check_cohort(run: TrainedRun, data_dir: Path, info: dict[str, Any], slices: Slices) -> None:
    """Raises a UserError for a dataset that the run's networks cannot be tried on."""
    classes = Classes.of(info)
    if classes != run.classes:
        raise UserError(
            f"{data_dir} tells {classes.negative} from {classes.positive}, {run.folder} was trained to tell "
            f"{run.classes.negative} from {run.classes.positive}: prepare it with the same --classes"
        )
    before = run.record["data"].get("preprocess")
    if before is not None and before != info.get("preprocess"):
        raise UserError(
            f"{data_dir} was prepared in another way than the slices that {run.folder} was trained on: "
            "run launch.prepare again with the same options"
        )
    if info["fingerprint"] == run.record["data"]["fingerprint"]:
        raise UserError(f"{data_dir} is the cohort that {run.folder} was trained on: name another cohort's")
    _check_both_classes(data_dir, slices.label, run.classes)


def _check_both_classes(data_dir: Path, label: np.ndarray, classes: Classes) -> None:
    absent = [name for value, name in enumerate(classes) if not (label == value).any()]
    if absent:
        raise UserError(f"{data_dir} has no labelled slice of {absent[0]} that can be predicted: label some")


def _check_unseen(run: TrainedRun, data_dir: Path, slices: Slices) -> int:
    """Returns how many slices of the run's cohort were compared with `slices`; raises a UserError if any is there."""
    paths = run.folder / store.SOURCE_FILE, data_dir / store.SOURCE_FILE
    if not all(path.exists() for path in paths):
        return 0
    seen, other = ({row["slice_id"]: row["sha256"] for row in files.read_csv(path)} for path in paths)
    digests = set(seen.values())
    shared = {
        patient for patient, slice_id in zip(slices.patient, slices.slice_id, strict=True)
        if other.get(slice_id) in digests
    }  # fmt: skip
    if shared:
        raise UserError(
            f"{len(shared)} patients of {data_dir} are in the cohort that {run.folder} was trained on (the pixels of "
            f"slices are the same), among them {min(shared)}: leave them out of patients.csv and prepare it again"
        )
    return len(seen)


def _read_patients(path: Path | None, patient: np.ndarray) -> list[str]:
    """Returns the pseudonyms in a text file, one a line; raises a UserError if one is not among `patient` [N]."""
    if path is None:
        return []
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: give a text file with a pseudonym of the dataset a line") from error
    unknown = sorted(set(names) - set(patient))
    if unknown or not names:
        # What stands in the file may be a patient's name: it is not repeated.
        raise UserError(f"{path}: {len(unknown) or 'all'} lines name no predicted patient: give pseudonyms, one a line")
    return sorted(set(names))


def _recalibration(
    columns: tuple[np.ndarray, np.ndarray, np.ndarray], chosen: list[str], classes: Classes
) -> dict[str, Any] | None:
    """Returns {"patients", "intercept"} fitted on the chosen patients; `columns` are those of `patient_means`."""
    if not chosen:
        return None
    label, probability, patient = columns
    fitted = np.isin(patient, chosen)
    for rows, text in ((fitted, "patients to recalibrate on"), (~fitted, "patients that remain")):
        if np.unique(label[rows]).size < 2:
            raise UserError(f"the {text} must be of both classes, {classes.negative} and {classes.positive}")
    intercept = metrics.recalibration(label[fitted], probability[fitted])["intercept"]["value"]
    return {"patients": chosen, "intercept": intercept}
