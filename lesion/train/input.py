"""From slices to the inputs of a training step: batches of examples, augmentation, frozen stages.

Batches are gathered on the device if all slices fit there; else Grain streams them from the host.
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

DEVICE_SHARE = 0.4  # share of a device's memory that the slices may take; the network needs the rest
PREFETCH = 4  # number of batches


class SliceData(NamedTuple):
    """N slices, as NumPy arrays, memory maps or arrays on a device.

    Attributes:
        source: pictures uint8 [N, S, S]; or a stage's activations [N, 1 + copies, ...], computed beforehand.
        id_hash: hash of each slice's id, uint32 [N]; a slice's augmentation depends on it, not on its position.
        label: int32 [N].
    """

    source: Any
    id_hash: Any
    label: Any


class ExampleBatch(NamedTuple):
    """B examples before augmentation.

    Attributes:
        source: pictures uint8 [B, S, S] or activations [B, ...], see `SliceData`.
        id_hash: hash of the slice's id, uint32 [B].
        label: int32 [B].
        copy: index of the augmented copy, int32 [B]; 0 for the slice itself.
    """

    source: Any
    id_hash: Any
    label: Any
    copy: Any


InputsOf = Callable[[Any, ExampleBatch, jax.Array], jax.Array]  # (frozen variables, examples, epoch) -> [B, ...]


class StepIndex(NamedTuple):
    """A step's position in training: its epoch, its index in it, and the number of steps in an epoch; int32 [] each."""

    epoch: Any
    step: Any
    num_steps: Any


def take_examples(data: SliceData, index: Any, copies: int) -> ExampleBatch:
    """Returns examples `index` int32 [B] of the N · `copies`, which are ordered slice by slice, copy by copy."""
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
        model: backbone that has the frozen stages.
        preprocess: function of pictures uint8 [B, S, S] that returns float32 [B, H, W, C].
        stop: name of the last frozen stage; None if all stages are trained.
        seed: seed of the augmentation.
        fresh: whether the copies are drawn anew in every epoch.
        dtype: data type of the arithmetic.
    """

    def inputs_of(frozen_variables: Any, examples: ExampleBatch, epoch: jax.Array) -> jax.Array:
        assert examples.source.ndim == 3, examples.source.shape
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), examples.id_hash)
        if fresh:
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, epoch)
        # One picture at a time: under `vmap` the switch would compute all six operations for each. Skipped if all
        # examples are the slices themselves, as in prediction.
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
    """Returns the examples' activations, computed beforehand; an `InputsOf` like that of `picture_inputs`."""
    del frozen_variables, epoch
    return examples.source


class BatchPlan(NamedTuple):
    """The indices of each step's examples, int32 [steps, num_devices · B], and a mask that is false for padding."""

    examples: np.ndarray
    mask: np.ndarray


def plan_batches(order: np.ndarray, batch_size: int, num_devices: int) -> BatchPlan:
    """Divides `order` int32 [M] into steps of `batch_size`, padded to equal shares for the devices."""
    num_steps, width = -(-len(order) // batch_size), -(-batch_size // num_devices) * num_devices
    examples, mask = np.zeros((num_steps, width), np.int32), np.zeros((num_steps, width), bool)
    for step in range(num_steps):
        part = order[step * batch_size : (step + 1) * batch_size]
        examples[step, : len(part)], mask[step, : len(part)] = part, True
    return BatchPlan(examples, mask)


def fits_on_device(data: SliceData) -> bool:
    """Returns whether the slices take less than `DEVICE_SHARE` of a device's memory, on CPU of the machine's."""
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return data.source.nbytes < DEVICE_SHARE * limit


class _BatchSource:
    """A random-access source for Grain: item i is this machine's `ExampleBatch` and mask of step i."""

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
    """Yields (examples, mask) of every step, this machine's share, with a leading axis of devices if there are several.

    Args:
        data: slices on the host; read only if streamed.
        copies: number of examples of each slice.
        plan: see `plan_batches`.
        devices: devices that share each batch.
        streamed: whether the examples are `ExampleBatch`es, gathered by threads ahead of time, and not only indices.
    """
    if not streamed:
        yield from (devices.split((index, mask)) for index, mask in zip(*plan, strict=True))
    elif len(plan.examples):
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=PREFETCH)
        yield from grain.MapDataset.source(_BatchSource(data, copies, plan, devices)).to_iter_dataset(options)
