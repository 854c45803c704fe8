"""Reads a folder of PNG, JPEG or TIFF slices that `images.csv` names, as instances of one frame each.

`images.csv` has the columns `file,patient_id,sequence` and perhaps `position` (mm along the body, from the feet up); a
series is what a patient has of one sequence. Pictures do not tell how large their pixels are, and the crop measures in
millimetres: each is taken as if its larger side were 240 mm, the usual field of view of a head, with square pixels.

NIfTI files may stand in the same table; `lesion.dicom.nifti` reads those.
"""

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from lesion import workers
from lesion.dicom import SEQUENCES, scan, tables
from lesion.dicom.read import Attributes, Frame, Instance, RejectedFile, reject
from lesion.errors import UserError

IMAGES = "images.csv"
NOMINAL_SIDE_MM = 240.0  # of a picture, the larger one
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
_FORMATS = ("PNG", "JPEG", "TIFF")
_GREY, _CHANNELS = ("L", "I", "I;16", "I;16B", "I;16L"), ("P", "PA", "LA", "RGB", "RGBA", "RGBX")  # modes of Pillow
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF and its value


class ImageRow(NamedTuple):
    """A row of images.csv: `file` relative to the folder; `position_mm` is NaN where the table does not say."""

    file: str
    patient_id: str
    sequence: str
    position_mm: float

    @property
    def series_uid(self) -> str:
        """The name of the series that the row's file is of."""
        return f"{self.patient_id}/{self.sequence}"


class InColourError(ValueError):
    """A picture whose channels differ."""


def scan_pictures(folder: Path) -> tuple[list[Instance], dict[str, str], list[RejectedFile]]:
    """Reads all pictures that images.csv names, on all cores; without the table there are none.

    Returns:
        The instances in the table's order, the sequence of each series, and the pictures that cannot be used.

    Raises:
        UserError: the table is wrong; names the row.
    """
    rows = [row for row in read_images(folder) if not row.file.lower().endswith(NIFTI_SUFFIXES)]
    tasks = [(str(folder), row) for row in rows]
    results = list(workers.parallel_map(_scan, tasks, "reading pictures", _scan_crashed, chunk_size=32))
    instances = [result for result in results if isinstance(result, Instance)]
    present = {instance.series_uid for instance in instances}
    sequences = {row.series_uid: row.sequence for row in rows if row.series_uid in present}
    return instances, sequences, [result for result in results if isinstance(result, RejectedFile)]


def read_picture(folder: str | Path, instance: Instance) -> np.ndarray:
    """Returns the pixels of a picture, float32 [1, rows, columns], as stored, air dark.

    Raises:
        Exception: whatever Pillow raises on broken files.
    """
    return _load(Path(folder, instance.file))[None].astype(np.float32)


def read_images(folder: Path) -> list[ImageRow]:
    """Reads images.csv, pictures and NIfTI files; without the table there is no row.

    Raises:
        UserError: wrong columns, an empty table, or a row whose file is missing, outside of the folder, of another kind
            or named before, whose sequence is unknown or whose position is no number.
    """
    path = folder / IMAGES
    if not path.exists():
        return []
    found: dict[str, ImageRow] = {}
    for row, cells in tables.rows(path, ("file", "patient_id", "sequence"), optional=("position",), filled=3):
        # No message repeats a file's name, which may be a patient's.
        cell, patient_id, sequence, position = cells
        name = os.path.relpath(os.path.join(folder, cell.replace("\\", "/")), folder)
        if name.split(os.sep)[0] == os.pardir:
            raise UserError(f"{path} row {row}: the file lies outside of {folder}: move it there and correct the row")
        if not (folder / name).is_file():
            raise UserError(f"{path} row {row}: there is no such file in {folder}: correct its name or delete the row")
        if not name.lower().endswith(SUFFIXES + NIFTI_SUFFIXES):
            kinds = " ".join(SUFFIXES + NIFTI_SUFFIXES)
            raise UserError(f"{path} row {row}: the file is none of {kinds}: save it as one of them or delete the row")
        if name in found:
            raise UserError(f"{path} row {row}: this file stands further up as well: keep one of the rows")
        if sequence.lower() not in SEQUENCES:
            words = ", ".join(SEQUENCES)
            raise UserError(f"{path} row {row}: the sequence is unknown: write one of {words}")
        found[name] = ImageRow(name, patient_id, sequence.lower(), _position_mm(path, row, position))
    if not found:
        raise UserError(f"{path} names no file: add rows file,patient_id,sequence, or delete it")
    return list(found.values())


