"""Statistics of an array and of the difference of two, computed with NumPy, a million elements at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CHUNK = 2**20


class Measures(NamedTuple):
    """Statistics of the finite elements of an array.

    Attributes:
        mean: mean; NaN if there is no finite element.
        spread: standard deviation of the population; NaN if there is no finite element.
        norm: Euclidean norm.
        not_finite: number of elements that are NaN or infinite.
    """

    mean: float
    spread: float
    norm: float
    not_finite: int


class Difference(NamedTuple):
    """The distance of an array from another.

    Attributes:
        relative: norm of the difference over the other's norm; infinite if that is 0, NaN if neither norm is finite.
        largest: largest absolute difference.
    """

    relative: float
    largest: float


def measure(array: np.ndarray) -> Measures:
    """Measures an array of any shape and numeric type, bfloat16 included."""
    count, total, squares = 0, 0.0, 0.0
    for finite in _finite_chunks(array):
        count, total, squares = count + finite.size, total + float(finite.sum()), squares + float(finite @ finite)
    if not count:
        return Measures(float("nan"), float("nan"), 0.0, array.size)
    mean = total / count
    variance = sum(float(((finite - mean) ** 2).sum()) for finite in _finite_chunks(array)) / count
    return Measures(mean, variance**0.5, squares**0.5, array.size - count)


def difference(array: np.ndarray, other: np.ndarray) -> Difference:
    """Measures the difference of two arrays of the same shape."""
    assert array.shape == other.shape, (array.shape, other.shape)
    squares = norm = largest = 0.0
    for a, b in zip(_chunks(array), _chunks(other), strict=True):
        with np.errstate(invalid="ignore"):
            gap = np.abs(a - b)
        squares, norm = squares + float(gap @ gap), norm + float(b @ b)
        largest = float(np.max([largest, gap.max(initial=0.0)]))  # NaN stays
    if squares == 0:
        return Difference(0.0, largest)
    return Difference(float(np.sqrt(squares / norm)) if norm else float("inf"), largest)


def _chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yields flat pieces of an array as float64."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        yield flat[start : start + CHUNK].astype(np.float64)


def _finite_chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the finite elements of an array, in flat pieces as float64."""
    return (chunk[np.isfinite(chunk)] for chunk in _chunks(array))
