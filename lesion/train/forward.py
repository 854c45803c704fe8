"""A compiled function run over many rows in batches of one shape, some batches ahead of the one being fetched."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

AHEAD = 2  # batches a device is given before the first is fetched, so that it need not wait for the host

T = TypeVar("T")


def fetch_behind(
    started: Iterable[tuple[T, Any]], fetch: Callable[[Any], Any] = jax.device_get
) -> Iterator[tuple[T, Any]]:
    """Yields (tag, result on the host) for each started (tag, result), in order, while later ones are computed."""
    waiting: collections.deque[tuple[T, Any]] = collections.deque()
    for computation in started:
        waiting.append(computation)
        if len(waiting) > AHEAD:
            tag, result = waiting.popleft()
            yield tag, fetch(result)
    for tag, result in waiting:
        yield tag, fetch(result)


def over_rows(function: Callable[[np.ndarray], Any], rows: Sequence[int], batch_size: int) -> Iterator[tuple[Any, Any]]:
    """Yields (rows [b], tree of results [b, ...] on the host) of `function(rows [batch_size])`, batch by batch.

    The last batch is padded with copies of its last row, so that one compilation serves all.
    """

    def start() -> Iterator[tuple[np.ndarray, Any]]:
        for first in range(0, len(rows), batch_size):
            batch = np.asarray(rows[first : first + batch_size])
            yield batch, function(np.pad(batch, (0, batch_size - len(batch)), mode="edge"))

    for batch, result in fetch_behind(start()):
        count = len(batch)
        yield batch, jax.tree.map(lambda x, count=count: x[:count], result)
