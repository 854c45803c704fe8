"""Finds letters burned into the pixels by their look: names and dates that no header shows."""

import numpy as np
from scipy import ndimage

STROKE_SHARE = 0.4  # of the way from its surroundings to the maximum: what a smoothed stroke's pixel has at least


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
