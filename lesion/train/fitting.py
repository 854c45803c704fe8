"""The loop around the compiled steps: epochs, what is saved and when, what is watched, when to stop."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score

from lesion.errors import Interrupted, UserError
from lesion.runs import resume
from lesion.train import feed, finetune, steps
from lesion.train.engine import Engine, predict_on_devices
from lesion.train.learner import epoch_keys, epoch_order
from lesion.train.state import TrainState
from lesion.train.watch import Watch

LOOK_EVERY = 8  # steps between two looks at the losses: each look waits for the device


class Hooks(NamedTuple):
    """What a fit does beside training; None leaves it out.

    Attributes:
        keeper: saves every `every` epochs, and before an interruption.
        bell: asked after every step whether to stop.
        watch: shown what happens.
        every: epochs.
        run: JSON, what the fit is a part of: split, config, weights. Kept in each checkpoint, whose run must be this.
    """

    keeper: resume.Keeper | None = None
    bell: resume.Bell | None = None
    watch: Watch | None = None
    every: int = 1
    run: dict[str, Any] | None = None


class _Place(NamedTuple):
    """How far a fit is, JSON-able: what a checkpoint records beside its arrays.

    Attributes:
        epoch: that is trained, from 0.
        step: of it, from 0.
        total: of this epoch's losses so far, each times its examples.
        history: scalars of the epochs that are done.
        best_loss: on the validation slices.
        best_epoch: where that was.
    """

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    history: list[dict[str, float]] = []  # noqa: RUF012  # never changed in place
    best_loss: float = float("inf")
    best_epoch: int = 0


class _Fit(NamedTuple):
    """What does not change during a fit; arrays are of the M = N · copies examples."""

    engine: Engine
    hooks: Hooks
    run: dict[str, Any]
    key: jax.Array
    chosen: np.ndarray  # bool [M]
    label: np.ndarray  # int32 [M]
    class_weight: jax.Array
    validation: np.ndarray | None


def fit(
    engine: Engine,
    key: jax.Array,
    state: TrainState,
    label: np.ndarray,
    mask: np.ndarray,
    validation: np.ndarray | None = None,
    hooks: Hooks | None = None,
) -> tuple[TrainState, list[dict[str, float]]]:
    """Trains, going on from the newest checkpoint if there is one.

    Args:
        engine: see `build`.
        key: of order and dropout.
        state: before training, on the host.
        label: int32 [N]; nothing else of the labels is seen.
        mask: bool [N], the slices trained on.
        validation: bool [N], those that patience looks at.
        hooks: what is done beside.

    Returns:
        The last state, or with patience the best, as NumPy; and the scalars of every epoch.

    Raises:
        UserError: if a loss is not finite; names step, slices and last checkpoint. If a checkpoint is of another run.
        Interrupted: if the bell rang; everything is saved before.
    """
    assert label.shape == mask.shape == (len(engine.slice_id),), (label.shape, mask.shape)
    how, hooks, engine = engine.recipe, hooks or Hooks(), engine.with_labels(label)
    assert not how.patience or validation is not None, "patience needs validation slices"
    weight = steps.balanced(jnp.asarray(label), jnp.asarray(mask)) if how.class_weights else jnp.ones(2)
    chosen, labels = np.repeat(mask, engine.copies), np.repeat(label, engine.copies)
    run = {**(hooks.run or {}), "key": jax.random.key_data(key).tolist()}
    this = _Fit(engine, hooks, run, key, chosen, labels, weight, validation)
    place, best = _Place(), state
    logit = np.full(len(labels), np.nan, np.float32)
    saved = hooks.keeper.newest(run) if hooks.keeper else None
    if saved:
        place, logit = _Place(**saved.record["place"]), saved.tree["logit"]
        state = resume.from_tree(state, saved.tree["state"])
        best = resume.from_tree(best, saved.tree["best"]) if how.patience else best
    if hooks.watch:
        hooks.watch.begin(place.epoch)
    state = engine.devices.replicate(state)
    while place.epoch < how.num_epochs:
        state, place = _epoch(this, state, best, place, logit)
        scalars = {"loss": place.total / max(int(chosen.sum()), 1), "auc": auc(labels[chosen], logit[chosen])}
        if validation is not None:
            scalars |= validate(predict_on_devices(engine, state, validation)[validation], label[validation])
        if how.patience and scalars["validation_loss"] < place.best_loss:
            best = engine.devices.fetch(state)
            place = place._replace(best_loss=scalars["validation_loss"], best_epoch=place.epoch)
        if hooks.watch:
            hooks.watch.epoch(place.epoch, scalars)
        over = bool(how.patience) and place.epoch - place.best_epoch >= how.patience
        place = place._replace(epoch=place.epoch + 1, step=0, total=0.0, history=[*place.history, scalars])
        logit[:] = np.nan
        if over:
            break
        if place.epoch % hooks.every == 0 and place.epoch < how.num_epochs:
            _save(this, state, best, place, logit)
    return best if how.patience else engine.devices.fetch(state), place.history


def _epoch(this: _Fit, state: Any, best: TrainState, place: _Place, logit: np.ndarray) -> tuple[Any, _Place]:
    """The rest of an epoch from `place.step` on; `logit` [M] gets those of its examples."""
    engine, hooks = this.engine, this.hooks
    key_order, key_step = epoch_keys(this.key, place.epoch)
    todo = feed.plan(_order(this, key_order), engine.recipe.batch_size, engine.devices.total)
    num_steps = len(todo.at)
    waiting: list[tuple[int, dict]] = []

    def look(place: _Place) -> _Place:
        """Fetches what the last steps gave."""
        for step, info in waiting:
            loss, of_batch = engine.devices.fetch((info["loss"], info["logit"]))
            at, real = todo.at[step], todo.real[step]
            if not np.isfinite(loss):
                last = hooks.keeper.last_path() if hooks.keeper else None
                raise not_finite(place.epoch, step, engine.slice_id[at[real] // engine.copies], last)
            logit[at[real]] = of_batch[real]
            place = place._replace(step=step + 1, total=place.total + float(loss) * int(real.sum()))
            if hooks.watch:
                hooks.watch.step(place.epoch, step, num_steps, int(real.sum()), float(loss))
        waiting.clear()
        return place

    rest = feed.Plan(todo.at[place.step :], todo.real[place.step :])
    batches = feed.batches(engine.data, engine.copies, rest, engine.devices, engine.streamed)
    for step, (batch, real) in enumerate(batches, place.step):
        clock = finetune.Clock(*(np.int32(x) for x in (place.epoch, step, num_steps)))
        fixed = engine.constants, engine.on_device
        state, info = engine.train(key_step, state, *fixed, batch, real, clock, this.class_weight)
        waiting.append((step, info))
        rung = hooks.bell is not None and hooks.bell.heard()
        if rung or len(waiting) == LOOK_EVERY:
            place = look(place)
        if rung:
            told = "all saved" if _save(this, state, best, place, logit) else "not saved, its weights are not finite"
            raise Interrupted(f"stopped in epoch {place.epoch + 1} after step {place.step} of {num_steps}, {told}")
    return state, look(place)


def _order(this: _Fit, key: jax.Array) -> np.ndarray:
    order = _jitted_order(key, jnp.asarray(this.chosen))
    return np.asarray(order)[: int(this.chosen.sum())]


_jitted_order = jax.jit(epoch_order)


def _save(this: _Fit, state: Any, best: TrainState, place: _Place, logit: np.ndarray) -> bool:
    """A checkpoint, unless its weights are not finite, of which the next loss will tell: whether there is one now."""
    keeper, host = this.hooks.keeper, this.engine.devices.fetch(state)
    if keeper is None or not all(np.isfinite(x).all() for x in jax.tree.leaves((host.params, host.batch_stats))):
        return False
    tree = {"state": resume.to_tree(host), "logit": logit.copy()}
    if this.engine.recipe.patience:
        tree["best"] = resume.to_tree(best)
    steps_each = -(-int(this.chosen.sum()) // this.engine.recipe.batch_size)
    keeper.save(place.epoch * steps_each + place.step, tree, {"place": place._asdict(), "run": this.run})
    return True


def validate(probs: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Scalars of the validation slices, from probabilities [n, 2] and labels [n]."""
    right = probs[np.arange(len(label)), label].astype(np.float64)
    loss = -np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean()
    return {"validation_loss": float(loss), "validation_auc": auc(label, probs[:, 1])}


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """AUC, NaN where one class is absent or a score is not finite."""
    if len(np.unique(label)) < 2 or not np.isfinite(score).all():
        return float("nan")
    return float(roc_auc_score(label, score))


def not_finite(epoch: int, step: int, names: np.ndarray, last: Path | None = None, what: str = "slices") -> UserError:
    """What to tell of a loss that is not finite: the ids [B] of its batch and of what, and the last checkpoint."""
    ids = list(dict.fromkeys(map(str, names)))
    shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    where = f"; the last good checkpoint is {last}" if last else ""
    return UserError(
        f"the loss is not finite in epoch {epoch + 1}, step {step + 1} ({what} {shown}): lower --config.optim.lr, "
        f"or set --config.dtype=float32 where it is bfloat16{where}"
    )
