"""Algorithm 1 from the first labelled set to the last round, as one compilable function."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lesion.active import acquisition, oracle
from lesion.active.driver import driver, initial_labeled
from lesion.train.learner import Examples, Learner


class RoundInfo(NamedTuple):
    """What happened in each of R rounds; the score of a round is that of the model before it asks.

    Attributes:
        probs: float32 [R, N], probability of glioma.
        labeled_slices: int32 [R], what the model of this round was trained on.
        labeled_patients: int32 [R].
        indices: int32 [R, K], asked for at the end of the round.
        scores: float32 [R, K]; -inf where nothing was left to ask.
        max_entropy: float32 [R], nats: largest among the askable unlabelled, -inf if none is left.
        mean_entropy: float32 [R], nats.
    """

    probs: jax.Array
    labeled_slices: jax.Array
    labeled_patients: jax.Array
    indices: jax.Array
    scores: jax.Array
    max_entropy: jax.Array
    mean_entropy: jax.Array


def algorithm1(
    learner: Learner, strategies: Sequence[str], num_acquire: int, initial: int, num_rounds: int
) -> Callable[..., RoundInfo]:
    """Builds `run(key, examples, patient [N], askable [N], strategy []) -> RoundInfo`.

    `strategy` indexes `strategies`, so that all share one compilation. The first labelled set, the first weights and
    the fits' keys depend on `key` alone: strategies are compared on the same start.
    """
    drivers = [driver(acquisition.STRATEGIES[name], num_acquire) for name in strategies]

    def run(
        key: jax.Array, examples: Examples, patient: jax.Array, askable: jax.Array, strategy: jax.Array
    ) -> RoundInfo:
        key_start, key_init, key_fit, key_ask = (jax.random.fold_in(key, purpose) for purpose in range(4))
        labeled = initial_labeled(key_start, patient, askable, initial)
        pool = drivers[0].init(labeled, askable)
        state = learner.init(key_init, examples)

        def one_round(carry, index):
            state, pool = carry
            seen = examples._replace(label=oracle.reveal(examples.label, pool.labeled))
            state, _ = learner.fit(jax.random.fold_in(key_fit, index), state, seen, pool.labeled)
            probs = learner.predict(state, examples)
            slices, patients = oracle.cost(pool.labeled, patient)
            rest = pool.askable & ~pool.labeled
            entropy = jax.vmap(acquisition.entropy, (None, 0))(key_ask, probs)
            branches = [d.step for d in drivers]
            asked, info = jax.lax.switch(strategy, branches, jax.random.fold_in(key_ask, index), pool, probs)
            out = RoundInfo(
                probs[:, 1],
                slices,
                patients,
                info.indices,
                info.scores,
                jnp.max(jnp.where(rest, entropy, -jnp.inf)),
                jnp.sum(jnp.where(rest, entropy, 0.0)) / jnp.maximum(jnp.sum(rest, dtype=jnp.float32), 1.0),
            )
            return (state, asked), out

        return jax.lax.scan(one_round, (state, pool), jnp.arange(num_rounds))[1]

    return run
