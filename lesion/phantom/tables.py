"""The tables beside a phantom: labels, chosen slices, and readers, who are simulated as well.

A reader calls each patient by chance, right as often as a sensitivity and a specificity say that are drawn for the
reader; the pictures play no part in it. The ranges lie around the accuracies of 73 to 82 % that the paper prints of its
two readers (Table 6); they are a guess, and comparisons with these readers only show that the way works.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lesion.dataset import LABELS
from lesion.dicom import tables

MOST_READERS = 9
_SENSITIVITY, _SPECIFICITY = (0.6, 0.85), (0.75, 0.92)
_STREAM = 1 << 20  # apart from the streams of `phantom`: its seeds are followed by 0 to 2 or a patient's number


def write_labels(root: Path, labels: dict[str, str], number: int) -> None:
    """Writes patients.csv with `number` labels told, the classes in turn, and truth.csv if that is not all."""
    turn = {label: itertools.count() for label in LABELS}
    told = set(sorted(labels, key=lambda name: (next(turn[labels[name]]), labels[name]))[:number])
    rows = [f"{name},{label if name in told else ''}" for name, label in labels.items()]
    _write(root / tables.PATIENTS, "patient_id,label", rows)
    if len(told) < len(labels):
        _write(root / "truth.csv", "patient_id,label", [f"{name},{label}" for name, label in labels.items()])


def write_slices(root: Path, chosen: Iterable[str]) -> None:
    """Writes slices.csv from the SOPInstanceUIDs of the chosen slices."""
    _write(root / tables.SLICES, "sop_instance_uid,frame", [f"{uid}," for uid in chosen])


def write_readers(root: Path, labels: dict[str, str], number: int, seed: int) -> None:
    """Writes readers.csv: each of `number` simulated readers on every patient; a further one changes none before."""
    rows = []
    for reader in range(number):
        rng = np.random.default_rng([seed, _STREAM, reader])
        right = {"glioma": rng.uniform(*_SENSITIVITY), "encephalitis": rng.uniform(*_SPECIFICITY)}
        other = dict(zip(LABELS, reversed(LABELS), strict=True))
        draws = rng.random(len(labels))
        for draw, (name, label) in zip(draws, labels.items(), strict=True):
            rows.append(f"{name},{tables.SIMULATED} {reader + 1},{label if draw < right[label] else other[label]}")
    _write(root / tables.READERS, "patient_id,reader,label", rows)


def _write(path: Path, header: str, rows: Iterable[str]) -> None:
    path.write_text("\n".join([header, *rows]) + "\n")
