"""From slices of DICOM to a dataset: preprocessing, pseudonyms, the TFDS store, folds over patients."""

from typing import NamedTuple

import numpy as np

from lesion.dicom import LABELS, SEQUENCES, UNLABELED

__all__ = ["LABELS", "LABELS_OR_NONE", "SEQUENCES", "UNLABELED", "Slices"]
LABELS_OR_NONE = {**LABELS, "unlabeled": UNLABELED}


class Slices(NamedTuple):
    """The slices of one sequence: what passes from `dataset` to everything after it.

    Attributes:
        image: uint8 [N, S, S], grey.
        label: int32 [N]: 0 encephalitis, 1 glioma, -1 unlabelled.
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
