"""Algorithm 1 from the first labelled set to the last round, as one compilable function."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from lesion.active import oracle
from lesion.active.driver import Asking, PoolState, driver, initial_labeled
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


class Keys(NamedTuple):
    """Of a run's first set, first weights, fits and questions."""

    start: jax.Array
    init: jax.Array
    fit: jax.Array
    ask: jax.Array


def keys_of(run: Run) -> Keys:
    """All that is drawn in a run depends on its key alone."""
    return Keys(*(jax.random.fold_in(run.key, purpose) for purpose in range(4)))


def look_key(key: jax.Array, index: jax.Array | int) -> jax.Array:
    """Of what is drawn to look at the pool in a round."""
    return jax.random.fold_in(jax.random.fold_in(key, index), 0)


def parts_of(strategies: Sequence[str]) -> set[str]:
    """What the strategies look at beside predictions."""
    return {STRATEGIES[name].view for name in strategies} - {"probs"}


def pseudo_labels(probs: jax.Array, pool: PoolState, pseudo: jax.Array) -> tuple[jax.Array, jax.Array]:
    """CEAL's: which slices are trained on as predicted in this round, bool [N], and as what, int32 [N].

    Args:
        probs: [N, 2] of the round before; zeros before the first.
        pool: now.
        pseudo: bool [], whether the strategy does so at all.
    """
    entropy = jnp.sum(entr(probs), -1)
    limit = jnp.maximum(PSEUDO_START - PSEUDO_STEP * (pool.round - 1).astype(jnp.float32), 0.0)
    sure = (entropy < limit) & (pool.round > 0)
    return sure & pool.askable & ~pool.labeled & pseudo, jnp.argmax(probs, -1).astype(jnp.int32)


def asker(strategies: Sequence[str], asking: Asking) -> Callable[..., tuple[PoolState, RoundInfo]]:
    """Builds `ask(key, pool, view, patient [N], strategy [], taught [N]) -> (pool, RoundInfo of this round)`.

    `taught` are the slices trained on under their predicted label; `key` is `Keys.ask`.
    """
    steps = [driver(STRATEGIES[name], asking).step for name in strategies]

    def ask(key, pool, view, patient, strategy, taught):
        rest = pool.askable & ~pool.labeled
        key_round = jax.random.fold_in(jax.random.fold_in(key, pool.round), 1)
        asked, info = jax.lax.switch(strategy, steps, key_round, pool, view, patient)
        slices, patients = oracle.cost(pool.labeled, patient)
        entropies = _entropies(jnp.where(rest, jnp.sum(entr(view.probs), -1), jnp.nan))
        out = RoundInfo(view.probs[:, 1], slices, patients, jnp.sum(taught), info.indices, info.scores, *entropies)
        return asked, out

    return ask


def algorithm1(
    learner: Learner, strategies: Sequence[str], asking: Asking, num_rounds: int
) -> Callable[[Run, Examples, jax.Array], tuple[RoundInfo, jax.Array]]:
    """Builds `run(run, examples, patient int32 [N]) -> (RoundInfo, last state)`.

    The first labelled set, the first weights and the fits' keys depend on the run's key alone: strategies are compared
    on the same start. Pure, and of one shape for all folds, seeds and strategies: `vmap` over `Run` does many.
    """
    ask, parts = asker(strategies, asking), parts_of(strategies)
    is_pseudo = [STRATEGIES[name].pseudo for name in strategies]

    def run(run: Run, examples: Examples, patient: jax.Array):
        assert run.askable.shape == patient.shape == examples.label.shape, (run.askable.shape, patient.shape)
        keys, pseudo = keys_of(run), jnp.array(is_pseudo)[run.strategy]
        labeled = initial_labeled(keys.start, patient, run.askable, run.initial)
        pool = PoolState(labeled, run.askable, jnp.int32(0))

        def one_round(carry: Any, index: jax.Array):
            state, pool, probs = carry
            taught, guess = pseudo_labels(probs, pool, pseudo)
            label = jnp.where(taught, guess, oracle.reveal(examples.label, pool.labeled))
            seen = examples._replace(label=label)
            state, _ = learner.fit(jax.random.fold_in(keys.fit, index), state, seen, pool.labeled | taught)
            probs, key = learner.predict(state, seen), look_key(keys.ask, index)
            view = View(probs, **{part: learner.look(key, state, seen, part) for part in parts})
            asked, out = ask(keys.ask, pool, view, patient, run.strategy, taught)
            return (state, asked, probs), out

        nothing = examples._replace(label=jnp.full_like(examples.label, -1))
        start: Any = learner.init(keys.init, nothing), pool, jnp.zeros((len(patient), 2), jnp.float32)
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
