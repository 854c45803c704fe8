"""From slices to the inputs of a step: which examples a batch takes, where they lie, augmentation, frozen stages.

Batches are picked on the device where all slices fit there; else Grain streams them from the host.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lesion.train import augment
from lesion.train.devices import Devices

DEVICE_SHARE = 0.4  # of a device's memory that the slices may take; the rest is the network's
PREFETCH = 4  # batches


class SliceData(NamedTuple):
    """N slices, wherever they lie: NumPy, a memory map, or a device.

    Attributes:
        source: pictures uint8 [N, S, S]; or activations [N, 1 + copies, ...] of a stage, computed before.
        id_hash: uint32 [N], of the slice's id: its augmentation depends on it and not on its position.
        label: int32 [N].
    """

    source: Any
    id_hash: Any
    label: Any


class ExampleBatch(NamedTuple):
    """Examples before they are augmented.

    Attributes:
        source: [B, ...], of `SliceData.source`.
        id_hash: uint32 [B].
        label: int32 [B].
        copy: int32 [B], 0 for the slice itself.
    """

    source: Any
    id_hash: Any
    label: Any
    copy: Any


InputsOf = Callable[[Any, ExampleBatch, jax.Array], jax.Array]  # (frozen variables, examples, epoch) -> [B, ...]


class StepIndex(NamedTuple):
    """Which step of training it is: int32 [] each."""

    epoch: Any
    step: Any
    num_steps: Any


def take_examples(data: SliceData, index: Any, copies: int) -> ExampleBatch:
    """Takes examples `index` int32 [B] of the N · `copies` there are: slice by slice, copy by copy."""
    row, copy = index // copies, index % copies
    source = data.source[row] if data.source.ndim == 3 else data.source[row, copy]
    return ExampleBatch(source, data.id_hash[row], data.label[row], copy)


def picture_inputs(
    model: nn.Module,
    preprocess: Callable[[jax.Array], jax.Array],
    *,
    stop: str | None,
    seed: int,
    fresh: bool,
    dtype: Any,
) -> InputsOf:
    """Builds `inputs_of(frozen_variables, examples, epoch) -> [B, ...]`: augments, preprocesses, runs frozen stages.

    Args:
        model: a backbone.
        preprocess: uint8 [B, S, S] to float32 [B, H, W, C].
        stop: the last frozen stage; None where all stages are trained.
        seed: of the augmentation.
        fresh: whether every epoch draws its copies anew.
        dtype: of the arithmetic.
    """

    def inputs_of(frozen_variables: Any, examples: ExampleBatch, epoch: jax.Array) -> jax.Array:
        assert examples.source.ndim == 3, examples.source.shape
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), examples.id_hash)
        if fresh:
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, epoch)
        # One at a time, so that only the operation drawn is computed and not all six; none where all are the slices
        # themselves, as in prediction.
        image = jax.lax.cond(
            jnp.any(examples.copy > 0),
            lambda: jax.lax.map(lambda x: augment.augment(*x), (keys, examples.source, examples.copy)),
            lambda: examples.source,
        )
        x = preprocess(image).astype(dtype)
        if stop is not None:
            x = jax.lax.stop_gradient(model.apply(frozen_variables, x, stop=stop))  # type: ignore[assignment]
        return x

    return inputs_of


def activation_inputs(frozen_variables: Any, examples: ExampleBatch, epoch: jax.Array) -> jax.Array:
    """Returns activations that were computed before as they are; used in the place of `picture_inputs`."""
    del frozen_variables, epoch
    return examples.source


class BatchPlan(NamedTuple):
    """Which examples the steps take, int32 [steps, num_devices · B], and `mask`, bool, false for padding."""

    examples: np.ndarray
    mask: np.ndarray


def plan_batches(order: np.ndarray, batch_size: int, num_devices: int) -> BatchPlan:
    """Deals `order` int32 [M] to steps of `batch_size`, each padded so that the devices get equal shares."""
    num_steps, width = -(-len(order) // batch_size), -(-batch_size // num_devices) * num_devices
    examples, mask = np.zeros((num_steps, width), np.int32), np.zeros((num_steps, width), bool)
    for step in range(num_steps):
        part = order[step * batch_size : (step + 1) * batch_size]
        examples[step, : len(part)], mask[step, : len(part)] = part, True
    return BatchPlan(examples, mask)


def fits_on_device(data: SliceData) -> bool:
    """Returns whether the slices take little enough of a device's memory, or of this machine's on CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return data.source.nbytes < DEVICE_SHARE * limit


class _BatchSource:
    """What Grain reads, a step an item: `ExampleBatch` of this machine's devices, and their mask."""

    def __init__(self, data: SliceData, copies: int, plan: BatchPlan, devices: Devices) -> None:
        self._data, self._copies, self._plan, self._devices = data, copies, plan, devices

    def __len__(self) -> int:
        return len(self._plan.examples)

    def __getitem__(self, step: int) -> tuple[ExampleBatch, np.ndarray]:
        index, mask = self._devices.split((self._plan.examples[step], self._plan.mask[step]))
        examples = take_examples(self._data, index.reshape(-1), self._copies)
        return jax.tree.map(lambda x: x.reshape(*index.shape, *x.shape[1:]), examples), mask


def batches(
    data: SliceData, copies: int, plan: BatchPlan, devices: Devices, streamed: bool
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yields for every step this machine's share: (indices or, streamed, `ExampleBatch`; mask), by device if several.

    Args:
        data: on the host; read only if streamed.
        copies: examples a slice.
        plan: see `plan_batches`.
        devices: which share them.
        streamed: whether examples are gathered here, by threads that keep some batches ahead.
    """
    if not streamed:
        yield from (devices.split((index, mask)) for index, mask in zip(*plan, strict=True))
    elif len(plan.examples):
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=PREFETCH)
        yield from grain.MapDataset.source(_BatchSource(data, copies, plan, devices)).to_iter_dataset(options)
