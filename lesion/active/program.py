"""Algorithm 1 from the first labelled set to the last round, as one compilable function."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from lesion.active import oracle
from lesion.active.driver import PoolState, QueryConfig, initial_labeled, make_driver
from lesion.active.strategies import STRATEGIES, PoolOutputs
from lesion.metrics.stopping import SURE_NATS
from lesion.train.frozen import Examples, Learner

# CEAL (Wang 2016): slices of less entropy than START nats, less by STEP each round, are trained on as predicted.
PSEUDO_START, PSEUDO_STEP = 0.05, 0.0033


class RoundInfo(NamedTuple):
    """Results of R rounds, as JAX or NumPy arrays; a round fits a model, predicts with it, then queries.

    Attributes:
        probs: float32 [R, N], probability of glioma.
        labeled_slices: int32 [R], number of labelled slices that the round's model was trained on.
        labeled_patients: int32 [R], number of their patients.
        labeled_classes: int32 [R], number of their classes.
        pseudo_slices: int32 [R], number of slices trained on under their predicted label; they cost nothing.
        indices: int32 [R, K], slices queried at the end of the round.
        scores: float32 [R, K], their scores; -inf where nothing was left to query.
        num_tied: int32 [R], see `AcquireInfo`.
        max_entropy: float32 [R], nats: largest entropy among the unlabelled slices of the pool, -inf if none is left.
        mean_entropy: float32 [R], nats: mean of these entropies.
        p95_entropy: float32 [R], nats: their 95th percentile.
        sure_share: float32 [R], share of these entropies that are below `stopping.SURE_NATS`; 0 if none is left.
    """

    probs: Any
    labeled_slices: Any
    labeled_patients: Any
    labeled_classes: Any
    pseudo_slices: Any
    indices: Any
    scores: Any
    num_tied: Any
    max_entropy: Any
    mean_entropy: Any
    p95_entropy: Any
    sure_share: Any


class Run(NamedTuple):
    """The arguments in which runs of the same program differ.

    Attributes:
        key: key of the start, weights, fits and draws; strategies with the same key start alike.
        in_pool: bool [N], slices of the training folds.
        initial: int32 [], number of slices of the first labelled set; N labels the whole pool.
        strategy: int32 [], index among the program's strategies.
    """

    key: jax.Array
    in_pool: jax.Array
    initial: jax.Array
    strategy: jax.Array


class Keys(NamedTuple):
    """Keys of a run's first labelled set, first weights, fits and queries."""

    start: jax.Array
    init: jax.Array
    fit: jax.Array
    query: jax.Array


def keys_of(key: jax.Array) -> Keys:
    """Returns the keys of a run; all of its draws depend on `Run.key` alone."""
    return Keys(*(jax.random.fold_in(key, purpose) for purpose in range(4)))


def outputs_key(key: jax.Array, index: jax.Array | int) -> jax.Array:
    """Returns the key of the draws for the pool's outputs in round `index`; `key` is `Keys.query`."""
    return jax.random.fold_in(jax.random.fold_in(key, index), 0)


def outputs_beside_probs(strategies: Sequence[str]) -> list[str]:
    """Returns the fields of `PoolOutputs` that the strategies read beside `probs`."""
    return sorted({STRATEGIES[name].output for name in strategies} - {"probs"})


