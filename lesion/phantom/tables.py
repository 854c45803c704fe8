"""Writes the tables beside a phantom: labels, chosen slices, and answers of simulated readers.

A reader's calls are drawn at random with a sensitivity and a specificity that are drawn for the reader; the pictures
play no part. The ranges lie around the accuracies of 73 to 82 % that the paper prints for its two readers (Table 6);
they are a guess, and comparisons with these readers only show that the program works.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lesion import files
from lesion.classes import PAPER
from lesion.dicom import tables

MAX_READERS = 9
_SENSITIVITY, _SPECIFICITY = (0.6, 0.85), (0.75, 0.92)
_STREAM = 1 << 20  # differs from the streams of `cohort`, whose seeds continue with 0 to 2 or a patient's index


def write_labels(root: Path, labels: dict[str, str], num_labeled: int) -> None:
    """Writes patients.csv with `num_labeled` labels, the classes in turn, and truth.csv if these are not all.

    Args:
        root: folder of the phantom.
        labels: {PatientID: label}.
        num_labeled: number of patients that keep their label.
    """
    turns = {label: itertools.count() for label in PAPER}
    order = sorted(labels, key=lambda patient_id: (next(turns[labels[patient_id]]), labels[patient_id]))
    labeled = set(order[:num_labeled])
    rows = [(patient_id, label if patient_id in labeled else "") for patient_id, label in labels.items()]
    files.write_csv(root / tables.PATIENTS, ("patient_id", "label"), rows)
    if len(labeled) < len(labels):
        files.write_csv(root / "truth.csv", ("patient_id", "label"), labels.items())


def write_slices(root: Path, sop_uids: Iterable[str]) -> None:
    """Writes slices.csv from the SOPInstanceUIDs of the chosen slices."""
    files.write_csv(root / tables.SLICES, ("sop_instance_uid", "frame"), ((uid, "") for uid in sop_uids))


def write_readers(root: Path, labels: dict[str, str], num_readers: int, seed: int) -> None:
    """Writes readers.csv: answers of simulated readers on every patient, independent of the number of readers."""
    other = dict(zip(PAPER, reversed(PAPER), strict=True))
    rows = []
    for reader in range(num_readers):
        rng = np.random.default_rng([seed, _STREAM, reader])
        accuracy = {"glioma": rng.uniform(*_SENSITIVITY), "encephalitis": rng.uniform(*_SPECIFICITY)}
        draws = rng.random(len(labels))
        for draw, (patient_id, label) in zip(draws, labels.items(), strict=True):
            answer = label if draw < accuracy[label] else other[label]
            rows.append((patient_id, f"{tables.SIMULATED} {reader + 1}", answer))
    files.write_csv(root / tables.READERS, ("patient_id", "reader", "label"), rows)
