"""New patients: what the networks of a run say of them, how far they agree, and where they look."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import entr, expit

from lesion import files, models
from lesion.dataset import preprocess
from lesion.errors import UserError
from lesion.inference import explain, gradcam, new_patients, sheet, trained_run
from lesion.inference.explain import NAMES
from lesion.inference.new_patients import Incoming, NewSlice
from lesion.inference.trained_run import Trained
from lesion.progress import track
from lesion.train.network import pool_features

COLUMNS = ("patient", "slice", "num_slices", "called", "probability", "spread", "entropy", "flag")
A_ROW = 4  # slices shown of a patient that speak most for either class
BATCH_SIZE = 32
KNOWN = "of the run's own cohort: most of these networks were trained on it"  # told, and answered all the same
RESEARCH = "RESEARCH USE ONLY: no medical device, not for diagnosis"


class Said(NamedTuple):
    """What an ensemble says of a slice or a patient.

    Attributes:
        probability: of glioma, the mean over the networks.
        spread: their standard deviation; NaN of one network.
        entropy: of the mean, nats, at most ln 2.
    """

    probability: float
    spread: float
    entropy: float

    @property
    def called(self) -> str:
        """The class's name."""
        return NAMES[int(self.probability > 0.5)]


def say(probability: np.ndarray) -> Said:
    """Of the probabilities [F] of F networks."""
    assert probability.ndim == 1, probability.shape
    mean = float(probability.mean())
    spread = float(probability.std()) if len(probability) > 1 else math.nan
    return Said(mean, spread, float(entr(mean) + entr(1 - mean)))


def open_checkpoint(path: Path, weights: str) -> Trained:
    """A run's networks, all finished folds, or that of one fold if `path` is RUN/checkpoints/fold_K.

    Raises:
        UserError: if it is neither, or slices were prepared in another way for it than they are now.
    """
    path = path.absolute()
    number = path.name.removeprefix("fold_")
    one = number.isdigit() and path.parent.name == "checkpoints"
    run = trained_run.open_run(path.parents[1] if one else path, weights)
    if one and int(number) not in run.folds:
        raise UserError(f"there is no {path}: choose a fold of {', '.join(map(str, run.folds))}")
    before, now = run.record["data"].get("preprocess"), preprocess.settings()
    if before is not None and before != now:
        raise UserError(f"{run.folder} was trained on slices prepared in another way: prepare and train anew")
    return run._replace(folds=(int(number),)) if one else run


def probabilities(run: Trained, image: np.ndarray) -> np.ndarray:
    """Of glioma, by every network of a run: uint8 [N, S, S] to float64 [F, N]."""
    assert image.ndim == 3 and len(run.folds), image.shape
    config, last_map = run.config, models.get_spec(run.config.backbone).last_map

    @jax.jit
    def features_of(variables: Any, image: jax.Array) -> jax.Array:
        x = models.preprocess(config.backbone, image).astype(config.dtype)
        x = jnp.asarray(run.model.apply(variables, x, stop=last_map))
        return pool_features(x, run.pooling).astype(jnp.float32)

    @jax.jit
    def logit_of(head_params: Any, features: jax.Array) -> jax.Array:
        return jnp.asarray(run.head.apply({"params": head_params}, features))

    def features(variables: Any) -> np.ndarray:
        variables, parts = jax.device_put(variables), []
        for start in range(0, len(image), BATCH_SIZE):
            at = np.minimum(np.arange(start, start + BATCH_SIZE), len(image) - 1)  # one shape: one compilation
            parts.append(np.asarray(features_of(variables, image[at])))
        return np.concatenate(parts)[: len(image)]

    kept, logits = None, []
    for fold in track(f"predicting {config.sequence}", run.folds, len(run.folds)):
        variables, head_params = trained_run.load_fold(run, fold)
        if kept is None or config.mode != "frozen":  # else all folds share the backbone
            kept = features(variables)
        logits.append(np.asarray(logit_of(head_params, kept)))
    return expit(np.stack(logits).astype(np.float64))


def predict(checkpoint: Path, folder: Path, output: Path, *, private: Path, weights: str = "") -> str:
    """Writes what a run's networks say of the patients of a DICOM folder.

    Args:
        checkpoint: of launch.train: a run, or one fold of it.
        folder: the DICOM tree; slices.csv and series.csv in it are heeded.
        output: table to write: each patient, then the patient's slices; beside it a folder of Grad-CAM sheets, one a
            patient.
        private: for the pseudonyms' key and table, which stay with the patients' data.
        weights: where the backbone's converted weights lie now, if they were moved.

    Returns:
        What was done, for the user.

    Raises:
        UserError: if the checkpoint is none, the folder has no MR image, or the output is there already.
    """
    sheets = output.with_name(f"{output.stem}_gradcam")
    for path in (output, sheets):
        if path.exists():
            raise UserError(f"{path} exists: name a new --output, or remove it")
    run = open_checkpoint(checkpoint, weights)
    given = new_patients.read_folder(folder, run.config.sequence, private)
    given = given._replace(flags=given.flags | _other_world(run, given))
    asked = [one for one in given.slices if not one.flag and one.patient not in given.flags]
    probs = probabilities(run, np.stack([one.image for one in asked])) if asked else np.zeros((len(run.folds), 0))
    place, known = {one.slice: i for i, one in enumerate(asked)}, _known(run)
    rows: list[tuple] = []
    output.parent.mkdir(parents=True, exist_ok=True)
    shown = {}
    for patient in sorted({one.patient for one in given.slices} | given.flags.keys()):
        own = [one for one in given.slices if one.patient == patient]
        at = np.array([place[one.slice] for one in own if one.slice in place], int)
        said = say(probs[:, at].mean(axis=1)) if at.size else None
        rows.append(_row(patient, "", len(at), said, given.flags.get(patient, KNOWN * (patient in known))))
        for one in own:
            i = place.get(one.slice)
            flag = one.flag or (given.flags.get(patient, "") if i is None else "")
            rows.append(_row(patient, one.slice, "", None if i is None else say(probs[:, i]), flag))
        if said:
            shown[patient] = (said, [asked[i] for i in at], probs[:, at])
    _draw_all(run, sheets, given, shown)
    files.write_csv(output, COLUMNS, rows)
    return _summary(run, given, output, sheets, len(shown))