def pseudo_labels(probs: jax.Array, pool: PoolState, pseudo: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns CEAL's pseudo-labels: which slices are trained on as predicted in this round, and their labels.

    Args:
        probs: [N, 2], predictions of the round before; zeros before the first.
        pool: state of the pool at the start of the round.
        pseudo: bool [], whether the strategy uses pseudo-labels at all.

    Returns:
        Mask bool [N] and labels int32 [N].
    """
    entropy = jnp.sum(entr(probs), -1)
    limit = jnp.maximum(PSEUDO_START - PSEUDO_STEP * (pool.round - 1).astype(jnp.float32), 0.0)
    sure = (entropy < limit) & (pool.round > 0)
    return sure & pool.in_pool & ~pool.labeled & pseudo, jnp.argmax(probs, -1).astype(jnp.int32)


def make_query(strategies: Sequence[str], config: QueryConfig) -> Callable[..., tuple[PoolState, RoundInfo]]:
    """Builds `query(key, pool, outputs, patient, label, strategy, pseudo_mask) -> (pool, RoundInfo of this round)`.

    `key` is `Keys.query`, `strategy` [] an index; `label` [N] is -1 where hidden, `pseudo_mask` [N] marks the slices
    trained on under their predicted label.
    """
    steps = [make_driver(STRATEGIES[name], config).step for name in strategies]

    def query(key, pool, outputs, patient, label, strategy, pseudo_mask):
        unlabeled = pool.in_pool & ~pool.labeled
        key_round = jax.random.fold_in(jax.random.fold_in(key, pool.round), 1)
        new_pool, info = jax.lax.switch(strategy, steps, key_round, pool, outputs, patient)
        slices, patients = oracle.cost(pool.labeled, patient)
        entropies = _entropy_statistics(jnp.where(unlabeled, jnp.sum(entr(outputs.probs), -1), jnp.nan))
        classes = sum(jnp.any(pool.labeled & (label == value)).astype(jnp.int32) for value in (0, 1))
        costs = slices, patients, classes, jnp.sum(pseudo_mask)
        return new_pool, RoundInfo(outputs.probs[:, 1], *costs, *info, *entropies)

    return query


def algorithm1(
    learner: Learner, strategies: Sequence[str], config: QueryConfig, num_rounds: int
) -> Callable[[Run, Examples, jax.Array], tuple[RoundInfo, jax.Array]]:
    """Builds `run(run, examples, patient int32 [N]) -> (RoundInfo, last state)`.

    The first labelled set, the first weights and the fits' keys depend on the run's key alone: strategies are compared
    on the same start. Pure, with the same shapes for all folds, repeats and strategies: `vmap` over `Run` runs many.
    """
    query, output_names = make_query(strategies, config), outputs_beside_probs(strategies)
    is_pseudo = [STRATEGIES[name].pseudo for name in strategies]

    def run_rounds(run: Run, examples: Examples, patient: jax.Array):
        assert run.in_pool.shape == patient.shape == examples.label.shape, (run.in_pool.shape, patient.shape)
        keys, pseudo = keys_of(run.key), jnp.array(is_pseudo)[run.strategy]
        labeled = initial_labeled(keys.start, patient, run.in_pool, run.initial, examples.label)
        pool = PoolState(labeled, run.in_pool, jnp.int32(0))

        def one_round(carry: Any, index: jax.Array):
            state, pool, probs = carry
            pseudo_mask, pseudo_label = pseudo_labels(probs, pool, pseudo)
            revealed = oracle.reveal(examples.label, pool.labeled)
            visible = examples._replace(label=jnp.where(pseudo_mask, pseudo_label, revealed))
            state, _ = learner.fit(jax.random.fold_in(keys.fit, index), state, visible, pool.labeled | pseudo_mask)
            probs, key = learner.predict(state, visible), outputs_key(keys.query, index)
            outputs = PoolOutputs(probs, **{n: learner.pool_outputs(key, state, visible, n) for n in output_names})
            new_pool, info = query(keys.query, pool, outputs, patient, revealed, run.strategy, pseudo_mask)
            return (state, new_pool, probs), info

        hidden = examples._replace(label=jnp.full_like(examples.label, -1))
        start: Any = learner.init(keys.init, hidden), pool, jnp.zeros((len(patient), 2), jnp.float32)
        (state, *_), rounds = jax.lax.scan(one_round, start, jnp.arange(num_rounds))
        return rounds, state

    return run_rounds


def _entropy_statistics(entropy: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the last four statistics of `RoundInfo` of entropy [N] without NaN; -inf, 0, -inf and 0 if all are."""
    present = ~jnp.isnan(entropy)
    count = jnp.sum(present, dtype=jnp.float32)
    ascending = jnp.sort(jnp.where(present, entropy, jnp.inf))
    index = jnp.clip(jnp.ceil(0.95 * count) - 1, 0, None).astype(jnp.int32)
    largest = jnp.max(jnp.where(present, entropy, -jnp.inf))
    mean = jnp.sum(jnp.where(present, entropy, 0.0)) / jnp.maximum(count, 1.0)
    sure = jnp.sum(entropy < SURE_NATS, dtype=jnp.float32) / jnp.maximum(count, 1.0)  # a NaN is not below
    return largest, mean, jnp.where(count > 0, ascending[index], -jnp.inf), sure
