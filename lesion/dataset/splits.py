"""Deals patients to folds, saved with a hash that every result carries."""

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from lesion import files
from lesion.dataset import LABELS, UNLABELED
from lesion.errors import UserError

FILE = "splits.json"


class Splits(NamedTuple):
    """Which fold tests which patient.

    Attributes:
        test_fold: {patient: fold}; a patient without a label has none.
        num_folds: number of folds.
        seed: of the shuffle.
    """

    test_fold: dict[str, int]
    num_folds: int
    seed: int

    @property
    def hash(self) -> str:
        """The SHA-256 of folds, number of folds and seed."""
        return hashlib.sha256(json.dumps(self, sort_keys=True).encode()).hexdigest()

    def masks(self, patient: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns train and test masks, bool [num_folds, N] each, for slices of `patient` [N] with `label` [N]."""
        assert label.shape == patient.shape and label.ndim == 1, (label.shape, patient.shape)
        fold = np.array([self.test_fold.get(str(p), -1) for p in patient])
        known = (fold >= 0) & (label != UNLABELED)
        test = known & (fold == np.arange(self.num_folds)[:, None])
        train = known & ~test
        check_disjoint(patient, train, test)
        return train, test


def check_disjoint(patient: np.ndarray, train: np.ndarray, test: np.ndarray) -> None:
    """Raises ValueError if any fold's train and test masks [F, N] share a patient of `patient` [N]."""
    for fold, (train_mask, test_mask) in enumerate(zip(train, test, strict=True)):
        shared = np.intersect1d(patient[train_mask], patient[test_mask])
        if shared.size:
            raise ValueError(f"fold {fold}: patient {shared[0]} is in training and in test")


def make(label: np.ndarray, patient: np.ndarray, num_folds: int, seed: int) -> Splits:
    """Deals patients to folds so that slices of each class are spread evenly (StratifiedGroupKFold).

    Args:
        label: int32 [N]; -1 is left out.
        patient: str [N].
        num_folds: at least 2.
        seed: of the shuffle.

    Raises:
        UserError: if a class has fewer patients than there are folds.
        ValueError: if a patient has two labels.
    """
    assert label.shape == patient.shape and label.ndim == 1, (label.shape, patient.shape)
    known = label != UNLABELED
    # Sorted, so that the folds do not depend on the order in which slices were read.
    order = np.lexsort((label[known], patient[known]))
    label, patient = label[known][order], patient[known][order]
    labels_of = {name: set(label[patient == name]) for name in np.unique(patient)}
    for name, labels in labels_of.items():
        if len(labels) > 1:
            raise ValueError(f"patient {name} has two labels")
    if num_folds < 2:
        raise UserError(f"{num_folds} folds: cross-validation needs at least 2, set --config.num_folds")
    for name, value in LABELS.items():
        count = sum(value in labels for labels in labels_of.values())
        if count < num_folds:
            raise UserError(
                f"{count} patients with {name} for {num_folds} folds: label more patients or lower --config.num_folds"
            )
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed).split(patient, label, patient)
    test_fold = {str(name): fold for fold, (_, test) in enumerate(folds) for name in np.unique(patient[test])}
    return Splits(dict(sorted(test_fold.items())), num_folds, seed)


def shuffled(label: np.ndarray, patient: np.ndarray, seed: int) -> np.ndarray:
    """Deals labels anew among the labelled patients, one a patient: nothing is left to learn but who is who.

    Args:
        label: int32 [N]; -1 stays where it is.
        patient: str [N].
        seed: of the deal.

    Returns:
        int32 [N], as many patients of each class as before.
    """
    assert label.shape == patient.shape and label.ndim == 1, (label.shape, patient.shape)
    known = label != UNLABELED
    _, first, patient_index = np.unique(patient[known], return_index=True, return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(label[known][first])
    result = label.copy()
    result[known] = dealt[patient_index]
    return result


def hold_out(patient: np.ndarray, label: np.ndarray, train: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Chooses whole training patients, about a `share` of them and of each class, for early stopping: bool [N].

    Args:
        patient: str [N].
        label: int32 [N].
        train: bool [N].
        share: between 0 and 1.
        seed: of the draw.

    Raises:
        UserError: if a class has fewer than two training patients.
    """
    rows = np.flatnonzero(train)
    counts = {name: len(np.unique(patient[rows][label[rows] == value])) for name, value in LABELS.items()}
    fewest = min(counts, key=counts.__getitem__)
    if counts[fewest] < 2:
        raise UserError(
            f"{counts[fewest]} patients with {fewest} to train on: early stopping keeps one of a class back and needs "
            "2, label more patients or set --config.patience=0"
        )
    # The nearest m of k folds that a class's patients can be dealt into: 0.4 is two folds of five.
    part = Fraction(share).limit_denominator(counts[fewest])
    part = min(max(part, Fraction(1, counts[fewest])), Fraction(counts[fewest] - 1, counts[fewest]))
    splits = make(label[rows], patient[rows], part.denominator, seed)
    _, test = splits.masks(patient[rows], label[rows])
    held_out = np.zeros(len(train), bool)
    held_out[rows] = test[: part.numerator].any(axis=0)
    return held_out


def load_or_make(
    data_dir: Path, label: np.ndarray, patient: np.ndarray, num_folds: int, seed: int, keep: bool = True
) -> Splits:
    """Returns the dataset's split for (num_folds, seed), read from splits.json or made and, if `keep`, added there.

    Raises:
        UserError: if splits.json is damaged or holds another split of that name; see `make`.
    """
    path = Path(data_dir) / FILE
    try:
        saved = files.read_json(path) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path} is damaged: remove the file, the same split is made again") from error
    splits = make(label, patient, num_folds, seed)
    name = f"patient-{num_folds}-{seed}"
    entry = {"hash": splits.hash, **splits._asdict()}
    if name in saved and saved[name] != entry:
        raise UserError(f"{path} holds another split {name} of other patients: remove the file and run again")
    if keep and name not in saved:
        files.write_json(path, saved | {name: entry})
    return splits