def advice(folder: Path) -> str:
    """Returns a line that tells how to write images.csv; empty if the folder holds no picture, or has the table."""
    count = sum(file.path.lower().endswith(SUFFIXES) for file in scan.list_files(folder, ()))
    if not count or (folder / IMAGES).exists():
        return ""
    return (
        f"{folder} holds {count} pictures (PNG, JPEG, TIFF), but no {IMAGES} that says what they are: write one there, "
        f"first line file,patient_id,sequence, then one row a picture, as in slices/001.png,P1,flair "
        f"(sequence: {', '.join(SEQUENCES)})"
    )


def make_instance(
    file: str, patient_id: str, series_uid: str, shape: tuple[int, int], frames: Sequence[Frame], study_uid: str = ""
) -> Instance:
    """Returns the instance of a file that is no DICOM: its path stands for the SOPInstanceUID."""
    return Instance(
        file=file,
        patient_id=patient_id,
        series_uid=series_uid,
        sop_uid=file,
        shape=shape,
        inverted=False,
        phantom=False,
        compressed=False,
        frames=tuple(frames),
        study_uid=study_uid,
        may_hold_text=not file.lower().endswith(NIFTI_SUFFIXES),  # those hold what a scanner measured
    )


def make_frame(number: int, plane: tuple[float, ...], spacing: tuple[float, float], position_mm: float) -> Frame:
    """Returns a frame that has no header: no attributes, no window, pixels as they are."""
    return Frame(
        number=number,
        attributes=Attributes(),
        plane=plane,
        spacing=spacing,
        window=None,
        rescale=(1.0, 0.0),
        position_mm=position_mm,
    )


def nominal_spacing(shape: tuple[int, int]) -> tuple[float, float]:
    """Returns row and column spacing, mm, of a picture [rows, columns] that tells none, see `NOMINAL_SIDE_MM`."""
    spacing_mm = NOMINAL_SIDE_MM / max(shape)
    return spacing_mm, spacing_mm


def _position_mm(path: Path, row: int, cell: str) -> float:
    try:
        position_mm = float(cell or "nan")
    except ValueError:
        position_mm = math.inf
    if math.isinf(position_mm):
        raise UserError(f"{path} row {row}: the position is no number of mm: correct or empty it")
    return position_mm


def _scan(task: tuple[str, ImageRow]) -> Instance | RejectedFile:
    """Decodes a picture, for only the pixels tell whether it is in colour, or cut short."""
    folder, row = task
    try:
        rows, columns = _load(Path(folder, row.file)).shape
    except Exception as error:  # Pillow raises nearly every kind of exception on broken files
        kind = "in colour" if isinstance(error, InColourError) else "unreadable picture"
        return reject(row.file, kind, error)._replace(sop_uid=row.file, patient_id=row.patient_id)
    frame = make_frame(1, (), nominal_spacing((rows, columns)), row.position_mm)
    return make_instance(row.file, row.patient_id, row.series_uid, (rows, columns), [frame])


def _scan_crashed(task: tuple[str, ImageRow]) -> RejectedFile:
    _, row = task
    return RejectedFile(row.file, "unreadable picture", "the decoder died on it", row.file, row.patient_id)


def _load(path: Path) -> np.ndarray:
    """Returns the grey values of a picture as it is shown, [rows, columns]; transparent pixels are black.

    Raises:
        InColourError: its channels differ.
        Exception: as Pillow; too many pixels (its guard against decompression bombs), or more than one picture.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=_FORMATS) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError("several pictures in one file: save each slice as a file of its own")
            # Pillow turns the values of such a TIFF itself where they have 8 bits, not where they have 16.
            white_is_zero = image.mode != "L" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
            upright = ImageOps.exif_transpose(image)
        if upright.mode in _GREY:
            grey = np.asarray(upright)
            return 65535 - grey if white_is_zero else grey
        if upright.mode not in _CHANNELS:
            raise ValueError(f"mode {upright.mode}: neither grey nor RGB of 8 or 16 bits: save it so")
        channels = np.array(upright.convert("RGBA"))
    channels[channels[..., 3] == 0] = 0
    if (channels[..., :1] != channels[..., 1:3]).any():
        raise InColourError("in colour: its channels differ; save it in grey")
    return channels[..., 0]
