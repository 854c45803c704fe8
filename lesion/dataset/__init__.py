"""From slices of DICOM to a dataset: preprocessing, pseudonyms, the TFDS store, folds over patients."""

from typing import NamedTuple

import numpy as np

from lesion.classes import Classes
from lesion.dicom import SEQUENCES, UNLABELED

__all__ = ["SEQUENCES", "UNLABELED", "Slices", "labels_or_none"]


def labels_or_none(classes: Classes) -> dict[str, int]:
    """Returns {name: label} of the classes, and of what has no label."""
    return {name: label for label, name in enumerate(classes)} | {"unlabeled": UNLABELED}


class Slices(NamedTuple):
    """The slices of one sequence: what passes from `dataset` to everything after it.

    Attributes:
        image: uint8 [N, S, S], grey.
        label: int32 [N]: 0 encephalitis, 1 glioma (or the dataset's own `Classes`), -1 unlabelled.
        patient: str [N], pseudonyms.
        slice_id: str [N], unique, pseudonymous.
        spacing_mm: float32 [N, 2], row and column spacing of `image`.
        position_mm: float32 [N], height above the patient's lowest slice along the normal of the plane; NaN if unknown.
    """

    image: np.ndarray
    label: np.ndarray
    patient: np.ndarray
    slice_id: np.ndarray
    spacing_mm: np.ndarray
    position_mm: np.ndarray
