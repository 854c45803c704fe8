"""What is told of an array, and of the difference of two: NumPy, a million elements at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CHUNK = 2**20


class Measures(NamedTuple):
    """Of the finite elements of an array.

    Attributes:
        mean: their mean; NaN if there is none.
        spread: their standard deviation, divided by their number.
        norm: their Euclidean norm.
        not_finite: how many are NaN or infinite.
    """

    mean: float
    spread: float
    norm: float
    not_finite: int


class Difference(NamedTuple):
    """Of one array from another.

    Attributes:
        relative: norm of the difference over the other's norm; infinite where that is 0, NaN where neither is finite.
        largest: the largest absolute difference.
    """

    relative: float
    largest: float


def measure(array: np.ndarray) -> Measures:
    """Measures an array of any shape and any numeric type, bfloat16 too."""
    count, total, bad = 0, 0.0, 0
    for part in _parts(array):
        fine = part[np.isfinite(part)]
        count, total, bad = count + fine.size, total + float(fine.sum()), bad + part.size - fine.size
    mean = total / count if count else float("nan")
    squares = centred = 0.0
    for part in _parts(array):
        fine = part[np.isfinite(part)]
        squares, centred = squares + float(fine @ fine), centred + float(((fine - mean) ** 2).sum())
    return Measures(mean, (centred / count) ** 0.5 if count else float("nan"), squares**0.5, bad)


def differ(array: np.ndarray, other: np.ndarray) -> Difference:
    """The difference of two arrays of one shape."""
    assert array.shape == other.shape, (array.shape, other.shape)
    squares = norm = largest = 0.0
    for a, b in zip(_parts(array), _parts(other), strict=True):
        with np.errstate(invalid="ignore"):
            gap = np.abs(a - b)
        squares, norm = squares + float(gap @ gap), norm + float(b @ b)
        largest = float(np.max([largest, gap.max(initial=0.0)]))  # NaN stays
    if squares == 0:
        return Difference(0.0, largest)
    return Difference(float(np.sqrt(squares / norm)) if norm else float("inf"), largest)


def _parts(array: np.ndarray) -> Iterator[np.ndarray]:
    """Pieces of an array, flat, float64."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        yield flat[start : start + CHUNK].astype(np.float64)
