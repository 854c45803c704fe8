"""Algorithm 1 where fitting is a loop of its own: rounds outside, each program compiled once for all of them."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lesion.active import oracle, program
from lesion.active.driver import PoolState, initial_labeled
from lesion.active.program import RoundInfo, Run
from lesion.active.strategies import STRATEGIES, View
from lesion.errors import Interrupted
from lesion.train import engine, fitting, resume
from lesion.train.watch import Watch

KEEP = 2  # checkpoints of a run, of a round and of its fit


class Plan(NamedTuple):
    """What all runs of a program share.

    Attributes:
        fitter: fits and predicts.
        strategies: that `Run.strategy` numbers.
        num_rounds: R.
        ask: compiled, of `program.asker`.
        label: int32 [N]; the oracle's, nobody else looks.
        patient: int32 [N].
        bell: rings when the run is to stop.
        every: epochs between checkpoints of a fit.
    """

    fitter: engine.Engine
    strategies: Sequence[str]
    num_rounds: int
    ask: Callable[..., tuple[PoolState, RoundInfo]]
    label: np.ndarray
    patient: jax.Array
    bell: resume.Bell
    every: int


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
    """
    keys, strategy = program.keys_of(run), this.strategies[int(run.strategy)]
    labeled = initial_labeled(keys.start, this.patient, run.askable, run.initial)
    pool, done, start = PoolState(labeled, run.askable, jnp.int32(0)), list[RoundInfo](), 0
    state = this.fitter.begin(keys.init)
    probs = jnp.zeros((len(this.label), 2), jnp.float32)
    keeper = resume.Keeper(kept / "rounds", KEEP)
    same = {"key": jax.random.key_data(run.key).tolist(), "strategy": strategy, "initial": int(run.initial)}
    try:
        saved = keeper.newest(same)
        if saved:
            start, state = saved.record["round"], resume.from_tree(state, saved.tree["state"])
            pool = PoolState(jnp.asarray(saved.tree["labeled"]), run.askable, jnp.int32(start))
            rounds, probs = saved.tree["rounds"], jnp.asarray(saved.tree["probs"])
            done = [RoundInfo(*(rounds[name][r] for name in RoundInfo._fields)) for r in range(start)]
        for index in range(start, this.num_rounds):
            state, probs, pool, info = _one_round(this, run, keys, state, probs, pool, title, kept / f"fit_{index}")
            done.append(jax.tree.map(np.asarray, info))
            rounds = {name: np.stack([getattr(one, name) for one in done]) for name in RoundInfo._fields}
            tree = {"state": resume.to_tree(state), "labeled": np.asarray(pool.labeled), "probs": np.asarray(probs)}
            keeper.save(index + 1, tree | {"rounds": rounds}, {"round": index + 1, "run": same})
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
    title: str,
    kept: Path,
) -> tuple[Any, jax.Array, PoolState, RoundInfo]:
    """Fits on what is labelled, looks at the pool, asks."""
    index, strategy = int(pool.round), this.strategies[int(run.strategy)]
    taught, guess = program.pseudo_labels(probs, pool, jnp.bool_(STRATEGIES[strategy].pseudo))
    label = jnp.where(taught, guess, oracle.reveal(jnp.asarray(this.label), pool.labeled))
    title = f"{title}, round {index + 1} of {this.num_rounds}"
    keeper, watch = resume.Keeper(kept, KEEP), Watch(title, None, this.fitter.recipe.num_epochs)
    try:
        state, _ = fitting.fit(
            this.fitter,
            jax.random.fold_in(keys.fit, index),
            this.fitter.restart(state),
            np.asarray(label),
            np.asarray(pool.labeled | taught),
            hooks=fitting.Hooks(keeper, this.bell, watch, this.every),
        )
    finally:
        keeper.close()
        watch.close()
    held = this.fitter.devices.replicate(state)
    probs = jnp.asarray(engine.predict_on_devices(this.fitter, held, None))
    key = program.look_key(keys.ask, index)
    parts = {
        part: jnp.asarray(engine.look_on_devices(this.fitter, held, part, key, None))
        for part in program.parts_of(this.strategies)
    }
    pool, info = this.ask(keys.ask, pool, View(probs, **parts), this.patient, run.strategy, taught)
    return state, probs, pool, info
