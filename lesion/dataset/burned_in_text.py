"""Finds letters burned into the pixels: names and dates that no header shows.

`find` goes by the look of white strokes and costs nothing; `read` reads the picture (OCR, the extra `lesion[ocr]`),
also what is grey, half transparent or set in Chinese.
"""

import functools
import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from lesion.errors import UserError

STROKE_SHARE = 0.4  # of the way from its surroundings to the maximum: what a smoothed stroke's pixel has at least
FAINTEST = 0.1  # of a line's highest contrast: a stroke has at least that
READ_SIDE = 512  # pixels of the longer side of a slice when it is read; 736 costs twice as much and finds no more
MIN_SCORE = 0.5  # of a line's recognition, from which on it counts as text
MIN_LETTERS = 2  # of a line; a head, an eye or a ventricle is read as "0"


class Line(NamedTuple):
    """A line of text: its corners, float [4, 2], x and y in pixels, and how sure the reader is of it, 0 to 1."""

    corners: np.ndarray
    score: float


def find(image: np.ndarray) -> np.ndarray:
    """Finds letters drawn into the pixels: thin strokes of the brightest value, three or more in a row.

    Noise keeps tissue from repeating its maximum; a drawn overlay repeats one value in every stroke, and where its
    edges are smoothed, stands out beside such pixels. Saturated fat repeats it too, but is thick, or does not stand in
    a line of pieces of one height.

    Args:
        image: [rows, columns].

    Returns:
        bool [rows, columns], one pixel wider than the strokes.
    """
    assert image.ndim == 2, image.shape
    drawn = repeats_maximum(image)
    if drawn is None:
        return np.zeros(image.shape, bool)
    # Smoothed strokes fall apart at their maximum: joined by what stands out against its surroundings beside it.
    background = ndimage.grey_opening(image, size=(9, 9))
    bright = image - background > STROKE_SHARE * (image.max() - background)
    drawn = drawn | (bright & _dilate(drawn, 7))
    thick = _open(drawn, 6)
    pieces, count = ndimage.label(drawn & ~thick, np.ones((3, 3)))
    if not count:
        return np.zeros(image.shape, bool)
    boxes = [(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in ndimage.find_objects(pieces)]
    top, bottom, left, right = np.array(boxes).T
    tallest = max(8, image.shape[0] // 6)  # lines of text may touch each other
    small = (bottom - top <= tallest) & (right - left <= 3 * tallest)
    # beside[a, b]: piece b stands on the line of a, at most two of a's heights away; a piece stands beside itself.
    height = (bottom - top)[:, None]
    gap = np.maximum(left - right[:, None], left[:, None] - right)
    overlap = (bottom >= top[:, None] - height / 4) & (top <= bottom[:, None] + height / 4)
    beside = (gap <= 2 * height) & overlap & small & small[:, None]
    # How many letters of a's height b may hold: letters grow together.
    letters = np.maximum(np.where(bottom - top >= 4, 1.0, 0.25), (right - left) / height)
    words = (height[:, 0] >= 4) & ((beside * letters).sum(axis=1) >= 3)
    # Dots, hats and broken strokes are small pieces beside a letter.
    kept = np.concatenate([[False], beside[words].any(axis=0)])
    mask = kept[pieces]
    # On the line of a word nothing else is so bright: what is left of smoothed letters.
    for word in np.flatnonzero(words):
        reach = 2 * (bottom[word] - top[word])
        line = (
            slice(max(0, top[word] - 2), bottom[word] + 2),
            slice(max(0, left[word] - reach), right[word] + reach),
        )
        mask[line] |= bright[line]
    return _dilate(mask, 3)


def has_reader() -> bool:
    """Returns whether the packages that `read` needs are installed."""
    return all(importlib.util.find_spec(name) for name in ("rapidocr", "onnxruntime"))


def check_reader() -> None:
    """Raises a UserError, which names the extra, if `read` cannot be called."""
    if not has_reader():
        raise UserError(
            "pictures and 8-bit or secondary-capture images may hold text, and what reads it is not installed: "
            "pip install 'lesion[ocr]', or go on without with --noocr (grey text over the head then stays)"
        )


def read(image: np.ndarray) -> list[Line]:
    """Reads lines of text of any colour, about 0.2 s of one core a slice.

    Args:
        image: float or integer [rows, columns].
    """
    assert image.ndim == 2, image.shape
    low, high = np.percentile(image, (0, 99.9))
    if high <= low:
        return []
    grey = Image.fromarray((np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8))
    scale = READ_SIDE / max(grey.size)
    # Always of one size, so that neither time nor memory depends on the picture.
    canvas = Image.new("L", (READ_SIDE, READ_SIDE))
    width, height = (max(1, round(length * scale)) for length in grey.size)
    canvas.paste(grey.resize((width, height), Image.Resampling.BICUBIC))
    result = _reader()(np.asarray(canvas.convert("RGB")))
    if getattr(result, "txts", None) is None:  # nothing found, or nothing read
        return []
    found = zip(result.boxes / scale, result.txts, result.scores, strict=True)
    lines = [Line(corners, float(score)) for corners, text, score in found if len(text.strip()) >= MIN_LETTERS]
    return [line for line in lines if _height(line) <= max(image.shape) / 5]


def strokes(image: np.ndarray, lines: Sequence[Line], head: np.ndarray) -> np.ndarray:
    """Returns the strokes of lines of text, and a pixel around them; of a line beside the head, all of it.

    A stroke differs from the median of a square as high as the line, of which letters fill less than half.

    Args:
        image: [rows, columns].
        lines: as `read` gives them.
        head: bool [rows, columns].

    Returns:
        bool [rows, columns].
    """
    assert image.ndim == 2 and image.shape == head.shape, (image.shape, head.shape)
    mask = np.zeros(image.shape, bool)
    for line in lines:
        drawn = Image.new("1", image.shape[::-1])
        ImageDraw.Draw(drawn).polygon([tuple(corner) for corner in line.corners.tolist()], fill=1)
        inside = _dilate(np.asarray(drawn), 3)
        if not (inside & head).any():
            mask |= inside
            continue
        height = round(_height(line))
        sides = ndimage.find_objects(inside.astype(np.uint8))[0]
        around = tuple(slice(max(0, side.start - height), side.stop + height) for side in sides)
        part = image[around]
        # Of every other pixel: 16 times as fast.
        median = ndimage.median_filter(part[::2, ::2], max(3, round(0.6 * height) | 1))
        contrast = np.abs(part - median.repeat(2, 0).repeat(2, 1)[: part.shape[0], : part.shape[1]])
        # A line may begin over air and end over bright tissue: each letter is measured beside its neighbours.
        nearby = ndimage.maximum_filter(np.where(inside[around], contrast, 0), 2 * (height // 2) + 1)
        least = FAINTEST * np.percentile(contrast[inside[around]], 95)
        stroke = inside[around] & (contrast > np.maximum(STROKE_SHARE * nearby, least))
        mask[around] |= _dilate(stroke, 3)
    return mask


def _height(line: Line) -> float:
    """Returns the shorter side of a line, pixels."""
    first, second, third, _ = line.corners
    return float(min(np.hypot(*(second - first)), np.hypot(*(third - second))))


@functools.cache
def _reader() -> Any:
    """Returns RapidOCR with the models of its wheel, on one thread: each worker process has its own."""
    import cv2  # slow to import, as is RapidOCR, and an extra
    from rapidocr import RapidOCR

    cv2.setNumThreads(1)
    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    # Its log would repeat what it reads; turned letters are not looked for (`use_cls`).
    options = {"Global.log_level": "critical", "Global.use_cls": False, "Global.text_score": 0.0}
    return RapidOCR(params={**options, **threads, "Det.limit_side_len": READ_SIDE})


def repeats_maximum(image: np.ndarray) -> np.ndarray | None:
    """Returns where the image has its highest value, if that repeats as drawing does and noise does not; else None."""
    brightest = image == image.max()
    return brightest if 24 <= brightest.sum() <= image.size // 4 else None


def _dilate(mask: np.ndarray, size: int) -> np.ndarray:
    """Dilates by a square of odd `size`; a maximum filter is faster than binary morphology."""
    return ndimage.maximum_filter(mask, size, mode="constant", cval=False)


def _open(mask: np.ndarray, size: int) -> np.ndarray:
    """Keeps what holds a square of even `size`; what is cut off by the lower or the right border may go on there."""
    eroded = ndimage.minimum_filter(mask, size, mode="constant", cval=True, origin=-(size // 2))
    return ndimage.maximum_filter(eroded, size, mode="constant", cval=False, origin=size // 2 - 1)
