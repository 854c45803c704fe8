"""Algorithm 1 from the first labelled set to the last round, as one compilable function."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lesion.active import acquisition, oracle
from lesion.active.driver import Asking, driver, initial_labeled
from lesion.active.strategies import STRATEGIES, View
from lesion.train.learner import Examples, Learner

# CEAL (Wang 2016, as PAPER.md takes it): what is surer than this, in nats, is trained on as predicted; less each round.
PSEUDO_START, PSEUDO_STEP = 0.05, 0.0033


class RoundInfo(NamedTuple):
    """What happened in each of R rounds, as JAX's arrays or NumPy's; a round's model is that before it asks.

    Attributes:
        probs: float32 [R, N], probability of glioma.
        labeled_slices: int32 [R], what the model of this round was trained on.
        labeled_patients: int32 [R].
        pseudo_slices: int32 [R], trained on under their predicted label; they cost nothing.
        indices: int32 [R, K], asked for at the end of the round.
        scores: float32 [R, K]; -inf where nothing was left to ask.
        max_entropy: float32 [R], nats: largest among the askable unlabelled, -inf if none is left.
        mean_entropy: float32 [R], nats.
        p95_entropy: float32 [R], nats: what 95 % of them do not pass.
    """

    probs: Any
    labeled_slices: Any
    labeled_patients: Any
    pseudo_slices: Any
    indices: Any
    scores: Any
    max_entropy: Any
    mean_entropy: Any
    p95_entropy: Any


class Run(NamedTuple):
    """What tells one run from another of the same program.

    Attributes:
        key: of its start, weights, fits and draws; strategies with the same key start alike.
        askable: bool [N], the training folds' slices.
        initial: int32 [], slices of the first labelled set; N labels all there are.
        strategy: int32 [], which of the program's.
    """

    key: jax.Array
    askable: jax.Array
    initial: jax.Array
    strategy: jax.Array


def algorithm1(
    learner: Learner, strategies: Sequence[str], asking: Asking, num_rounds: int
) -> Callable[[Run, Examples, jax.Array], tuple[RoundInfo, jax.Array]]:
    """Builds `run(run, examples, patient int32 [N]) -> (RoundInfo, last state)`.

    The first labelled set, the first weights and the fits' keys depend on the run's key alone: strategies are compared
    on the same start. Pure, and of one shape for all folds, seeds and strategies: `vmap` over `Run` does many.
    """
    rows = [STRATEGIES[name] for name in strategies]
    drivers, parts = [driver(row, asking) for row in rows], {row.view for row in rows} - {"probs"}

    def run(run: Run, examples: Examples, patient: jax.Array):
        assert run.askable.shape == patient.shape == examples.label.shape, (run.askable.shape, patient.shape)
        key_start, key_init, key_fit, key_ask = (jax.random.fold_in(run.key, purpose) for purpose in range(4))
        pool = drivers[0].init(initial_labeled(key_start, patient, run.askable, run.initial), run.askable)
        state, sure = learner.init(key_init, examples), jnp.zeros(patient.shape, bool)
        pseudo = jnp.array([row.pseudo for row in rows])[run.strategy]

        def one_round(carry: Any, index: jax.Array):
            state, pool, probs, sure = carry
            rest = pool.askable & ~pool.labeled
            taught = sure & rest & pseudo
            label = oracle.reveal(examples.label, pool.labeled)
            label = jnp.where(taught, jnp.argmax(probs, -1).astype(label.dtype), label)
            seen = examples._replace(label=label)
            state, _ = learner.fit(jax.random.fold_in(key_fit, index), state, seen, pool.labeled | taught)
            probs = learner.predict(state, examples)
            key_look, key_round = (jax.random.fold_in(jax.random.fold_in(key_ask, index), i) for i in range(2))
            view = View(probs, **{part: learner.look(key_look, state, examples, part) for part in parts})
            asked, info = jax.lax.switch(run.strategy, [d.step for d in drivers], key_round, pool, view, patient)
            entropy = jax.vmap(acquisition.entropy, (None, 0))(key_ask, probs)
            limit = jnp.maximum(PSEUDO_START - PSEUDO_STEP * index.astype(jnp.float32), 0.0)
            slices, patients = oracle.cost(pool.labeled, patient)
            entropies = _entropies(jnp.where(rest, entropy, jnp.nan))
            out = RoundInfo(probs[:, 1], slices, patients, jnp.sum(taught), info.indices, info.scores, *entropies)
            return (state, asked, probs, entropy < limit), out

        start: Any = state, pool, jnp.zeros((len(patient), 2), jnp.float32), sure
        (state, *_), rounds = jax.lax.scan(one_round, start, jnp.arange(num_rounds))
        return rounds, state

    return run


def _entropies(entropy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Largest, mean and 95th percentile of [N], NaN left out; -inf, 0 and -inf of nothing."""
    there = ~jnp.isnan(entropy)
    count = jnp.sum(there, dtype=jnp.float32)
    low_first = jnp.sort(jnp.where(there, entropy, jnp.inf))
    at = jnp.clip(jnp.ceil(0.95 * count) - 1, 0, None).astype(jnp.int32)
    largest = jnp.max(jnp.where(there, entropy, -jnp.inf))
    mean = jnp.sum(jnp.where(there, entropy, 0.0)) / jnp.maximum(count, 1.0)
    return largest, mean, jnp.where(count > 0, low_first[at], -jnp.inf)