def _other_world(run: Trained, given: Incoming) -> dict[str, str]:
    """Simulated images for a network of patients, and patients for one of simulated images."""
    patients = {one.patient for one in given.slices}
    trained_on = run.record["phantom"]
    if trained_on is True:
        return dict.fromkeys(patients - given.phantom, "the network was trained on a phantom, this is none")
    if trained_on is False:
        return dict.fromkeys(patients & given.phantom, "a phantom, the network was trained on patients")
    return {}


def _known(run: Trained) -> set[str]:
    """Pseudonyms of the run's own cohort: they agree where dataset and folder share a key."""
    try:
        return {row.patient for row in trained_run.read_predictions(run)}
    except UserError:  # not finished
        return set()


def _row(patient: str, slice_id: str, count: Any, said: Said | None, flag: str) -> tuple:
    if said is None:
        return patient, slice_id, count, "", "", "", "", flag
    spread = "" if math.isnan(said.spread) else said.spread
    return patient, slice_id, count, said.called, said.probability, spread, said.entropy, flag


def _draw_all(run: Trained, folder: Path, given: Incoming, shown: dict[str, tuple]) -> None:
    """A sheet a patient."""
    if not shown:
        return
    folder.mkdir()
    look = explain.build(run)
    networks = [trained_run.load_fold(run, fold) for fold in run.folds]
    for patient in track("grad-cam sheets", shown, len(shown)):
        said, slices, probs = shown[patient]
        mean = probs.mean(axis=0)
        order = sorted(range(len(slices)), key=lambda i: (-mean[i], slices[i].slice))
        half = min(A_ROW, (len(order) + 1) // 2)
        most, least = order[:half], order[half:][::-1][:A_ROW]
        sign = np.where(mean > 0.5, gradcam.GLIOMA, gradcam.ENCEPHALITIS).astype(np.float32)
        chosen = [*most, *least]
        image = np.stack([slices[i].image for i in chosen])
        maps = [np.stack([one.heat for one in look(network, image, sign[chosen])]) for network in networks]
        heat = dict(zip(chosen, np.mean(maps, axis=0), strict=True))
        names = ("most for\nglioma", "least for\nglioma")
        rows = [
            sheet.Row(name, [_panel(slices[i], heat[i], say(probs[:, i])) for i in some], "no further slice")
            for name, some in zip(names, (most, least), strict=True)
        ]
        title = f"Patient {patient[:9]}: called {said.called}, {_number(said)}"
        notes = [
            RESEARCH,
            f"Mean map of {len(run.folds)} networks trained on {run.config.sequence}, of what speaks for the class a "
            f"slice is called; {len(slices)} slices were asked about.",
        ]
        sheet.draw(folder / f"{patient}.png", rows, title, notes, patient in given.phantom or run.record["phantom"])


def _panel(one: NewSlice, heat: np.ndarray, said: Said) -> sheet.Panel:
    return sheet.Panel(one.image, heat, f"called {said.called}, {_number(said)}\nslice {one.slice[:9]}")


def _number(said: Said) -> str:
    spread = "" if math.isnan(said.spread) else f" ± {said.spread:.2f}"
    told = f"{said.probability:.2f}{spread}"
    told = "over 0.99" if said.probability > 0.995 else "under 0.01" if said.probability < 0.005 else told
    return f"probability of glioma {told}"


def _summary(run: Trained, given: Incoming, output: Path, sheets: Path, num_patients: int) -> str:
    flagged = sum(bool(one.flag) for one in given.slices)
    lines = [
        RESEARCH,
        f"{num_patients} patients by {len(run.folds)} networks of {run.folder}, {run.config.sequence}",
        f"{len(given.flags)} patients flagged and not answered, {flagged} slices",
        *(f"left out: {count} × {reason}" for reason, count in sorted(given.skipped.items())),
    ]
    if not given.told:
        lines.append("no slices.csv: every slice was asked about; if training saw slices with lesion only, add one")
    if run.record["data"].get("preprocess") is None:
        lines.append("the run does not record how its slices were prepared: whether it was so was not checked")
    return "\n".join([*lines, f"table: {output}", f"sheets: {sheets}" if num_patients else "no sheet"])
