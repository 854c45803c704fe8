"""Predictions for new patients: probabilities by the networks of a run, their spread, and Grad-CAM sheets."""

import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import entr, expit

from lesion import files, models
from lesion.classes import Classes
from lesion.dataset import preprocess
from lesion.dicom.folder import Options
from lesion.errors import UserError
from lesion.inference import explain, gradcam, new_patients, sheet, trained_run
from lesion.inference.new_patients import NewPatients, NewSlice
from lesion.inference.trained_run import TrainedRun
from lesion.progress import track
from lesion.train.forward import over_rows
from lesion.transfer import svm

COLUMNS = ("patient", "slice", "num_slices", "called", "probability", "spread", "entropy", "flag")
SHOWN_PER_ROW = 4  # slices of a patient that a sheet shows for either class
BATCH_SIZE = 32
KNOWN = "of the run's own cohort: most of these networks were trained on it"  # a flag beside a prediction
RESEARCH = "RESEARCH USE ONLY: no medical device, not for diagnosis"


class EnsemblePrediction(NamedTuple):
    """Prediction of an ensemble for a slice or a patient.

    Attributes:
        probability: probability of glioma, the mean over the networks.
        spread: standard deviation over the networks; NaN of a single one.
        entropy: entropy of the mean, nats, at most ln 2.
    """

    probability: float
    spread: float
    entropy: float

    @property
    def called(self) -> int:
        """The predicted class."""
        return int(self.probability > 0.5)


def ensemble(probability: np.ndarray) -> EnsemblePrediction:
    """Combines the probabilities of glioma [F] by F networks."""
    assert probability.ndim == 1, probability.shape
    mean = float(probability.mean())
    spread = float(probability.std()) if len(probability) > 1 else math.nan
    return EnsemblePrediction(mean, spread, float(entr(mean) + entr(1 - mean)))


def open_checkpoint(path: Path, weights: str) -> TrainedRun:
    """Opens a run with the networks of all finished folds, or of one fold if `path` is RUN/checkpoints/fold_K.

    Raises:
        UserError: if `path` is neither, or the run's slices were prepared in another way than slices are now.
    """
    path = path.absolute()
    number = path.name.removeprefix("fold_")
    is_fold = number.isdigit() and path.parent.name == "checkpoints"
    run = trained_run.open_run(path.parents[1] if is_fold else path, weights)
    if is_fold and int(number) not in run.folds:
        raise UserError(f"there is no {path}: choose a fold of {', '.join(map(str, run.folds))}")
    before = run.record["data"].get("preprocess")
    if before is not None and before != preprocess.settings(_window_from(run)):
        raise UserError(f"{run.folder} was trained on slices prepared in another way: prepare and train anew")
    return run._replace(folds=(int(number),)) if is_fold else run


def _window_from(run: TrainedRun) -> str:
    """Returns how the windows of the run's slices were chosen; that of today where it is not recorded, or unknown."""
    window = run.record["data"].get("preprocess", {}).get("window")
    return window if window in preprocess.WINDOWS else "head"


def probabilities(run: TrainedRun, image: np.ndarray) -> np.ndarray:
    """Predicts the probability of glioma by each of F networks, float64 [F, N], for image uint8 [N, S, S]."""
    assert image.ndim == 3 and len(run.folds), image.shape
    config, network = run.config, run.network

    @jax.jit
    def features_of(params: Any, batch_stats: Any, image: jax.Array) -> jax.Array:
        x = models.preprocess(config.backbone, image).astype(config.dtype)
        return network.features(params, batch_stats, x)[0]

    @jax.jit
    def logit_of(head_params: Any, features: jax.Array) -> jax.Array:
        return jnp.asarray(network.head.apply({"params": head_params}, features))

    features, predicted = None, []
    for fold in track(f"predicting {config.sequence}", run.folds, len(run.folds)):
        variables = trained_run.load_fold(run, fold)
        if features is None or config.mode != "frozen":  # frozen: all folds share the backbone
            compute = functools.partial(features_of, *jax.device_put(tuple(variables)))
            batches = over_rows(lambda rows: compute(image[rows]), range(len(image)), BATCH_SIZE)  # noqa: B023
            features = np.concatenate([batch for _, batch in batches])
        head = variables.params["head"]
        if network.head is None:
            predicted.append(svm.probability(head, features))
        else:
            predicted.append(expit(np.asarray(logit_of(head, features), np.float64)))
    return np.stack(predicted).astype(np.float64)


