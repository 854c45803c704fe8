"""Algorithm 1 as a loop over rounds, for fits that are loops themselves; each program is compiled once for all."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lesion import trees
from lesion.active import parallel, program
from lesion.active.driver import PoolState, initial_labeled
from lesion.active.program import RoundInfo, Run
from lesion.active.strategies import STRATEGIES, PoolOutputs
from lesion.errors import Interrupted, UserError
from lesion.progress import track
from lesion.runs import resume
from lesion.runs.processes import StopSignal
from lesion.runs.resume import Checkpointer
from lesion.train import train
from lesion.train.frozen import Examples, Learner
from lesion.train.monitor import Monitor

NUM_CHECKPOINTS = 2  # newest ones kept of a run, and of a round's fit

# (pool, rounds done, labels [N] that they were trained on) -> (pool, labels int32 [N], -1 where unknown). Each queried
# slice is labelled then, or has left the pool. May raise `WaitingError`.
Reveal = Callable[[PoolState, Sequence[RoundInfo], np.ndarray], tuple[PoolState, np.ndarray]]


class WaitingError(Exception):
    """Queried slices have no answer yet."""


class Model(NamedTuple):
    """A model, as functions that rounds call.

    Attributes:
        init: (key) -> state.
        fit: (key, state, label [N], mask [N], title, folder for checkpoints) -> state, on the host.
        pool_outputs: (key, state, names) -> PoolOutputs of all N slices.
    """

    init: Callable[[jax.Array], Any]
    fit: Callable[..., Any]
    pool_outputs: Callable[..., PoolOutputs]


class RoundsSpec(NamedTuple):
    """Inputs shared by all runs of a program.

    Attributes:
        model: model to fit and predict with.
        strategies: names of strategies, indexed by `Run.strategy`.
        num_rounds: R, the most rounds that are run.
        query: function of `program.make_query`, compiled.
        reveal: the oracle, see `Reveal`.
        patient: int32 [N], number of a slice's patient.
        stop: signal that the process was asked to stop.
        known: bool [N], slices labelled from the beginning, or None.
        hidden: int32 [N], labels of which the first draw reveals one patient's after another; None with a doctor.
        is_over: (rounds done) -> whether to stop querying.
    """

    model: Model
    strategies: Sequence[str]
    num_rounds: int
    query: Callable[..., tuple[PoolState, RoundInfo]]
    reveal: Reveal
    patient: jax.Array
    stop: StopSignal
    known: np.ndarray | None = None
    hidden: jax.Array | None = None
    is_over: Callable[[Sequence[RoundInfo]], bool] = lambda done: False


class _Progress(NamedTuple):
    """State of a run between rounds.

    Attributes:
        state: state of the model.
        pool: state of the pool; its `round` is the next one.
        probs: [N, 2], predictions of the last round; zeros before the first.
        label: int32 [N], labels that the last round was trained on.
        done: results of the rounds done.
    """

    state: Any
    pool: PoolState
    probs: jax.Array
    label: np.ndarray
    done: list[RoundInfo]


def finetuned_model(trainer: train.Trainer, stop: StopSignal, checkpoint_every: int) -> Model:
    """Builds the model that fine-tunes a network, with a checkpoint every `checkpoint_every` epochs."""

    def fit(key: jax.Array, state: Any, label: np.ndarray, mask: np.ndarray, title: str, folder: Path) -> Any:
        checkpointer, monitor = Checkpointer(folder, NUM_CHECKPOINTS), Monitor(title, None, trainer.recipe.num_epochs)
        try:
            # A resumed fit must have begun with the same labels.
            labels = trees.sha256({"label": label, "mask": mask})
            hooks = train.Hooks(checkpointer, stop, monitor, checkpoint_every, {"labels": labels})
            return train.fit(trainer, key, trainer.restart(state), label, mask, hooks=hooks)[0]
        finally:
            checkpointer.close()
            monitor.close()

    def pool_outputs(key: jax.Array, state: Any, names: Sequence[str]) -> PoolOutputs:
        outputs = train.pool_outputs(trainer, state, ["probs", *names], key)
        return PoolOutputs(**{name: jnp.asarray(x) for name, x in outputs.items()})

    return Model(trainer.init, fit, pool_outputs)


def frozen_model(learner: Learner, examples: Examples) -> Model:
    """Builds the model on frozen features; its fit is one program."""
    fit_program = parallel.compiled(lambda *args: learner.fit(*args)[0])
    predict, outputs_of = parallel.compiled(learner.predict), parallel.compiled(learner.pool_outputs, static_argnums=3)
    hidden = examples._replace(label=jnp.full_like(examples.label, -1))

    def init(key: jax.Array) -> Any:
        return jax.device_get(learner.init(key, hidden))

    def fit(key: jax.Array, state: Any, label: np.ndarray, mask: np.ndarray, title: str, folder: Path) -> Any:
        del folder  # a fit is too short for checkpoints
        visible = examples._replace(label=jnp.asarray(label))
        (fitted,) = track(title, (fit_program(key, state, visible, mask) for _ in range(1)), 1)
        return jax.device_get(fitted)

    def pool_outputs(key: jax.Array, state: Any, names: Sequence[str]) -> PoolOutputs:
        return PoolOutputs(predict(state, hidden), **{name: outputs_of(key, state, hidden, name) for name in names})

    return Model(init, fit, pool_outputs)


def run_rounds(spec: RoundsSpec, run: Run, title: str, folder: Path) -> tuple[RoundInfo, Any]:
    """Runs what `program.algorithm1` runs, round by round; resumes from checkpoints, also within a fit.

    Args:
        spec: inputs shared with other runs.
        run: the run's own arguments.
        title: start of the progress bars' titles.
        folder: folder of this run's checkpoints.

    Returns:
        Results of the rounds, and the last state; both as NumPy arrays.

    Raises:
        Interrupted: if a stop was requested; everything is saved first.
        UserError: if a loss is not finite, or the checkpoints are of another run.
        WaitingError: if queried slices have no answer yet; everything is saved first.
    """
    strategy = spec.strategies[int(run.strategy)]
    identity = {"key": jax.random.key_data(run.key).tolist(), "strategy": strategy, "initial": int(run.initial)}
    checkpointer = Checkpointer(folder / "rounds", NUM_CHECKPOINTS)
    try:
        progress = _restore(_begin(spec, run), checkpointer.restore_latest(identity))
        for index in range(len(progress.done), spec.num_rounds):
            if spec.is_over(progress.done):
                break
            pool, label = spec.reveal(progress.pool, progress.done, progress.label)
            progress = _run_round(spec, run, progress._replace(pool=pool, label=label), title, folder)
            checkpointer.save(index + 1, _to_tree(progress), {"run": identity})
            checkpointer.latest_path()  # waits until it is written, before the fit's own are removed
            shutil.rmtree(folder / f"fit_{index}", ignore_errors=True)
            if spec.stop.requested() and index + 1 < spec.num_rounds:
                raise Interrupted(f"stopped after round {index + 1} of {spec.num_rounds}, all saved")
    finally:
        checkpointer.close()
    return _stack(progress.done), progress.state


def _begin(spec: RoundsSpec, run: Run) -> _Progress:
    """Draws the first labelled set and the first weights."""
    keys = program.keys_of(run.key)
    known = jnp.zeros_like(run.in_pool) if spec.known is None else jnp.asarray(spec.known)
    labeled = known | initial_labeled(keys.start, spec.patient, run.in_pool & ~known, run.initial, spec.hidden)
    n = len(spec.patient)
    pool = PoolState(labeled, run.in_pool, jnp.int32(0))
    no_label = np.full(n, -1, np.int32)
    return _Progress(spec.model.init(keys.init), pool, jnp.zeros((n, 2), jnp.float32), no_label, [])


def _run_round(spec: RoundsSpec, run: Run, progress: _Progress, title: str, folder: Path) -> _Progress:
    """Fits on the labelled slices, predicts the pool and queries; returns the new progress."""
    keys, pool, index = program.keys_of(run.key), progress.pool, len(progress.done)
    pseudo = STRATEGIES[spec.strategies[int(run.strategy)]].pseudo
    title = f"{title}, round {index + 1} of {spec.num_rounds}"
    pseudo_mask, pseudo_label = program.pseudo_labels(progress.probs, pool, jnp.bool_(pseudo))
    label = np.asarray(jnp.where(pseudo_mask, pseudo_label, progress.label))
    mask, key = np.asarray(pool.labeled | pseudo_mask), jax.random.fold_in(keys.fit, index)
    state = spec.model.fit(key, progress.state, label, mask, title, folder / f"fit_{index}")
    names = program.outputs_beside_probs(spec.strategies)
    outputs = spec.model.pool_outputs(program.outputs_key(keys.query, index), state, names)
    if not np.isfinite(outputs.probs).all():
        raise UserError(f"{title}: diverged: lower --config.optim.lr")
    pool, info = spec.query(keys.query, pool, outputs, spec.patient, progress.label, run.strategy, pseudo_mask)
    done = [*progress.done, jax.tree.map(np.asarray, info)]
    return progress._replace(state=state, pool=pool, probs=outputs.probs, done=done)


def _to_tree(progress: _Progress) -> dict[str, Any]:
    """Returns the arrays to save in a checkpoint."""
    pool = {"labeled": np.asarray(progress.pool.labeled), "in_pool": np.asarray(progress.pool.in_pool)}
    arrays = {"probs": np.asarray(progress.probs), "label": progress.label}
    return {"state": resume.to_tree(progress.state), "rounds": _stack(progress.done)._asdict()} | pool | arrays


def _restore(progress: _Progress, saved: resume.Checkpoint | None) -> _Progress:
    """Returns the progress saved in a checkpoint, or `progress` if there is none."""
    if saved is None:
        return progress
    tree, rounds = saved.tree, saved.tree["rounds"]
    pool = PoolState(jnp.asarray(tree["labeled"]), jnp.asarray(tree["in_pool"]), jnp.int32(saved.number))
    done = [RoundInfo(*(rounds[name][r] for name in RoundInfo._fields)) for r in range(saved.number)]
    state = resume.from_tree(progress.state, tree["state"])
    return _Progress(state, pool, jnp.asarray(tree["probs"]), tree["label"], done)


def _stack(done: Sequence[RoundInfo]) -> RoundInfo:
    return RoundInfo(*(np.stack(column) for column in zip(*done, strict=True)))
