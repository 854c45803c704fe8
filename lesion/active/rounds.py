"""Algorithm 1 where fitting is a loop of its own: rounds outside, each program compiled once for all of them."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lesion import trees
from lesion.active import lanes, program
from lesion.active.driver import PoolState, initial_labeled
from lesion.active.program import RoundInfo, Run
from lesion.active.strategies import STRATEGIES, View
from lesion.errors import Interrupted, UserError
from lesion.progress import track
from lesion.runs import resume
from lesion.train import engine, fitting
from lesion.train.learner import Examples, Learner
from lesion.train.watch import Watch

KEEP = 2  # checkpoints of a run, of a round and of its fit


# (pool, the rounds done, label [N] that they were trained on) -> (pool, label int32 [N], -1 where it is not known): all
# that is asked is labelled in it, or has left the pool. May raise `WaitingError`.
Reveal = Callable[[PoolState, Sequence[RoundInfo], np.ndarray], tuple[PoolState, np.ndarray]]


class WaitingError(Exception):
    """Labels that were asked for are not there yet."""


class Model(NamedTuple):
    """What is fitted.

    Attributes:
        begin: (key) -> state.
        fit: (key, state, label [N], mask [N], title, folder for its checkpoints) -> state, on the host.
        look: (key, state, parts) -> View of all N slices.
    """

    begin: Callable[[jax.Array], Any]
    fit: Callable[..., Any]
    look: Callable[..., View]


class Plan(NamedTuple):
    """What all runs of a program share.

    Attributes:
        model: fits and predicts.
        strategies: that `Run.strategy` numbers.
        num_rounds: R, at most.
        ask: compiled, of `program.asker`.
        reveal: see `Reveal`.
        patient: int32 [N].
        bell: rings when the run is to stop.
        known: bool [N], labelled from the beginning, or None.
        over: (the rounds done) -> whether to stop asking.
    """

    model: Model
    strategies: Sequence[str]
    num_rounds: int
    ask: Callable[..., tuple[PoolState, RoundInfo]]
    reveal: Reveal
    patient: jax.Array
    bell: resume.Bell
    known: np.ndarray | None = None
    over: Callable[[Sequence[RoundInfo]], bool] = lambda done: False


def of_engine(fitter: engine.Engine, bell: resume.Bell, every: int) -> Model:
    """Fine-tuning, with checkpoints every so many epochs."""

    def fit(key: jax.Array, state: Any, label: np.ndarray, mask: np.ndarray, title: str, kept: Path) -> Any:
        keeper, watch = resume.Keeper(kept, KEEP), Watch(title, None, fitter.recipe.num_epochs)
        try:
            told = trees.sha256({"label": label, "mask": mask})  # a fit that goes on must have begun with the same
            hooks = fitting.Hooks(keeper, bell, watch, every, {"told": told})
            return fitting.fit(fitter, key, fitter.restart(state), label, mask, hooks=hooks)[0]
        finally:
            keeper.close()
            watch.close()

    def look(key: jax.Array, state: Any, parts: Iterable[str]) -> View:
        held = fitter.devices.replicate(state)
        seen = {part: engine.look_on_devices(fitter, held, part, key, None) for part in parts}
        probs = engine.predict_on_devices(fitter, held, None)
        return View(jnp.asarray(probs), **{part: jnp.asarray(x) for part, x in seen.items()})

    return Model(fitter.begin, fit, look)


def of_learner(learner: Learner, examples: Examples) -> Model:
    """A fit that is one program."""
    fitted = lanes.compiled(lambda *args: learner.fit(*args)[0])
    predicted, looked = lanes.compiled(learner.predict), lanes.compiled(learner.look, static_argnums=3)
    nothing = examples._replace(label=jnp.full_like(examples.label, -1))

    def begin(key: jax.Array) -> Any:
        return jax.device_get(learner.init(key, nothing))

    def fit(key: jax.Array, state: Any, label: np.ndarray, mask: np.ndarray, title: str, kept: Path) -> Any:
        del kept  # too short to stop in
        (out,) = track(title, (fitted(key, state, examples._replace(label=jnp.asarray(label)), mask) for _ in "1"), 1)
        return jax.device_get(out)

    def look(key: jax.Array, state: Any, parts: Iterable[str]) -> View:
        return View(predicted(state, nothing), **{part: looked(key, state, nothing, part) for part in parts})

    return Model(begin, fit, look)


def run_rounds(this: Plan, run: Run, title: str, kept: Path) -> tuple[RoundInfo, Any]:
    """Algorithm 1 with fits that go on where they were killed: what `program.algorithm1` does, in steps.

    Args:
        this: see `Plan`.
        run: which.
        title: begins what is shown.
        kept: folder of this run's checkpoints.

    Returns:
        What happened in its rounds, and the last state; both NumPy.

    Raises:
        Interrupted: if the bell rang; everything is saved before.
        UserError: if a loss is not finite, or the checkpoints are of another run.
        WaitingError: if labels are not there yet; everything is saved before.
    """
    keys, strategy = program.keys_of(run), this.strategies[int(run.strategy)]
    known = jnp.zeros_like(run.askable) if this.known is None else jnp.asarray(this.known)
    labeled = known | initial_labeled(keys.start, this.patient, run.askable & ~known, run.initial)
    pool, done, start = PoolState(labeled, run.askable, jnp.int32(0)), list[RoundInfo](), 0
    state = this.model.begin(keys.init)
    probs, label = jnp.zeros((len(this.patient), 2), jnp.float32), np.full(len(this.patient), -1, np.int32)
    keeper = resume.Keeper(kept / "rounds", KEEP)
    same = {"key": jax.random.key_data(run.key).tolist(), "strategy": strategy, "initial": int(run.initial)}
    try:
        saved = keeper.newest(same)
        if saved:
            start, state = saved.record["round"], resume.from_tree(state, saved.tree["state"])
            labeled, askable = (jnp.asarray(saved.tree[name]) for name in ("labeled", "askable"))
            pool, label = PoolState(labeled, askable, jnp.int32(start)), saved.tree["label"]
            rounds, probs = saved.tree["rounds"], jnp.asarray(saved.tree["probs"])
            done = [RoundInfo(*(rounds[name][r] for name in RoundInfo._fields)) for r in range(start)]
        for index in range(start, this.num_rounds):
            if this.over(done):
                break
            pool, label = this.reveal(pool, done, label)
            state, probs, pool, info = _one_round(this, run, keys, state, probs, pool, label, title, kept)
            done.append(jax.tree.map(np.asarray, info))
            rounds = {name: np.stack([getattr(one, name) for one in done]) for name in RoundInfo._fields}
            kinds = {"labeled": pool.labeled, "askable": pool.askable, "probs": probs, "label": label}
            tree = {"state": resume.to_tree(state), "rounds": rounds} | {k: np.asarray(x) for k, x in kinds.items()}
            keeper.save(index + 1, tree, {"round": index + 1, "run": same})
            keeper.last_path()  # written before the fit's own checkpoints go
            shutil.rmtree(kept / f"fit_{index}", ignore_errors=True)
            if this.bell.heard() and index + 1 < this.num_rounds:
                raise Interrupted(f"stopped after round {index + 1} of {this.num_rounds}, all saved")
    finally:
        keeper.close()
    return RoundInfo(*(np.stack([getattr(one, name) for one in done]) for name in RoundInfo._fields)), state


def _one_round(
    this: Plan,
    run: Run,
    keys: program.Keys,
    state: Any,
    probs: jax.Array,
    pool: PoolState,
    label: np.ndarray,
    title: str,
    kept: Path,
) -> tuple[Any, jax.Array, PoolState, RoundInfo]:
    """Fits on what is labelled, looks at the pool, asks."""
    index, strategy = int(pool.round), this.strategies[int(run.strategy)]
    title = f"{title}, round {index + 1} of {this.num_rounds}"
    taught, guess = program.pseudo_labels(probs, pool, jnp.bool_(STRATEGIES[strategy].pseudo))
    seen, mask = np.asarray(jnp.where(taught, guess, label)), np.asarray(pool.labeled | taught)
    state = this.model.fit(jax.random.fold_in(keys.fit, index), state, seen, mask, title, kept / f"fit_{index}")
    view = this.model.look(program.look_key(keys.ask, index), state, program.parts_of(this.strategies))
    if not np.isfinite(view.probs).all():
        raise UserError(f"{title}: diverged: lower --config.optim.lr")
    pool, info = this.ask(keys.ask, pool, view, this.patient, run.strategy, taught)
    return state, view.probs, pool, info
