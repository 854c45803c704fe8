"""Batches for a step: picked on the device where all slices fit there, else streamed from the host by Grain."""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import grain
import jax
import numpy as np

from lesion.train.devices import Devices
from lesion.train.finetune import Data, Rows, take

SHARE = 0.4  # of a device's memory that the slices may take; the rest is the network's
PREFETCH = 4  # batches


class Plan(NamedTuple):
    """Which examples the steps take: `at` int32 [steps, total · B], and which of them are real, bool likewise."""

    at: np.ndarray
    real: np.ndarray


def plan(order: np.ndarray, batch_size: int, count: int) -> Plan:
    """Deals `order` int32 [M] to steps of `batch_size`, each padded so that `count` devices get equal shares."""
    num_steps, width = -(-len(order) // batch_size), -(-batch_size // count) * count
    at, real = np.zeros((num_steps, width), np.int32), np.zeros((num_steps, width), bool)
    for step in range(num_steps):
        part = order[step * batch_size : (step + 1) * batch_size]
        at[step, : len(part)], real[step, : len(part)] = part, True
    return Plan(at, real)


def fits_on_device(data: Data) -> bool:
    """Whether the slices take little enough of a device's memory, or of this machine's if that is the device."""
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return data.source.nbytes < SHARE * limit


class _Source:
    """What Grain reads, a batch at a time. `Rows` of this machine's devices, and their mask."""

    def __init__(self, data: Data, copies: int, todo: Plan, devices: Devices) -> None:
        self._data, self._copies, self._todo, self._devices = data, copies, todo, devices

    def __len__(self) -> int:
        return len(self._todo.at)

    def __getitem__(self, step: int) -> tuple[Rows, np.ndarray]:
        at, real = self._devices.split((self._todo.at[step], self._todo.real[step]))
        rows = take(self._data, at.reshape(-1), self._copies)
        return jax.tree.map(lambda x: x.reshape(*at.shape, *x.shape[1:]), rows), real


def batches(data: Data, copies: int, todo: Plan, devices: Devices, streamed: bool) -> Iterator[tuple[Any, np.ndarray]]:
    """Yields for every step this machine's share: (indices or, streamed, `Rows`; mask), by device if there are several.

    Args:
        data: on the host; read only if streamed.
        copies: examples a slice.
        todo: see `plan`.
        devices: which share them.
        streamed: whether rows are gathered here, by threads that keep some batches ahead.
    """
    if not streamed:
        yield from (devices.split((at, real)) for at, real in zip(*todo, strict=True))
    elif len(todo.at):
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=PREFETCH)
        yield from grain.MapDataset.source(_Source(data, copies, todo, devices)).to_iter_dataset(options)
