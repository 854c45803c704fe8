"""A test of the phantom: it should be neither trivial nor noise, and its label should lie in the pattern.

Logistic regression, cross-validated over five folds of patients, on four inputs: features of EfficientNet-Lite0 with
ImageNet weights; features of it with random weights; the first with labels shuffled between patients; and shortcuts,
the numbers that a network could use instead of the lesion: brightness and spread of the crop, area of the brain,
position of the slice, length of the series, numbers of the file and its header.
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from PIL import Image
from sklearn.metrics import roc_auc_score

from lesion.classes import PAPER
from lesion.dataset import Slices, pseudonyms, render, splits
from lesion.dicom import SEQUENCES, scan, tables
from lesion.dicom.folder import Options, find
from lesion.errors import UserError
from lesion.train import features
from lesion.transfer.permutation import cross_validate
from lesion.weights import pretrained

BACKBONE = "efficientnet_lite0"
NUM_FOLDS = 5
NUM_SHUFFLES = 10  # the AUC of one shuffle of 175 patients scatters by about .05
NUM_PICTURE = 8  # number of leading shortcuts that come from the picture and its series, not from file or header
NUMBERS = (  # header fields, used as they are; 0 if missing
    "RepetitionTime EchoTime InversionTime FlipAngle EchoTrainLength SliceThickness SpacingBetweenSlices PixelSpacing "
    "AcquisitionMatrix WindowCenter WindowWidth ImagePositionPatient InstanceNumber SeriesNumber "
    "PatientAge PatientWeight PatientSex Manufacturer StudyDate StudyTime PatientBirthDate ContrastBolusVolume "
    "SmallestImagePixelValue LargestImagePixelValue Rows"
).split()


class Result(NamedTuple):
    """The AUCs of one row of the table on one sequence; patients are scored by the mean of their slices."""

    slice_auc: float
    patient_auc: float


class Sample(NamedTuple):
    """The slices of a sequence and their `shortcuts`, float64 [N, S]."""

    slices: Slices
    shortcuts: np.ndarray


def run(folder: Path, cache: Path) -> dict[str, dict[str, Result]]:
    """Evaluates all rows of the table on all sequences: {sequence: {row: Result}}.

    Args:
        folder: DICOM tree with patients.csv and slices.csv.
        cache: folder that keeps converted weights and features between runs.
    """
    weights = cache / "weights" / BACKBONE
    if not weights.exists():
        pretrained.convert_file(BACKBONE, "lite", None, str(weights))
    trained, record = pretrained.load(BACKBONE, str(weights))
    untrained, random_record = pretrained.random_variables(BACKBONE, 0)
    results = {}
    for sequence, sample in load(folder).items():
        label, patient = sample.slices.label, sample.slices.patient
        imagenet = _features(cache, sample.slices, trained, record["sha256"], f"{sequence}: ImageNet")
        random = _features(cache, sample.slices, untrained, random_record["sha256"], f"{sequence}: random")
        shuffled = [evaluate(imagenet, splits.shuffled(label, patient, k), patient) for k in range(NUM_SHUFFLES)]
        results[sequence] = {
            "ImageNet features": evaluate(imagenet, label, patient),
            "random weights": evaluate(random, label, patient),
            "labels shuffled": Result(*np.mean(shuffled, axis=0)),
            "shortcuts of the picture": evaluate(sample.shortcuts[:, :NUM_PICTURE], label, patient),
            "all shortcuts": evaluate(sample.shortcuts, label, patient),
        }
    return results


def load(folder: Path) -> dict[str, Sample]:
    """Returns {sequence: sample} of the chosen slices, read and prepared as by `launch.prepare`."""
    user = tables.read_tables(folder)
    private = folder / pseudonyms.FOLDER
    found = find(folder, private, scan.list_files(folder, [private]), user, Options())
    rendered = render.render_all(found.series)
    samples = {}
    for sequence in SEQUENCES:
        images, rows, labels, patients, ids, spacings, heights = [], [], [], [], [], [], []
        for series, slices_of_series in zip(rendered.series, rendered.slices, strict=True):
            files = {member.instance.sop_uid: member.instance.file for member in series.members}
            for picture in slices_of_series if series.sequence == sequence else []:
                if picture.patient_id not in user.labels:
                    continue
                image = np.asarray(Image.open(io.BytesIO(picture.png)))
                spacing = picture.plan.side_mm / len(image)
                rows.append(_shortcuts(image, spacing, len(series.members), folder / files[picture.sop_uid]))
                images.append(image)
                labels.append(user.labels[picture.patient_id])
                patients.append(picture.patient_id)
                ids.append(f"{picture.sop_uid}/{picture.frame}")
                spacings.append((spacing, spacing))
                heights.append(picture.position_mm)
        for value, name in enumerate(PAPER):
            count = len({p for p, given in zip(patients, labels, strict=True) if given == value})
            if count < NUM_FOLDS:
                raise UserError(
                    f"{folder}: {count} patients with {name} have {sequence} slices, {NUM_FOLDS} are needed"
                )
        slices = Slices(
            np.stack(images),
            np.array(labels, np.int32),
            np.array(patients),
            np.array(ids),
            np.array(spacings, np.float32),
            np.array(heights, np.float32),
        )
        samples[sequence] = Sample(slices, np.array(rows))
    return samples


def _shortcuts(image: np.ndarray, spacing_mm: float, num_slices: int, path: Path) -> list[float]:
    """Returns the shortcuts of one slice: `NUM_PICTURE` of the picture and its series, then file and header."""
    inside = image[image > 20]
    values = [image.mean(), image.std(), inside.mean(), inside.std(), inside.size * spacing_mm**2, spacing_mm]
    header = pydicom.dcmread(path, stop_before_pixels=True)
    values += [_number(header.get("SliceLocation")), num_slices, path.stat().st_size]
    for name in NUMBERS:
        field = header.get(name)
        parts = list(field) if isinstance(field, pydicom.multival.MultiValue) else [field]
        parts += [None] * (
            {"PixelSpacing": 2, "AcquisitionMatrix": 4, "ImagePositionPatient": 3}.get(name, 1) - len(parts)
        )
        values += [_number(part) for part in parts]
    return [float(value) for value in values]


def _number(value: object) -> float:
    """Returns a header value as a number: the digits of dates, ages and times; the code of a text's first letter."""
    if value is None or value == "":
        return 0.0
    try:
        return float(str(value))
    except ValueError:
        digits = "".join(c for c in str(value) if c.isdigit())
        return float(digits) if digits else float(ord(str(value)[0]))


def _features(cache: Path, slices: Slices, variables: dict, sha256: str, stage: str) -> np.ndarray:
    feature_array = features.load_or_compute(
        cache / "features",
        slices,
        features.last_map_spec(BACKBONE),
        variables,
        sha256,
        num_copies=0,
        seed=0,
        stage=stage,
    )
    return feature_array[:, 0]


def evaluate(x: np.ndarray, label: np.ndarray, patient: np.ndarray) -> Result:
    """Returns the AUCs of logistic regression on x [N, D], on test predictions pooled over folds of whole patients."""
    score = cross_validate(x, label, patient, NUM_FOLDS, seed=0)
    names, first = np.unique(patient, return_index=True)
    by_patient = [score[patient == name].mean() for name in names]
    return Result(float(roc_auc_score(label, score)), float(roc_auc_score(label[first], by_patient)))


def table(results: dict[str, dict[str, Result]]) -> list[list[str]]:
    """Returns the results as rows of text, the heading first: slice AUC / patient AUC."""
    rows = [["slice AUC / patient AUC", *results]]
    for name in next(iter(results.values())):
        rows.append([name, *(f"{r[name].slice_auc:.2f} / {r[name].patient_auc:.2f}" for r in results.values())])
    return rows
