"""Patients in place of slices: the frozen features of several sequences as one padded bag for each patient."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lesion.classes import Classes
from lesion.dataset import UNLABELED, Slices
from lesion.errors import UserError
from lesion.models.heads import Bags


class Patients(NamedTuple):
    """P labelled patients that have a slice in at least one of M sequences, sorted by pseudonym.

    Attributes:
        patient: pseudonyms, str [P].
        label: int32 [P], 0 encephalitis, 1 glioma.
        num_slices: number of a patient's slices in each sequence, int64 [P, M]; 0 if the sequence is missing.
        sequences: names of the M sequences.
    """

    patient: np.ndarray
    label: np.ndarray
    num_slices: np.ndarray
    sequences: tuple[str, ...]

    def have(self, sequence: str) -> np.ndarray:
        """Returns a mask of the patients that have slices of a sequence, bool [P]."""
        return self.num_slices[:, self.sequences.index(sequence)] > 0


def find_patients(slices: Mapping[str, Slices]) -> Patients:
    """Finds the labelled patients in the slices of M sequences.

    Raises:
        UserError: if no labelled patient has slices of two sequences.
    """
    known = {name: s.label != UNLABELED for name, s in slices.items()}
    label_of = {str(p): int(y) for name, s in slices.items() for p, y in zip(s.patient, s.label, strict=True)}
    patient = np.unique(np.concatenate([s.patient[known[name]] for name, s in slices.items()]))
    count = np.zeros((len(patient), len(slices)), np.int64)
    for m, (name, s) in enumerate(slices.items()):
        np.add.at(count[:, m], np.searchsorted(patient, s.patient[known[name]]), 1)
    if not ((count > 0).sum(1) > 1).any():
        raise UserError(f"no labelled patient has slices in two of {', '.join(slices)}: there is nothing to fuse")
    label = np.array([label_of[str(p)] for p in patient], np.int32)
    return Patients(patient, label, count, tuple(slices))


def check_classes(patients: Patients, train: np.ndarray, inner_folds: int, least: int, classes: Classes) -> None:
    """Raises a one-line `UserError` if a fold has too few training patients of a class to choose among the sequences.

    Args:
        patients: P patients.
        train: training masks of F folds, bool [F, P].
        inner_folds: number of inner folds into which a fold's training patients are divided.
        least: number of patients of each class that every inner fold must have to train on.
        classes: names of the classes, for the message.
    """
    wanted = next(n for n in itertools.count(inner_folds) if n - -(-n // inner_folds) >= least)
    for fold, in_training in enumerate(train):
        for sequence in patients.sequences:
            label = patients.label[in_training & patients.have(sequence)]
            for value, name in enumerate(classes):
                count = int((label == value).sum())
                if count < wanted:
                    raise UserError(
                        f"fold {fold + 1}: {count} training patients with {name} have {sequence}, and it takes "
                        f"{wanted} to choose the best sequence: leave {sequence} out of --config.fusion.sequences, or "
                        "lower --config.fusion.inner_folds (2 is the least)"
                    )


def make_bags(patients: Patients, slices: Mapping[str, Slices], features: Mapping[str, np.ndarray]) -> Bags:
    """Puts the features of each patient's slices into one padded bag.

    Copy c of a bag holds copy c of each of its slices, in the order of their ids. Narrower features are padded with
    zeros to the widest, which changes no product with weights.

    Args:
        patients: P patients, as `find_patients` finds them in `slices`.
        slices: {sequence: its slices} for M sequences.
        features: {sequence: features [N, 1 + copies, D] of its N slices}; they may be memory-mapped.

    Returns:
        NumPy arrays: features float32 [P, 1 + copies, M, S, D] and mask bool [P, 1 + copies, M, S]; S is the largest
        number of slices that a patient has of a sequence.
    """
    assert tuple(slices) == tuple(features) == patients.sequences, (tuple(slices), tuple(features))
    copies, width = features[patients.sequences[0]].shape[1], max(f.shape[-1] for f in features.values())
    shape = (len(patients.patient), copies, len(slices), int(patients.num_slices.max()))
    bags, mask = np.zeros((*shape, width), np.float32), np.zeros(shape, bool)
    for m, (name, s) in enumerate(slices.items()):
        known = np.flatnonzero(s.label != UNLABELED)
        known = known[np.lexsort((s.slice_id[known], s.patient[known]))]
        row = np.searchsorted(patients.patient, s.patient[known])
        position = np.arange(len(known)) - np.searchsorted(row, row)  # index of a slice among its patient's
        x = np.asarray(features[name][known], np.float32)
        bags[row, :, m, position, : x.shape[-1]] = x
        mask[row, :, m, position] = True
    return Bags(bags, mask)
