"""Reads one slice from one file, prepared as those of a dataset are."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lesion.dataset import burned_in_text, preprocess
from lesion.dicom import pictures, read
from lesion.dicom.rules import Rules
from lesion.errors import UserError


class PreparedSlice(NamedTuple):
    """A slice from a file.

    Attributes:
        image: uint8 [224, 224].
        description: how it was read, in words.
        sequence: "flair", "ce_t1wi" or "t2wi"; None where it is another or not known.
        phantom: whether the file says that it is of a phantom.
    """

    image: np.ndarray
    description: str
    sequence: str | None
    phantom: bool


def read_slice(path: Path) -> PreparedSlice:
    """Reads a DICOM file or a picture.

    Of a multi-frame object the middle frame is taken. Window and crop are planned on this file alone, in a dataset on
    the whole series, so that the picture may differ a little from that. A picture of 224×224 is taken as it is, as a
    prepared slice; others are made square by their longer side and resized.

    Raises:
        UserError: if it can be read as neither.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}: name a DICOM file or a PNG")
    header = read.read_header(str(path.parent), path.name)
    if isinstance(header, read.Instance):
        return _read_dicom(path, header)
    try:
        with Image.open(path) as picture:
            image = np.asarray(picture.convert("L"))
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path} is neither an MR image nor a picture ({header.reason}): name another file") from error
    if image.shape == (preprocess.SIZE, preprocess.SIZE):
        return PreparedSlice(image, "a picture, taken as it is", None, False)
    size = "×".join(map(str, image.shape[::-1]))
    description = f"a picture of {size}, resized: neither windowed nor cropped"
    return PreparedSlice(preprocess.resize(_pad_to_square(image)), description, None, False)


def _pad_to_square(image: np.ndarray) -> np.ndarray:
    side = max(image.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = ((side - length) // 2 for length in image.shape)
    square[top : top + image.shape[0], left : left + image.shape[1]] = image
    return square


def _read_dicom(path: Path, instance: read.Instance) -> PreparedSlice:
    try:
        volume = read.read_pixels(str(path.parent), instance)
    except Exception as error:  # as in `read.read_header`
        raise UserError(f"the pixels of {path} cannot be decoded: mend the file or name another") from error
    middle = len(volume) // 2
    frame = instance.frames[middle]
    rules = Rules()
    name = rules.sequence_alone(frame.attributes)
    spacing = frame.spacing or pictures.nominal_spacing(instance.shape)
    plan = preprocess.plan_series(volume, spacing, [f.window for f in instance.frames])
    plan = plan._replace(reads_text=instance.may_hold_text and burned_in_text.has_reader())
    description = f"an MR image, {name or 'none of the three sequences'}, its crop measured on the {plan.region}"
    if len(volume) > 1:
        description += f", frame {middle + 1} of {len(volume)}"
    return PreparedSlice(preprocess.prepare_slice(volume[middle], plan), description, name, instance.phantom)
