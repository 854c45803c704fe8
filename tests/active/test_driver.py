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


EQUAL = {  # kind of query: (strategy, query, indices that may be asked for, how many lots were drawn among)
    "all equal": (ENTROPY, QueryConfig(3), {0, 1, 2, 3, 4, 5}, 6),
    "patients": (ENTROPY, QueryConfig(2, "patient", max_patient_slices=2), {0, 1, 2, 3, 4, 5}, 6),
    "aift": (STRATEGIES["aift"], QueryConfig(2), {0, 1, 2, 3, 4, 5}, 6),
}


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "query", "may", "tied"), EQUAL.values(), ids=EQUAL)
def test_lots_decide_among_equal_ones_and_are_told(strategy, query, may, tied):
    queries, patient = driver.make_driver(strategy, query), jnp.arange(8) // 2
    pool = queries.init(jnp.zeros(8, bool), jnp.arange(8) < 6)
    seen = outputs([0.0] * 8)
    seen = seen._replace(augmented_probs=seen.probs[:, None])
    step = jax.jit(jax.vmap(lambda key: queries.step(key, pool, seen, patient)[1]))
    info = step(jax.random.split(KEY, 60))
    assert set(np.asarray(info.indices)[np.asarray(info.scores) > -np.inf].tolist()) == may
    assert (info.num_tied == tied).all()
    assert int(queries.step(KEY, pool._replace(in_pool=jnp.arange(8) < 2), seen, patient)[1].num_tied) == 0  # all asked


def test_lots_are_even_and_differ_by_key():
    lots = np.stack([driver._lots(key, 500) for key in jax.random.split(KEY, 200)])
    assert lots.min() >= 0 and lots.max() < 1 and len(np.unique(lots[0])) == 500
    np.testing.assert_allclose(lots.mean(0), 0.5, atol=0.12)
    first = np.bincount(lots[:, :5].argmax(1), minlength=5)  # who of five is drawn: 40 times each, give or take
    assert first.min() > 20 and abs(np.corrcoef(lots[:, 0], lots[:, 1])[0, 1]) < 0.25


@pytest.mark.slow
def test_what_the_scores_decide_is_not_left_to_lots():
    queries = driver.make_driver(ENTROPY, QueryConfig(3))
    pool = queries.init(jnp.zeros(6, bool), jnp.ones(6, bool))
    seen = outputs([0.0, 0.5, 0.0, 0.3, 0.0, 0.0])
    info = jax.vmap(lambda key: queries.step(key, pool, seen, jnp.arange(6))[1])(jax.random.split(KEY, 40))
    assert (np.asarray(info.indices)[:, :2] == [1, 3]).all()
    assert set(np.asarray(info.indices)[:, 2].tolist()) == {0, 2, 4, 5} and (info.num_tied == 4).all()
    assert int(driver.make_driver(ENTROPY, QueryConfig(2)).step(KEY, pool, seen, jnp.arange(6))[1].num_tied) == 0


@pytest.mark.slow
def test_aift_asks_patient_by_patient_the_least_certain_slices_first():
    queries, patient = driver.make_driver(STRATEGIES["aift"], QueryConfig(3)), jnp.array([0, 0, 0, 1, 1, 2])
    seen = outputs([0.02, 0.03, 0.01, 0.3, 0.4, 0.45])
    pool = queries.init(jnp.zeros(6, bool), jnp.ones(6, bool))
    seen = seen._replace(augmented_probs=seen.probs[:, None])
    info = queries.step(KEY, pool, seen, patient)[1]
    assert info.indices.tolist() == [5, 4, 3]  # of each patient the surest picture is kept: .45, .3, .01
    limited = driver.make_driver(STRATEGIES["aift"], QueryConfig(3, max_per_patient=1)).step(KEY, pool, seen, patient)[
        1
    ]
    assert limited.indices.tolist() == [5, 4, 1]


@pytest.mark.slow
def test_the_first_set_has_both_classes_and_does_not_peek(rng):
    patient, in_pool = jnp.asarray(np.repeat(np.arange(10), 5)), jnp.arange(50) < 45
    label = np.repeat([0, 0, 0, 0, 0, 0, 1, 0, 1, 0], 5)
    keys = jax.random.split(KEY, 30)
    plain = jax.vmap(lambda key: driver.initial_labeled(key, patient, in_pool, 10))(keys)
    both = jax.vmap(lambda key, label: driver.initial_labeled(key, patient, in_pool, 10, label), (0, None))
    sizes = set()
    for key, first, drawn in zip(keys, plain, both(keys, label), strict=True):
        assert set(label[drawn]) == {0, 1} and not (first & ~drawn).any()  # the same patients, and further ones
        assert (drawn == first).all() or len(set(label[first])) == 1
        sizes.add(int(drawn.sum()))
        lied = np.where(drawn, label, 1 - label)
        np.testing.assert_array_equal(both(key[None], lied)[0], drawn)
    assert min(sizes) == 10 and max(sizes) > 15


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
