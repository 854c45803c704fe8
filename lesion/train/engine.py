"""What all fits on one dataset share: the compiled steps, the slices, and prediction with them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lesion.train import feed, finetune, recipe
from lesion.train.devices import Devices
from lesion.train.network import Network
from lesion.train.state import TrainState, create


class Engine(NamedTuple):
    """What all fits on one dataset share.

    Attributes:
        devices: where steps run.
        train: compiled (key, state, constants, data, batch, mask, clock, class_weight) -> (state, info).
        evaluate: compiled (state, constants, data, batch) -> probabilities [total · B, 2].
        begin: (key) -> state, on the host.
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
    begin: Callable[[jax.Array], TrainState]
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
) -> Engine:
    """Compiles when first called, once for all fits; see `Engine` and `finetune.train_program`."""
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

    def begin(key: jax.Array) -> TrainState:
        one = finetune.take(data, np.zeros(1, np.int32), copies)
        inputs = jax.eval_shape(prepare, constants, one, jnp.int32(0))
        return jax.device_get(create(*network.init(key, inputs), tx))

    return Engine(
        devices,
        devices.compile(train_on, "brrrssbb", donate=[1]),
        devices.compile(evaluate_on, "rrrs"),
        begin,
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


def predict_on_devices(engine: Engine, state: Any, which: np.ndarray | None) -> np.ndarray:
    """`predict` with a state that is on the devices already."""
    n = len(engine.data.label)
    chosen = np.arange(n) if which is None else np.flatnonzero(which)
    todo = feed.plan((chosen * engine.copies).astype(np.int32), engine.recipe.batch_size, engine.devices.total)
    out = np.full((n, 2), np.nan, np.float32)
    batches = feed.batches(engine.data, engine.copies, todo, engine.devices, engine.streamed)
    for at, real, (batch, _) in zip(*todo, batches, strict=True):
        probs = engine.devices.fetch(engine.evaluate(state, engine.constants, engine.on_device, batch))
        out[at[real] // engine.copies] = probs[real]
    return out
