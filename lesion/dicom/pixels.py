"""Reads the pixels of an instance, whatever kind of file it is."""

import numpy as np

from lesion.dicom import nifti, pictures, read
from lesion.dicom.read import Instance


def read_pixels(folder: str, instance: Instance) -> np.ndarray:
    """Returns the pixels of all frames in rescaled units, float32 [frames, rows, columns], air dark.

    Raises:
        Exception: whatever pydicom, Pillow or nibabel raise on broken files.
    """
    if instance.sop_uid != instance.file:
        return read.read_pixels(folder, instance)
    if instance.file.lower().endswith(pictures.NIFTI_SUFFIXES):
        return nifti.read_nifti(folder, instance)
    return pictures.read_picture(folder, instance)
