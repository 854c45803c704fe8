"""Patients in place of slices: the frozen features of several sequences as one padded bag a patient."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lesion.dataset import LABELS, UNLABELED, Slices
from lesion.errors import UserError
from lesion.models.heads import Bags


class Patients(NamedTuple):
    """P labelled patients that have a slice in at least one of M sequences, sorted by pseudonym.

    Attributes:
        patient: str [P].
        label: int32 [P], 0 or 1.
        num_slices: int64 [P, M], slices each has of each sequence; 0: it lacks the sequence.
        sequences: the M names.
    """

    patient: np.ndarray
    label: np.ndarray
    num_slices: np.ndarray
    sequences: tuple[str, ...]

    def have(self, sequence: str) -> np.ndarray:
        """Returns which patients have slices of a sequence, bool [P]."""
        return self.num_slices[:, self.sequences.index(sequence)] > 0


def find_patients(slices: Mapping[str, Slices]) -> Patients:
    """Finds the labelled patients in the slices of M sequences.

    Raises:
        UserError: if nobody has slices of two sequences.
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


def check_classes(patients: Patients, train: np.ndarray, inner_folds: int, least: int) -> None:
    """Raises a `UserError` unless each fold can choose among the sequences: training patients of both classes in each.

    Args:
        patients: P of them.
        train: bool [F, P].
        inner_folds: into which the training patients of a fold are dealt once more.
        least: patients of a class that must be left to train on then.
    """
    wanted = next(n for n in itertools.count(inner_folds) if n - -(-n // inner_folds) >= least)
    for fold, in_training in enumerate(train):
        for sequence in patients.sequences:
            label = patients.label[in_training & patients.have(sequence)]
            for name, value in LABELS.items():
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
    zeros to the widest, which adds nothing to any product.

    Args:
        patients: P, of `slices`.
        slices: of each of M sequences.
        features: [N, 1 + copies, D] of each; they may lie on disk.

    Returns:
        NumPy: features float32 [P, 1 + copies, M, S, D], mask bool [P, 1 + copies, M, S]; S is the most slices that a
        patient has of a sequence.
    """
    assert tuple(slices) == tuple(features) == patients.sequences, (tuple(slices), tuple(features))
    copies, width = features[patients.sequences[0]].shape[1], max(f.shape[-1] for f in features.values())
    shape = (len(patients.patient), copies, len(slices), int(patients.num_slices.max()))
    bags, mask = np.zeros((*shape, width), np.float32), np.zeros(shape, bool)
    for m, (name, s) in enumerate(slices.items()):
        known = np.flatnonzero(s.label != UNLABELED)
        known = known[np.lexsort((s.slice_id[known], s.patient[known]))]
        row = np.searchsorted(patients.patient, s.patient[known])
        position = np.arange(len(known)) - np.searchsorted(row, row)  # of the slice among its patient's
        x = np.asarray(features[name][known], np.float32)
        bags[row, :, m, position, : x.shape[-1]] = x
        mask[row, :, m, position] = True
    return Bags(bags, mask)
