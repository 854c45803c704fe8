import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion.active import driver, oracle
from lesion.active.driver import QueryConfig
from lesion.active.strategies import STRATEGIES, PoolOutputs

KEY = jax.random.key(3)
ENTROPY = STRATEGIES["entropy"]


def outputs(glioma):
    p = jnp.asarray(glioma, jnp.float32)
    return PoolOutputs(jnp.stack([1 - p, p], -1))


def test_the_driver_queries_the_most_uncertain_of_the_pool_until_it_is_exhausted():
    queries, patient = driver.make_driver(ENTROPY, QueryConfig(2)), jnp.arange(5)
    seen = outputs([0.5, 0.1, 1.0, 0.7, np.nan])
    pool = queries.init(jnp.array([0, 0, 0, 0, 1], bool), jnp.array([0, 1, 1, 1, 1], bool))
    pool, info = jax.jit(queries.step)(KEY, pool, seen, patient)
    assert info.indices.tolist() == [3, 1]
    pool, info = queries.step(KEY, pool, seen, patient)
    assert (info.indices[0], info.scores[1]) == (2, -jnp.inf)
    assert pool.labeled.tolist() == [False, True, True, True, True]
    assert pool.round == 2


@pytest.mark.parametrize("kind", ["no ties", "ties", "a few are in the pool", "an empty pool"])
@pytest.mark.parametrize(("n", "k"), [(99_991, 50), (5_000, 20), (70_000, 1)])
def test_of_a_large_pool_the_same_are_taken_as_by_sorting_it(kind, n, k, rng):
    scores = {
        "no ties": rng.uniform(size=n),
        "ties": rng.uniform(size=n).round(2),
        "a few are in the pool": np.where(rng.uniform(size=n) < 1e-4, 1.0, -np.inf),
        "an empty pool": np.full(n, -np.inf),
    }[kind].astype(np.float32)
    top, indices = jax.jit(driver._top_k, static_argnums=1)(scores, k)
    order = np.argsort(-scores, kind="stable")[:k]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(top, scores[order])


@functools.cache
def query_step(config):
    """One compilation for all examples of a test."""
    queries = driver.make_driver(ENTROPY, config)
    step = jax.jit(queries.step)
    return lambda labeled, *args: step(KEY, queries.init(labeled, jnp.ones(labeled.shape, bool)), *args)


@st.composite
def pools(draw, n=16):
    patient = np.sort(np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))))
    grid = draw(st.permutations(range(1, n + 1)))  # no ties
    labeled = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    return patient, 0.5 + 0.49 * np.array(grid) / (n + 1), labeled


def entropies(p):
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


@settings(max_examples=30, deadline=None)
@given(pools(), st.integers(1, 3))
def test_no_patient_is_queried_more_than_allowed(pool, most):
    patient, p, labeled = pool
    _, info = query_step(QueryConfig(6, max_per_patient=most))(jnp.asarray(labeled), outputs(p), jnp.asarray(patient))
    wanted, queried = [], {}
    for i in sorted(np.flatnonzero(~labeled), key=lambda i: p[i]):  # nearest one half first
        if queried.get(patient[i], 0) < most and len(wanted) < 6:
            queried[patient[i]] = queried.get(patient[i], 0) + 1
            wanted.append(int(i))
    assert [i for i, s in zip(info.indices.tolist(), info.scores, strict=True) if s > -np.inf] == wanted


AGGREGATES = {
    "mean": np.mean,
    "max": np.max,
    "top": lambda scores: np.sort(scores)[::-1][: int(np.ceil(0.25 * len(scores)))].mean(),
}


@pytest.mark.parametrize("aggregate", AGGREGATES)
@settings(max_examples=20, deadline=None)
@given(pools())
def test_whole_patients_are_queried_as_many_as_fit_and_at_least_one(aggregate, pool):
    patient, p, labeled = pool
    step = query_step(QueryConfig(6, "patient", aggregate, max_patient_slices=16))
    after, info = step(jnp.asarray(labeled), outputs(p), jnp.asarray(patient))
    score = {i: AGGREGATES[aggregate](entropies(p[(patient == i) & ~labeled])) for i in np.unique(patient[~labeled])}
    wanted, total = [], 0
    for i in sorted(score, key=score.__getitem__, reverse=True):
        size = int(((patient == i) & ~labeled).sum())
        if wanted and total + size > 6:
            break
        wanted.append(i)
        total += size
    assert set(np.flatnonzero(np.asarray(after.labeled) & ~labeled)) == set(
        np.flatnonzero(np.isin(patient, wanted) & ~labeled)
    )
    assert int((info.scores > -jnp.inf).sum()) == total


@pytest.mark.slow
def test_random_patients_are_drawn_alike_however_many_slices_they_have():
    patient = jnp.array([0, *[1] * 11])
    queries = driver.make_driver(STRATEGIES["random"], QueryConfig(1, "patient", max_patient_slices=11))
    pool = queries.init(jnp.zeros(12, bool), jnp.ones(12, bool))
    drawn = jax.vmap(lambda key: queries.step(key, pool, outputs([0.5] * 12), patient)[0].labeled[0])
    assert 0.4 < drawn(jax.random.split(KEY, 400)).mean() < 0.6


def test_the_first_set_is_whole_patients_and_no_more_than_needed():
    patient = jnp.asarray(np.repeat(np.arange(10), 5))
    in_pool = jnp.arange(50) < 45
    draws = jax.vmap(lambda k: driver.initial_labeled(k, patient, in_pool, 12))(jax.random.split(KEY, 20))
    for labeled in np.asarray(draws):
        assert labeled.sum() == 15  # the third patient passes 12
        assert set(np.bincount(patient[labeled], minlength=10)) == {0, 5}
        assert not labeled[45:].any()
    assert len({d.tobytes() for d in np.asarray(draws)}) > 10


def test_cost_counts_slices_and_patients_once():
    labeled = jnp.array([True, True, False, True])
    assert [int(c) for c in oracle.cost(labeled, jnp.array([2, 2, 0, 1]))] == [3, 2]
