"""The training loop, for fine-tuning and for training from random weights, by compiled steps.

All fits on one dataset share a `Trainer`: the compiled steps and the slices. `fit` is the loop over epochs, with
checkpoints, progress and stopping. `predict` and `pool_outputs` apply a trained state to the slices.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lesion.errors import Interrupted
from lesion.runs import resume
from lesion.runs.processes import StopSignal
from lesion.train import input as inputs
from lesion.train import step as steps
from lesion.train.devices import Devices
from lesion.train.epoch import (
    BestEpoch,
    epoch_keys,
    epoch_order,
    example_keys,
    is_over,
    not_finite_error,
    training_scalars,
    validation_not_finite_error,
    validation_scalars,
)
from lesion.train.forward import fetch_behind
from lesion.train.input import BatchPlan, ExampleBatch, SliceData, StepIndex
from lesion.train.monitor import Monitor
from lesion.train.network import Network
from lesion.train.step import Recipe, TrainState

FETCH_EVERY = 8  # number of steps after which losses are fetched, which waits for the device


class Trainer(NamedTuple):
    """The compiled steps and the data that all fits on one dataset share.

    Attributes:
        devices: devices that the steps run on.
        train_step: compiled (key, state, frozen_variables, data, batch, mask, index, class_weight) -> (state, info).
        eval_step: compiled (state, frozen_variables, data, batch) -> probabilities [num_devices · B, 2].
        output_step: (name) -> compiled (key, state, frozen_variables, data, batch) -> [num_devices · B, ...], for the
            outputs `embedding` and `mc_probs` of `frozen.Learner.pool_outputs`.
        init: (key) -> state on the host.
        restart: (state) -> state on the host with the same weights and a new optimizer state.
        recipe: how to train.
        frozen_variables: variables of the frozen stages, on the devices.
        data: slices on the host; all labels hidden until `with_labels`.
        data_on_devices: the same slices on the devices; () if they are streamed.
        copies: number of examples of each slice: itself and its augmented copies.
        slice_id: str [N], for error messages.
    """

    devices: Devices
    train_step: Callable
    eval_step: Callable
    output_step: Callable[[str], Callable]
    init: Callable[[jax.Array], TrainState]
    restart: Callable[[TrainState], TrainState]
    recipe: Recipe
    frozen_variables: Any
    data: SliceData
    data_on_devices: Any
    copies: int
    slice_id: np.ndarray

    @property
    def is_streamed(self) -> bool:
        """Whether batches are streamed from the host."""
        return self.data_on_devices == ()

    def with_labels(self, label: np.ndarray) -> "Trainer":
        """Returns the trainer with labels int32 [N], -1 where they are hidden."""
        data = self.data._replace(label=label.astype(np.int32))
        if self.is_streamed:
            return self._replace(data=data)
        on_devices = self.data_on_devices._replace(label=self.devices.replicate(data.label))
        return self._replace(data=data, data_on_devices=on_devices)


def make_trainer(
    devices: Devices,
    network: Network,
    inputs_of: inputs.InputsOf,
    recipe: Recipe,
    data: SliceData,
    *,
    variables: Mapping[str, Any],
    head_params: Mapping[str, Any] | None = None,
    frozen_variables: Any,
    copies: int,
    slice_id: np.ndarray,
    streamed: bool,
    num_samples: int = 10,
) -> Trainer:
    """Builds a trainer; each step is compiled when it is first called, once for all fits.

    Args:
        devices: devices that the steps run on.
        network: network to train.
        inputs_of: function that makes the network's inputs, see `input.picture_inputs`.
        recipe: how to train.
        data: N slices; their labels are ignored.
        variables: initial variables of the backbone's trained stages.
        head_params: see `Network.init`.
        frozen_variables: variables of the frozen stages.
        copies: number of examples of each slice: itself and its augmented copies.
        slice_id: str [N].
        streamed: whether batches are streamed from the host.
        num_samples: number of samples with dropout in `mc_probs`.
    """
    tx, axis_name = steps.optimizer(recipe), devices.axis_name
    data = data._replace(label=np.full(len(data.id_hash), -1, np.int32))
    first_epoch = jnp.int32(0)

    def examples_of(data: Any, batch: Any) -> ExampleBatch:
        return batch if streamed else inputs.take_examples(data, batch, copies)

    def of_all_devices(x: jax.Array) -> jax.Array:
        return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)

    def train_step(key, state, frozen_variables, data, batch, mask, index, class_weight):
        examples = examples_of(data, batch)
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(mask)
        keys = example_keys(jax.random.fold_in(key, index.step), first, len(mask))
        step_batch = steps.Batch(inputs_of(frozen_variables, examples, index.epoch), examples.label, mask)
        state = steps.with_learning_rate(state, steps.learning_rate(recipe, *index))
        objective = steps.Objective(class_weight, recipe.label_smoothing)
        state, info = steps.train_step(
            keys,
            state,
            step_batch,
            network=network,
            tx=tx,
            objective=objective,
            batch_size=recipe.batch_size,
            axis_name=axis_name,
        )
        return state, info | {"logit": of_all_devices(info["logit"])}

    def eval_step(state, frozen_variables, data, batch):
        x = inputs_of(frozen_variables, examples_of(data, batch), first_epoch)
        return of_all_devices(steps.eval_step(state, x, network=network))

    def embedding(key, state, frozen_variables, data, batch):
        del key
        x = inputs_of(frozen_variables, examples_of(data, batch), first_epoch)
        return of_all_devices(network.embed(state.params, state.batch_stats, x))

    def mc_probs(key, state, frozen_variables, data, batch):
        examples = examples_of(data, batch)
        x = inputs_of(frozen_variables, examples, first_epoch)
        # A slice's samples depend on its id, not on its position.
        slice_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, examples.id_hash)
        fold_in_all = jax.vmap(jax.random.fold_in, (0, None))
        keys = jax.vmap(lambda sample: fold_in_all(slice_keys, sample))(jnp.arange(num_samples))
        variables = state.params, state.batch_stats
        logit = jax.vmap(lambda keys: network.sample(*variables, x, keys))(keys)  # the backbone is computed once
        return of_all_devices(steps.probabilities(logit.T))

    @functools.cache
    def output_step(name: str) -> Callable:
        return devices.compile({"embedding": embedding, "mc_probs": mc_probs}[name], "brrrs")

    def init(key: jax.Array) -> TrainState:
        example = inputs.take_examples(data, np.zeros(1, np.int32), copies)
        shapes = jax.eval_shape(inputs_of, frozen_variables, example, first_epoch)
        return jax.device_get(steps.create_state(*network.init(key, shapes, variables, head_params), tx))

    def restart(state: TrainState) -> TrainState:
        return jax.device_get(steps.create_state(state.params, state.batch_stats, tx))

    return Trainer(
        devices=devices,
        train_step=devices.compile(train_step, "brrrssbb", donate=[1]),
        eval_step=devices.compile(eval_step, "rrrs"),
        output_step=output_step,
        init=init,
        restart=restart,
        recipe=recipe,
        frozen_variables=devices.replicate(frozen_variables),
        data=data,
        data_on_devices=() if streamed else devices.replicate(data),
        copies=copies,
        slice_id=slice_id,
    )


class Hooks(NamedTuple):
    """Objects that `fit` uses beside training, None for none.

    Attributes:
        checkpointer: saves every `checkpoint_every` epochs and before an interruption.
        stop: stop signal, checked after every step.
        monitor: shows progress.
        checkpoint_every: number of epochs between two checkpoints.
        run: JSON-able description of the run (split, config, weights); a checkpoint of another run is refused.
    """

    checkpointer: resume.Checkpointer | None = None
    stop: StopSignal | None = None
    monitor: Monitor | None = None
    checkpoint_every: int = 1
    run: dict[str, Any] | None = None


class TrainProgress(NamedTuple):
    """Progress of a fit, JSON-able; a checkpoint records it beside its arrays.

    Attributes:
        epoch: index of the current epoch, from 0.
        step: index of the next step in the epoch, from 0.
        total: sum over the epoch's steps so far of loss times number of examples.
        history: scalars of every finished epoch.
        best_loss: lowest validation loss so far.
        best_epoch: epoch of `best_loss`.
    """

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    history: list[dict[str, float]] = []  # noqa: RUF012  # never changed in place
    best_loss: float = float("inf")
    best_epoch: int = 0


class _FitContext(NamedTuple):
    """What stays constant during a fit on M = N · copies examples."""

    trainer: Trainer
    hooks: Hooks
    run: dict[str, Any]
    key: jax.Array
    mask: np.ndarray  # bool [M]
    class_weight: jax.Array


def fit(
    trainer: Trainer,
    key: jax.Array,
    state: TrainState,
    label: np.ndarray,
    mask: np.ndarray,
    validation: np.ndarray | None = None,
    hooks: Hooks | None = None,
) -> tuple[TrainState, list[dict[str, float]]]:
    """Trains, resuming from the newest checkpoint if there is one.

    Args:
        trainer: see `make_trainer`.
        key: key of the examples' order and of dropout.
        state: state before training, on the host.
        label: int32 [N], the only labels that training uses; -1 where they are hidden.
        mask: bool [N], true for the slices to train on.
        validation: bool [N], true for the slices of early stopping; needed with patience.
        hooks: checkpoints, stop signal and monitor.

    Returns:
        The last state, or with patience the best, as NumPy arrays; and the scalars of every epoch.

    Raises:
        UserError: if a training loss is not finite (it names step, slices and last checkpoint) or a validation loss is
            not (it names the epoch), or a checkpoint cannot be used.
        Interrupted: if a stop was requested; a checkpoint is saved before, if there is a checkpointer.
    """
    assert label.shape == mask.shape == (len(trainer.slice_id),), (label.shape, mask.shape)
    recipe, hooks, trainer = trainer.recipe, hooks or Hooks(), trainer.with_labels(label)
    assert not recipe.patience or validation is not None, "patience needs validation slices"
    weight = steps.balanced_weights(jnp.asarray(label), jnp.asarray(mask)) if recipe.class_weights else jnp.ones(2)
    example_mask, example_label = np.repeat(mask, trainer.copies), np.repeat(label, trainer.copies)
    run = {**(hooks.run or {}), "key": jax.random.key_data(key).tolist()}
    ctx = _FitContext(trainer, hooks, run, key, example_mask, weight)

    progress, best_state = TrainProgress(), state
    logit = np.full(len(example_label), np.nan, np.float32)  # of the examples trained on so far in the current epoch
    saved = hooks.checkpointer.restore_latest(run) if hooks.checkpointer else None
    if saved:
        progress, logit = TrainProgress(**saved.record["progress"]), saved.tree["logit"]
        state = resume.from_tree(state, saved.tree["state"])
        best_state = resume.from_tree(best_state, saved.tree["best"]) if recipe.patience else best_state
    if hooks.monitor:
        hooks.monitor.start(progress.epoch)

    state = trainer.devices.replicate(state)
    while progress.epoch < recipe.num_epochs:
        state, progress = _train_epoch(ctx, state, best_state, progress, logit)
        loss = progress.total / max(int(example_mask.sum()), 1)
        scalars = training_scalars(loss, example_label[example_mask], logit[example_mask])
        if validation is not None:
            probability = _predict(trainer, state, validation)[validation]
            scalars |= validation_scalars(label[validation], probability)
        if recipe.patience and not np.isfinite(scalars["validation_loss"]):
            raise validation_not_finite_error(progress.epoch)
        if recipe.patience and scalars["validation_loss"] < progress.best_loss:
            best_state = trainer.devices.fetch(state)
            progress = progress._replace(best_loss=scalars["validation_loss"], best_epoch=progress.epoch)
        if hooks.monitor:
            hooks.monitor.epoch(progress.epoch, scalars)
        best = BestEpoch(progress.best_loss, progress.best_epoch)
        over = bool(recipe.patience) and is_over(recipe, best, progress.epoch)
        progress = progress._replace(epoch=progress.epoch + 1, step=0, total=0.0, history=[*progress.history, scalars])
        logit[:] = np.nan
        if over:
            break
        if progress.epoch % hooks.checkpoint_every == 0 and progress.epoch < recipe.num_epochs:
            _save(ctx, state, best_state, progress, logit)
    return best_state if recipe.patience else trainer.devices.fetch(state), progress.history


def _train_epoch(
    ctx: _FitContext, state: Any, best_state: TrainState, progress: TrainProgress, logit: np.ndarray
) -> tuple[Any, TrainProgress]:
    """Trains the rest of an epoch, from step `progress.step`; writes its examples' logits into `logit` [M]."""
    trainer, hooks = ctx.trainer, ctx.hooks
    key_order, key_step = epoch_keys(ctx.key, progress.epoch)
    order = np.asarray(_epoch_order(key_order, jnp.asarray(ctx.mask)))[: int(ctx.mask.sum())]
    plan = inputs.plan_batches(order, trainer.recipe.batch_size, trainer.devices.num_devices)
    num_steps = len(plan.examples)
    waiting: list[tuple[int, dict]] = []

    def fetch_losses(progress: TrainProgress) -> TrainProgress:
        for step, info in waiting:
            loss, batch_logit = trainer.devices.fetch((info["loss"], info["logit"]))
            examples, mask = plan.examples[step], plan.mask[step]
            if not np.isfinite(loss):
                checkpoint = hooks.checkpointer.latest_path() if hooks.checkpointer else None
                raise not_finite_error(
                    progress.epoch, step, trainer.slice_id[examples[mask] // trainer.copies], checkpoint
                )
            logit[examples[mask]] = batch_logit[mask]
            progress = progress._replace(step=step + 1, total=progress.total + float(loss) * int(mask.sum()))
            if hooks.monitor:
                hooks.monitor.step(progress.epoch, step, num_steps, int(mask.sum()), float(loss))
        waiting.clear()
        return progress

    rest = BatchPlan(plan.examples[progress.step :], plan.mask[progress.step :])
    batches = inputs.batches(trainer.data, trainer.copies, rest, trainer.devices, trainer.is_streamed)
    for step, (batch, mask) in enumerate(batches, progress.step):
        index = StepIndex(*(np.int32(x) for x in (progress.epoch, step, num_steps)))
        data = trainer.frozen_variables, trainer.data_on_devices
        state, info = trainer.train_step(key_step, state, *data, batch, mask, index, ctx.class_weight)
        waiting.append((step, info))
        stop = hooks.stop is not None and hooks.stop.requested()
        if stop or len(waiting) == FETCH_EVERY:
            progress = fetch_losses(progress)
        if stop:
            saved = _save(ctx, state, best_state, progress, logit)
            outcome = "all saved" if saved else "not saved, its weights are not finite"
            position = f"epoch {progress.epoch + 1} after step {progress.step} of {num_steps}"
            raise Interrupted(f"stopped in {position}, {outcome}")
    return state, fetch_losses(progress)


_epoch_order = jax.jit(epoch_order)


def _save(ctx: _FitContext, state: Any, best_state: TrainState, progress: TrainProgress, logit: np.ndarray) -> bool:
    """Writes a checkpoint, unless its weights are not finite (then the next loss fails); returns whether it did."""
    checkpointer, host = ctx.hooks.checkpointer, ctx.trainer.devices.fetch(state)
    if checkpointer is None or not all(np.isfinite(x).all() for x in jax.tree.leaves((host.params, host.batch_stats))):
        return False
    tree = {"state": resume.to_tree(host), "logit": logit.copy()}
    if ctx.trainer.recipe.patience:
        tree["best"] = resume.to_tree(best_state)
    steps_per_epoch = -(-int(ctx.mask.sum()) // ctx.trainer.recipe.batch_size)
    record = {"progress": progress._asdict(), "run": ctx.run}
    checkpointer.save(progress.epoch * steps_per_epoch + progress.step, tree, record)
    return True


def predict(trainer: Trainer, state: TrainState, slices: np.ndarray | None = None) -> np.ndarray:
    """Returns the probabilities of both classes, float32 [N, 2]; NaN for slices that are not in `slices` bool [N]."""
    return _predict(trainer, trainer.devices.replicate(state), slices)


def _predict(trainer: Trainer, state: Any, slices: np.ndarray | None, copy: int = 0) -> np.ndarray:
    """Predicts like `predict`, from a state on the devices, for copy `copy` of each slice; 0 is the slice itself."""

    def eval_batch(batch: Any) -> Any:
        return trainer.eval_step(state, trainer.frozen_variables, trainer.data_on_devices, batch)

    return _over_slices(trainer, eval_batch, slices, copy)


def pool_outputs(trainer: Trainer, state: TrainState, names: list[str], key: jax.Array) -> dict[str, np.ndarray]:
    """Returns {name: [N, ...]} of the outputs for all slices, see `frozen.Learner.pool_outputs`."""
    state, outputs = trainer.devices.replicate(state), dict[str, np.ndarray]()
    for name in names:
        if name == "probs":
            outputs[name] = _predict(trainer, state, None)
        elif name == "augmented_probs":
            outputs[name] = np.stack([_predict(trainer, state, None, copy) for copy in range(trainer.copies)], axis=1)
        else:
            constants = key, state, trainer.frozen_variables, trainer.data_on_devices
            step = functools.partial(trainer.output_step(name), *constants)
            outputs[name] = _over_slices(trainer, step, None, 0)
    return outputs


def _over_slices(trainer: Trainer, function: Callable[[Any], Any], slices: np.ndarray | None, copy: int) -> np.ndarray:
    """Returns the rows [N, ...] of `function(batch)` for copy `copy` of each slice; NaN for those not in `slices`."""
    n = len(trainer.data.label)
    rows = np.arange(n) if slices is None else np.flatnonzero(slices)
    examples = (rows * trainer.copies + copy).astype(np.int32)
    plan = inputs.plan_batches(examples, trainer.recipe.batch_size, trainer.devices.num_devices)
    batches = inputs.batches(trainer.data, trainer.copies, plan, trainer.devices, trainer.is_streamed)
    started = ((place, function(batch)) for place, (batch, _) in zip(zip(*plan, strict=True), batches, strict=True))
    out: np.ndarray | None = None
    for (batch, mask), result in fetch_behind(started, trainer.devices.fetch):
        if out is None:
            out = np.full((n, *result.shape[1:]), np.nan, np.float32)
        out[batch[mask] // trainer.copies] = result[mask]
    return np.full((n, 2), np.nan, np.float32) if out is None else out
