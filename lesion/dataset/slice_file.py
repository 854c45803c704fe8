"""One slice from one file, prepared as those of a dataset are."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lesion.dataset import preprocess
from lesion.dicom import read
from lesion.errors import UserError


class Single(NamedTuple):
    """A slice.

    Attributes:
        image: uint8 [224, 224].
        how: it was read, in words.
        sequence: of the three; None where nothing tells it, or it is another.
        phantom: whether the file says that it is of one.
    """

    image: np.ndarray
    how: str
    sequence: str | None
    phantom: bool


def read_single(path: Path) -> Single:
    """Reads a DICOM file or a picture.

    Of a multi-frame object the middle frame is taken. Window and crop are planned on this slice alone, on the others of
    its series too in a dataset, so that the picture may differ a little from that. A picture of 224×224 is taken as it
    is, as a prepared slice; others are made square by their longer side and resized.

    Raises:
        UserError: if it can be read as neither.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}: name a DICOM file or a PNG")
    header = read.read_header(str(path.parent), path.name)
    if isinstance(header, read.MrObject):
        return _of_dicom(path, header)
    try:
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L"))
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path} is neither an MR image nor a picture ({header.reason}): name another file") from error
    if grey.shape == (preprocess.SIZE, preprocess.SIZE):
        return Single(grey, "a picture, taken as it is", None, False)
    side = max(grey.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = ((side - n) // 2 for n in grey.shape)
    square[top : top + grey.shape[0], left : left + grey.shape[1]] = grey
    size = "×".join(map(str, grey.shape[::-1]))
    return Single(preprocess.resize(square), f"a picture of {size}, resized: neither windowed nor cropped", None, False)


def _of_dicom(path: Path, header: read.MrObject) -> Single:
    try:
        planes = read.decode(str(path.parent), header)
    except Exception as error:  # as in dicom.read_header
        raise UserError(f"the pixels of {path} cannot be decoded: mend the file or name another") from error
    middle = len(planes) // 2
    frame = header.frames[middle]
    plan = preprocess.plan_series(planes, frame.spacing, [one.window for one in header.frames])
    what = f"an MR image, {frame.sequence or 'none of the three sequences'}, cropped around the {plan.found}"
    number = f", frame {middle + 1} of {len(planes)}" if len(planes) > 1 else ""
    return Single(preprocess.prepare_slice(planes[middle], plan), what + number, frame.sequence, header.phantom)