def predict(
    checkpoint: Path,
    folder: Path,
    output: Path,
    *,
    private: Path,
    weights: str = "",
    options: Options = Options(),  # noqa: B008  # a constant
) -> str:
    """Writes a run's predictions for the patients of a DICOM folder, as a table and Grad-CAM sheets.

    Args:
        checkpoint: run of launch.train, or one fold of it.
        folder: DICOM tree; slices.csv and series.csv in it are used.
        output: table to write: each patient, then the patient's slices; beside it a folder of Grad-CAM sheets, one per
            patient.
        private: folder for the pseudonyms' key and table, which stay with the patients' data.
        weights: current folder of the backbone's converted weights, if they were moved.
        options: how to read the folder; windows are chosen as for the run's slices.

    Returns:
        A summary for the user.

    Raises:
        UserError: if `checkpoint` is no run or fold, `folder` has no MR image, or `output` exists.
    """
    sheets = output.with_name(f"{output.stem}_gradcam")
    for path in (output, sheets):
        if path.exists():
            raise UserError(f"{path} exists: name a new --output, or remove it")
    run = open_checkpoint(checkpoint, weights)
    options = options._replace(window=_window_from(run))
    incoming = new_patients.read_folder(folder, run.config.sequence, private, options)
    incoming = incoming._replace(flags=incoming.flags | _phantom_flags(run, incoming))
    answered = [s for s in incoming.slices if not s.flag and s.patient not in incoming.flags]
    probs = np.zeros((len(run.folds), 0))
    if answered:
        probs = probabilities(run, np.stack([s.image for s in answered]))
    column_of, known = {s.slice: i for i, s in enumerate(answered)}, _known_patients(run)
    rows: list[tuple] = []
    contents: dict[str, _SheetContent] = {}
    for patient in sorted({s.patient for s in incoming.slices} | incoming.flags.keys()):
        slices = [s for s in incoming.slices if s.patient == patient]
        columns = [column_of[s.slice] for s in slices if s.slice in column_of]
        prediction = ensemble(probs[:, columns].mean(axis=1)) if columns else None
        flag = incoming.flags.get(patient, KNOWN * (patient in known))
        rows.append(_row(run.classes, patient, "", len(columns), prediction, flag))
        for s in slices:
            column = column_of.get(s.slice)
            flag = s.flag or (incoming.flags.get(patient, "") if column is None else "")
            own = None if column is None else ensemble(probs[:, column])
            rows.append(_row(run.classes, patient, s.slice, "", own, flag))
        if prediction:
            contents[patient] = _SheetContent(prediction, [answered[i] for i in columns], probs[:, columns])
    output.parent.mkdir(parents=True, exist_ok=True)
    _draw_sheets(run, sheets, incoming, contents)
    files.write_csv(output, COLUMNS, rows)
    return _summary(run, incoming, output, sheets, len(contents))


def _phantom_flags(run: TrainedRun, incoming: NewPatients) -> dict[str, str]:
    """Flags simulated images for a network trained on patients, and patients for one trained on simulated images."""
    patients = {s.patient for s in incoming.slices}
    trained_on = run.record["phantom"]
    if trained_on is True:
        return dict.fromkeys(patients - incoming.phantom, "the network was trained on a phantom, this is none")
    if trained_on is False:
        return dict.fromkeys(patients & incoming.phantom, "a phantom, the network was trained on patients")
    return {}


def _known_patients(run: TrainedRun) -> set[str]:
    """Returns pseudonyms of the run's own cohort; they match where dataset and folder share a key."""
    try:
        return {prediction.patient for prediction in trained_run.read_predictions(run)}
    except UserError:  # not finished
        return set()


def _row(
    classes: Classes, patient: str, slice_id: str, count: Any, prediction: EnsemblePrediction | None, flag: str
) -> tuple:
    if prediction is None:
        return patient, slice_id, count, "", "", "", "", flag
    spread = "" if math.isnan(prediction.spread) else prediction.spread
    called = classes[prediction.called]
    return patient, slice_id, count, called, prediction.probability, spread, prediction.entropy, flag


