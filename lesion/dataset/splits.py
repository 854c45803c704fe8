"""Deals patients to folds, saved with a hash that every result carries."""

import hashlib
import json
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from lesion import files
from lesion.classes import PAPER, Classes
from lesion.dataset import UNLABELED, store
from lesion.dicom.tables import FOLD, GROUP
from lesion.errors import UserError

FILE = "splits.json"


Group = tuple[str, str]  # its kind and its name


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


def check_classes(
    label: np.ndarray, masks: np.ndarray, of: str, classes: Classes = PAPER, purpose: str = "train"
) -> None:
    """Raises a UserError if a fold has no patient of some class to train on, or to test on.

    Args:
        label: int32 [N].
        masks: bool [F, N], slices of each fold that serve the purpose.
        of: what the slices are of, for the message: "flair", "the cohort".
        classes: names of the classes, for the message.
        purpose: "train" or "test", for the message.
    """
    for fold, mask in enumerate(masks):
        for value, name in enumerate(classes):
            if not (label[mask] == value).any():
                raise UserError(
                    f"fold {fold + 1} of {len(masks)} has no {name} of {of} to {purpose} on, one class only: label "
                    "more patients, or deal them otherwise (--config.num_folds, --config.seed, or fold in patients.csv)"
                )


def make(
    label: np.ndarray,
    patient: np.ndarray,
    num_folds: int,
    seed: int,
    fold_of: Mapping[str, int] = MappingProxyType({}),
    group_of: Mapping[str, str] = MappingProxyType({}),
    classes: Classes = PAPER,
) -> Splits:
    """Deals patients to folds so that slices of each class are spread evenly (StratifiedGroupKFold), or as told.

    Args:
        label: int32 [N]; -1 is left out.
        patient: str [N].
        num_folds: at least 2.
        seed: of the shuffle.
        fold_of: {patient: fold from 0}, of all labelled patients where the user deals them; else empty.
        group_of: {patient: group}, whose patients stay in one fold; a patient without one is a group alone.
        classes: names of the classes, for messages.

    Raises:
        UserError: if a class has fewer patients, or groups, than there are folds; a fold has one class only to train
            on; or the given folds are not `num_folds`, leave a patient out or a fold empty, or split a group.
        ValueError: if a patient has two labels.
    """
    assert label.shape == patient.shape and label.ndim == 1, (label.shape, patient.shape)
    known = label != UNLABELED
    # Sorted, so that the folds do not depend on the order in which slices were read.
    order = np.lexsort((label[known], patient[known]))
    label, patient = label[known][order], patient[known][order]
    labels_of = {str(name): set(label[patient == name]) for name in np.unique(patient)}
    for name, labels in labels_of.items():
        if len(labels) > 1:
            raise ValueError(f"patient {name} has two labels")
    if num_folds < 2:
        raise UserError(f"{num_folds} folds: cross-validation needs at least 2, set --config.num_folds")
    for value, name in enumerate(classes):
        if value not in label:
            raise UserError(f"no patient with {name} has a slice: two classes are needed to tell them apart")
    group = {name: ("of", group_of[name]) if group_of.get(name) else ("alone", name) for name in labels_of}
    if fold_of:
        test_fold = _given(list(labels_of), num_folds, fold_of, group)
    else:
        test_fold = _deal(label, patient, num_folds, seed, group, classes)
    splits = Splits(dict(sorted(test_fold.items())), num_folds, seed)
    check_classes(label, splits.masks(patient, label)[0], "the cohort", classes)
    return splits


def _given(names: list[str], num_folds: int, fold_of: Mapping[str, int], group: Mapping[str, Group]) -> dict[str, int]:
    """Returns the given folds of `names`, checked."""
    count = max(fold_of.values()) + 1
    if count != num_folds:
        raise UserError(f"patients.csv deals the patients to {count} folds: set --config.num_folds={count}")
    fold_of_group: dict[Group, int] = {}
    for name in names:
        if name not in fold_of:
            raise UserError(f"patient {name} has a label and no fold: fill in fold in patients.csv, prepare again")
        if fold_of_group.setdefault(group[name], fold_of[name]) != fold_of[name]:
            raise UserError(f"the group of patient {name} is in two folds: mend patients.csv, prepare again")
    for fold in range(count):
        if fold not in fold_of_group.values():
            raise UserError(f"fold {fold} of patients.csv has no labelled patient with a slice: number folds from 0")
    return {name: fold_of[name] for name in names}


def _deal(
    label: np.ndarray, patient: np.ndarray, num_folds: int, seed: int, group: Mapping[str, Group], classes: Classes
) -> dict[str, int]:
    """Returns the folds of patients with labelled slices, sorted by patient."""
    for value, name in enumerate(classes):
        patients = np.unique(patient[label == value])
        groups = {group[str(p)] for p in patients}
        if len(groups) < num_folds:
            in_groups = f" in {len(groups)} groups" if len(groups) < len(patients) else ""
            raise UserError(
                f"{len(patients)} patients with {name}{in_groups} for {num_folds} folds: label more patients or lower "
                "--config.num_folds"
            )
    # A group bears the name of its first patient: patients alone are dealt as if there were no groups.
    first = {group[str(p)]: str(p) for p in patient[::-1]}
    dealt_as = np.array([first[group[str(p)]] for p in patient])
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed).split(dealt_as, label, dealt_as)
    return {str(name): fold for fold, (_, test) in enumerate(folds) for name in np.unique(patient[test])}


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


def hold_out(
    patient: np.ndarray, label: np.ndarray, train: np.ndarray, share: float, seed: int, classes: Classes = PAPER
) -> np.ndarray:
    """Chooses whole training patients, about a `share` of them and of each class, for early stopping: bool [N].

    Args:
        patient: str [N].
        label: int32 [N].
        train: bool [N].
        share: between 0 and 1.
        seed: of the draw.
        classes: names of the classes, for the message.

    Raises:
        UserError: if a class has fewer than two training patients.
    """
    rows = np.flatnonzero(train)
    counts = {name: len(np.unique(patient[rows][label[rows] == value])) for value, name in enumerate(classes)}
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
    data_dir: Path,
    label: np.ndarray,
    patient: np.ndarray,
    num_folds: int,
    seed: int,
    keep: bool = True,
    classes: Classes = PAPER,
) -> Splits:
    """Returns the dataset's split for (num_folds, seed), read from splits.json or made and, if `keep`, added there.

    A dataset that may not be written keeps none: the same split is made again, and each run records its hash. Folds
    and groups are those of the dataset's patients.csv.

    Raises:
        UserError: if splits.json is damaged or holds another split of that name; see `make`.
    """
    path = Path(data_dir) / FILE
    try:
        saved = files.read_json(path) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path} is damaged: remove the file, the same split is made again") from error
    told = store.load_patients(data_dir)
    fold_of = {name: int(cells[FOLD]) for name, cells in told.items() if cells.get(FOLD)}
    group_of = {name: cells[GROUP] for name, cells in told.items() if cells.get(GROUP)}
    splits = make(label, patient, num_folds, seed, fold_of, group_of, classes)
    name = f"patient-{num_folds}-{seed}"
    entry = {"hash": splits.hash, **splits._asdict()}
    if name in saved and saved[name] != entry:
        raise UserError(f"{path} holds another split {name} of other patients: remove the file and run again")
    if keep and name not in saved and os.access(data_dir, os.W_OK):
        files.write_json(path, saved | {name: entry})
    return splits
