"""What all fits on one dataset share: the compiled steps, the slices, and prediction with them."""

import collections
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lesion.train import feed, finetune, recipe
from lesion.train.devices import Devices
from lesion.train.network import Network
from lesion.train.state import TrainState, create

AHEAD = 2  # batches that a device is given before the first is fetched: it need not wait for us


class Engine(NamedTuple):
    """What all fits on one dataset share.

    Attributes:
        devices: where steps run.
        train: compiled (key, state, constants, data, batch, mask, clock, class_weight) -> (state, info).
        evaluate: compiled (state, constants, data, batch) -> probabilities [total · B, 2].
        look: (part) -> compiled (key, state, constants, data, batch) -> [total · B, ...], see `finetune.look_program`.
        begin: (key) -> state, on the host.
        restart: (state) -> the same weights, the optimizer anew, on the host.
        recipe: how to train.
        constants: variables of the frozen stages, on the devices.
        data: on the host, all labels hidden.
        on_device: the same on the devices, or () if it is streamed.
        copies: examples a slice.
        slice_id: str [N], to name those of a batch that fails.
    """

    devices: Devices
    train: Callable
    evaluate: Callable
    look: Callable[[str], Callable]
    begin: Callable[[jax.Array], TrainState]
    restart: Callable[[TrainState], TrainState]
    recipe: recipe.Recipe
    constants: Any
    data: finetune.Data
    on_device: Any
    copies: int
    slice_id: np.ndarray

    @property
    def streamed(self) -> bool:
        """Whether batches come from the host."""
        return self.on_device == ()

    def with_labels(self, label: np.ndarray) -> "Engine":
        """The engine that is shown `label` int32 [N], -1 where it is not to know."""
        data = self.data._replace(label=label.astype(np.int32))
        if self.streamed:
            return self._replace(data=data)
        return self._replace(data=data, on_device=self.on_device._replace(label=self.devices.replicate(data.label)))


def build(
    devices: Devices,
    network: Network,
    prepare: Callable,
    how: recipe.Recipe,
    constants: Any,
    data: finetune.Data,
    copies: int,
    slice_id: np.ndarray,
    streamed: bool,
    num_samples: int = 10,
) -> Engine:
    """Compiles when first called, once for all fits; see `Engine`, `finetune.train_program` and `look_program`."""
    tx = recipe.optimizer(how)
    train = finetune.train_program(prepare, network, tx, how, devices.axis_name)
    evaluate = finetune.eval_program(prepare, network, devices.axis_name)
    data = data._replace(label=np.full(len(data.word), -1, np.int32))

    def rows(data: Any, batch: Any) -> finetune.Rows:
        return batch if streamed else finetune.take(data, batch, copies)

    def train_on(key, state, constants, data, batch, mask, clock, class_weight):
        return train(key, state, constants, rows(data, batch), mask, clock, class_weight)

    def evaluate_on(state, constants, data, batch):
        return evaluate(state, constants, rows(data, batch))

    @functools.cache
    def look(part: str) -> Callable:
        program = finetune.look_program(prepare, network, devices.axis_name, part, num_samples)

        def look_at(key, state, constants, data, batch):
            return program(key, state, constants, rows(data, batch))

        return devices.compile(look_at, "brrrs")

    def restart(state: TrainState) -> TrainState:
        return jax.device_get(create(state.params, state.batch_stats, tx))

    def begin(key: jax.Array) -> TrainState:
        one = finetune.take(data, np.zeros(1, np.int32), copies)
        inputs = jax.eval_shape(prepare, constants, one, jnp.int32(0))
        return jax.device_get(create(*network.init(key, inputs), tx))

    return Engine(
        devices,
        devices.compile(train_on, "brrrssbb", donate=[1]),
        devices.compile(evaluate_on, "rrrs"),
        look,
        begin,
        restart,
        how,
        devices.replicate(constants),
        data,
        () if streamed else devices.replicate(data),
        copies,
        slice_id,
    )


def predict(engine: Engine, state: TrainState, which: np.ndarray | None = None) -> np.ndarray:
    """Probabilities of both classes, float32 [N, 2]; of the slices `which` [N] bool only, NaN elsewhere, if given."""
    return predict_on_devices(engine, engine.devices.replicate(state), which)


def predict_on_devices(engine: Engine, state: Any, which: np.ndarray | None, copy: int = 0) -> np.ndarray:
    """`predict` with a state that is on the devices already; of augmented copy `copy`, 0 is the slice itself."""

    def call(batch: Any) -> Any:
        return engine.evaluate(state, engine.constants, engine.on_device, batch)

    return _of_slices(engine, call, which, copy)


def look_on_devices(engine: Engine, state: Any, part: str, key: jax.Array, which: np.ndarray | None) -> np.ndarray:
    """What active labelling may ask of slices `which` [N], see `Learner.look`: [N, ...], NaN elsewhere."""
    if part == "copies":
        copies = [predict_on_devices(engine, state, which, copy) for copy in range(engine.copies)]
        return np.stack(copies, axis=1)
    program = engine.look(part)
    return _of_slices(engine, lambda batch: program(key, state, engine.constants, engine.on_device, batch), which, 0)


def _of_slices(engine: Engine, call: Callable, which: np.ndarray | None, copy: int) -> np.ndarray:
    """Runs `call(batch)` over slices: its rows, [N, ...]; NaN for those that were not asked for."""
    n = len(engine.data.label)
    chosen = np.arange(n) if which is None else np.flatnonzero(which)
    at_copy = (chosen * engine.copies + copy).astype(np.int32)
    todo = feed.plan(at_copy, engine.recipe.batch_size, engine.devices.total)
    out: np.ndarray | None = None
    batches = feed.batches(engine.data, engine.copies, todo, engine.devices, engine.streamed)
    waiting: collections.deque[tuple[np.ndarray, np.ndarray, Any]] = collections.deque()

    def fetch() -> np.ndarray:
        at, real, on_device = waiting.popleft()
        found = engine.devices.fetch(on_device)
        into = np.full((n, *found.shape[1:]), np.nan, np.float32) if out is None else out
        into[at[real] // engine.copies] = found[real]
        return into

    for at, real, (batch, _) in zip(*todo, batches, strict=True):
        waiting.append((at, real, call(batch)))
        if len(waiting) > AHEAD:
            out = fetch()
    while waiting:
        out = fetch()
    return np.full((n, 2), np.nan, np.float32) if out is None else out