class _SheetContent(NamedTuple):
    """Content of a patient's sheet: the patient's prediction, n slices, and their probabilities [F, n]."""

    prediction: EnsemblePrediction
    slices: list[NewSlice]
    probs: np.ndarray


def _draw_sheets(run: TrainedRun, folder: Path, incoming: NewPatients, contents: dict[str, _SheetContent]) -> None:
    """Draws one sheet per patient."""
    if not contents or run.network.head is None:  # a support vector machine has no Grad-CAM
        return
    folder.mkdir()
    explain_slices = explain.make_explain(run)
    networks = [trained_run.load_fold(run, fold) for fold in run.folds]
    for patient in track("grad-cam sheets", contents, len(contents)):
        prediction, slices, probs = contents[patient]
        mean = probs.mean(axis=0)
        order = sorted(range(len(slices)), key=lambda i: (-mean[i], slices[i].slice))
        half = min(SHOWN_PER_ROW, (len(order) + 1) // 2)
        most, least = order[:half], order[half:][::-1][:SHOWN_PER_ROW]
        sign = np.where(mean > 0.5, gradcam.GLIOMA, gradcam.ENCEPHALITIS).astype(np.float32)
        chosen = [*most, *least]
        image = np.stack([slices[i].image for i in chosen])
        maps = [np.stack([e.heat for e in explain_slices(network, image, sign[chosen])]) for network in networks]
        heat = dict(zip(chosen, np.mean(maps, axis=0), strict=True))
        rows = [
            sheet.Row(
                f"{name} for\n{run.classes.positive}",
                [_panel(run.classes, slices[i], heat[i], ensemble(probs[:, i])) for i in indices],
                "no further slice",
            )
            for name, indices in (("most", most), ("least", least))
        ]
        title = f"Patient {patient[:9]}: {_call(run.classes, prediction)}"
        notes = [
            RESEARCH,
            f"Mean map of {len(run.folds)} networks trained on {run.config.sequence}: evidence for the class called; "
            f"{len(slices)} slices were predicted.",
        ]
        is_phantom = patient in incoming.phantom or run.record["phantom"]
        sheet.draw(folder / f"{patient}.png", rows, title, notes, is_phantom)


def _panel(classes: Classes, new_slice: NewSlice, heat: np.ndarray, prediction: EnsemblePrediction) -> sheet.Panel:
    caption = f"{_call(classes, prediction)}\nslice {new_slice.slice[:9]}"
    return sheet.Panel(new_slice.image, heat, caption)


def _call(classes: Classes, prediction: EnsemblePrediction) -> str:
    if prediction.probability > 0.995:
        text = "over 0.99"
    elif prediction.probability < 0.005:
        text = "under 0.01"
    else:
        spread = "" if math.isnan(prediction.spread) else f" ± {prediction.spread:.2f}"
        text = f"{prediction.probability:.2f}{spread}"
    return f"called {classes[prediction.called]}, probability of {classes.positive} {text}"


def _summary(run: TrainedRun, incoming: NewPatients, output: Path, sheets: Path, num_patients: int) -> str:
    flagged = sum(bool(s.flag) for s in incoming.slices)
    lines = [
        RESEARCH,
        f"{num_patients} patients by {len(run.folds)} networks of {run.folder}, {run.config.sequence}",
        f"{len(incoming.flags)} patients flagged and not answered, {flagged} slices",
        *(f"left out: {count} × {reason}" for reason, count in sorted(incoming.skipped.items())),
    ]
    lines += [f"doubtful in {count} series: {note}" for note, count in sorted(incoming.doubtful.items())]
    if not incoming.slices_listed:
        lines.append("no slices.csv: every slice was predicted; if training saw slices with lesion only, add one")
    if run.record["data"].get("preprocess") is None:
        lines.append("the run does not record how its slices were prepared: whether as these was not checked")
    return "\n".join([*lines, f"table: {output}", f"sheets: {sheets}" if sheets.exists() else "no sheet"])
