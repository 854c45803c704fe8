import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion.active import driver, oracle
from lesion.active.driver import Asking
from lesion.active.strategies import STRATEGIES, View

KEY = jax.random.key(3)
ENTROPY = STRATEGIES["entropy"]


def view(glioma):
    p = jnp.asarray(glioma, jnp.float32)
    return View(jnp.stack([1 - p, p], -1))


def test_the_driver_asks_the_most_uncertain_that_may_be_asked_and_stops_when_there_is_none():
    asks, patient = driver.driver(ENTROPY, Asking(2)), jnp.arange(5)
    seen = view([0.5, 0.1, 1.0, 0.7, np.nan])
    pool = asks.init(jnp.array([0, 0, 0, 0, 1], bool), jnp.array([0, 1, 1, 1, 1], bool))
    pool, info = jax.jit(asks.step)(KEY, pool, seen, patient)
    assert info.indices.tolist() == [3, 1]
    pool, info = asks.step(KEY, pool, seen, patient)
    assert (info.indices[0], info.scores[1]) == (2, -jnp.inf)
    assert pool.labeled.tolist() == [False, True, True, True, True]
    assert pool.round == 2


@pytest.mark.parametrize("kind", ["no ties", "ties", "a few may be asked", "none may be asked"])
@pytest.mark.parametrize(("n", "k"), [(99_991, 50), (5_000, 20), (70_000, 1)])
def test_of_a_large_pool_the_same_are_taken_as_by_sorting_it(kind, n, k, rng):
    scores = {
        "no ties": rng.uniform(size=n),
        "ties": rng.uniform(size=n).round(2),
        "a few may be asked": np.where(rng.uniform(size=n) < 1e-4, 1.0, -np.inf),
        "none may be asked": np.full(n, -np.inf),
    }[kind].astype(np.float32)
    top, indices = jax.jit(driver._top_k, static_argnums=1)(scores, k)
    order = np.argsort(-scores, kind="stable")[:k]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(top, scores[order])


@functools.cache
def asks_for(asking):
    """One compilation for all examples of a test."""
    asks = driver.driver(ENTROPY, asking)
    step = jax.jit(asks.step)
    return lambda labeled, *args: step(KEY, asks.init(labeled, jnp.ones(labeled.shape, bool)), *args)


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
def test_no_patient_is_asked_more_than_allowed(pool, most):
    patient, p, labeled = pool
    _, info = asks_for(Asking(6, most=most))(jnp.asarray(labeled), view(p), jnp.asarray(patient))
    wanted, asked = [], {}
    for i in sorted(np.flatnonzero(~labeled), key=lambda i: p[i]):  # nearest one half first
        if asked.get(patient[i], 0) < most and len(wanted) < 6:
            asked[patient[i]] = asked.get(patient[i], 0) + 1
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
def test_whole_patients_are_asked_as_many_as_fit_and_at_least_one(aggregate, pool):
    patient, p, labeled = pool
    asks = asks_for(Asking(6, "patient", aggregate, largest=16))
    after, info = asks(jnp.asarray(labeled), view(p), jnp.asarray(patient))
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


def test_random_patients_are_drawn_alike_however_many_slices_they_have():
    patient = jnp.array([0, *[1] * 11])
    asks = driver.driver(STRATEGIES["random"], Asking(1, "patient", largest=11))
    pool = asks.init(jnp.zeros(12, bool), jnp.ones(12, bool))
    drawn = jax.vmap(lambda key: asks.step(key, pool, view([0.5] * 12), patient)[0].labeled[0])
    assert 0.4 < drawn(jax.random.split(KEY, 400)).mean() < 0.6


def test_the_first_set_is_whole_patients_and_no_more_than_needed():
    patient = jnp.asarray(np.repeat(np.arange(10), 5))
    askable = jnp.arange(50) < 45
    draws = jax.vmap(lambda k: driver.initial_labeled(k, patient, askable, 12))(jax.random.split(KEY, 20))
    for labeled in np.asarray(draws):
        assert labeled.sum() == 15  # the third patient passes 12
        assert set(np.bincount(patient[labeled], minlength=10)) == {0, 5}
        assert not labeled[45:].any()
    assert len({d.tobytes() for d in np.asarray(draws)}) > 10


def test_cost_counts_slices_and_patients_once():
    labeled = jnp.array([True, True, False, True])
    assert [int(c) for c in oracle.cost(labeled, jnp.array([2, 2, 0, 1]))] == [3, 2]
