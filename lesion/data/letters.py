"""Letters burned into the pixels, found by their look: names and dates that no header shows."""

import numpy as np
from scipy import ndimage


def find(image: np.ndarray) -> np.ndarray:
    """Letters drawn into the pixels: thin strokes of exactly the brightest value, three or more in a row.

    Noise keeps tissue from repeating its maximum; a drawn overlay repeats one value in every stroke. Saturated fat
    repeats it too, but is thick, or does not stand in a line of pieces of one height.

    Args:
        image: [rows, columns].

    Returns:
        bool [rows, columns], one pixel wider than the strokes.
    """
    drawn = repeats_maximum(image)
    if drawn is None:
        return np.zeros(image.shape, bool)
    pieces, _ = ndimage.label(drawn & ~ndimage.binary_opening(drawn, np.ones((6, 6))), np.ones((3, 3)))
    tall = max(8, image.shape[0] // 6)  # lines of text may touch each other
    small = [
        (number, rows.start, rows.stop, columns.start, columns.stop)
        for number, (rows, columns) in enumerate(ndimage.find_objects(pieces), start=1)
        if rows.stop - rows.start <= tall and columns.stop - columns.start <= 3 * tall
    ]
    words = [a for a in small if a[2] - a[1] >= 4 and sum(_letters_beside(a, b) for b in small) >= 3]
    # Dots, hats and broken strokes are small pieces beside a letter.
    keep = [piece[0] for piece in small if any(_letters_beside(word, piece) for word in words)]
    return ndimage.binary_dilation(np.isin(pieces, keep), np.ones((3, 3))) if keep else np.zeros(image.shape, bool)


def _letters_beside(letter: tuple[int, ...], other: tuple[int, ...]) -> float:
    """How many letters of this one's height a piece on the same line, at most two heights away, may hold; else 0.

    Pieces are (number, top, bottom, left, right); a piece stands beside itself.
    """
    height = letter[2] - letter[1]
    gap = max(other[3] - letter[4], letter[3] - other[4])
    if gap > 2 * height or other[2] < letter[1] - height / 4 or other[1] > letter[2] + height / 4:
        return 0.0
    return max(1.0 if other[2] - other[1] >= 4 else 0.25, (other[4] - other[3]) / height)


def repeats_maximum(image: np.ndarray) -> np.ndarray | None:
    """Where the image has its highest value, if that repeats as drawing does and noise does not; else None."""
    top = image == image.max()
    return top if 24 <= top.sum() <= image.size // 4 else None
