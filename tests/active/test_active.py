import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion.active import acquisition, driver, oracle, program
from lesion.models.head import Head
from lesion.train import learner, network, recipe

KEY = jax.random.key(3)
PROBS = np.array([[0.5, 0.5], [0.9, 0.1], [0.0, 1.0], [0.3, 0.7], [1.0, 0.0]], np.float32)


def _entropy(p):
    return -sum(x * np.log(x) for x in p if x > 0)


REFERENCES = {
    "entropy": _entropy,
    "margin": lambda p: np.sort(p)[-2] - np.sort(p)[-1],
    "least_confidence": lambda p: 1 - p.max(),
    "random": None,
}


@pytest.mark.parametrize("name", acquisition.STRATEGIES)
def test_scores_equal_numpy_alone_vmapped_and_jitted(name):
    score = acquisition.STRATEGIES[name]
    keys = jax.random.split(KEY, len(PROBS))
    alone = np.array([score(k, jnp.asarray(p)) for k, p in zip(keys, PROBS, strict=True)])
    np.testing.assert_array_equal(jax.vmap(score)(keys, jnp.asarray(PROBS)), alone)
    np.testing.assert_allclose(jax.jit(jax.vmap(score))(keys, jnp.asarray(PROBS)), alone, rtol=1e-6)
    if REFERENCES[name]:
        np.testing.assert_allclose(alone, [REFERENCES[name](p) for p in PROBS], rtol=1e-6, atol=1e-7)
    else:
        assert len(set(alone.tolist())) == len(PROBS)
    assert np.isfinite(alone).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6, unique=True))
def test_the_three_uncertainties_ask_for_the_same_of_two_classes(values):
    # 2^-10 apart, so that rounding in a score cannot swap two slices
    p = np.unique(np.round(np.abs(np.array(values) - 0.5) * 1024) / 1024)[:4].astype(np.float32)
    probs = jnp.asarray(np.stack([0.5 - p, 0.5 + p], -1))
    asked = []
    for name in ("entropy", "margin", "least_confidence"):
        asks = driver.driver(acquisition.STRATEGIES[name], 1)
        pool = asks.init(jnp.zeros(len(p), bool), jnp.ones(len(p), bool))
        asked.append(int(asks.step(KEY, pool, probs)[1].indices[0]))
    assert len(set(asked)) == 1


def test_the_driver_asks_the_most_uncertain_that_may_be_asked_and_stops_when_there_is_none():
    asks = driver.driver(acquisition.entropy, 2)
    probs = jnp.asarray(PROBS).at[4].set(jnp.nan)
    labeled = jnp.array([False, False, False, False, True])
    pool = asks.init(labeled, jnp.array([False, True, True, True, True]))
    pool, info = jax.jit(asks.step)(KEY, pool, probs)
    assert info.indices.tolist() == [3, 1]
    pool, info = asks.step(KEY, pool, probs)
    assert (info.indices[0], info.scores[1]) == (2, -jnp.inf)
    assert pool.labeled.tolist() == [False, True, True, True, True]
    assert pool.round == 2


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


@pytest.fixture(scope="module")
def experiment():
    inputs = jax.random.normal(KEY, (40, 2, 6))
    shown = learner.Examples(inputs, (inputs[:, 0, 0] > 0).astype(jnp.int32))
    method = learner.frozen(network.of_head(Head((4,))), recipe.Recipe(2, 8))
    traces = []
    run = program.algorithm1(method, ("entropy", "random"), 5, 8, 4)
    counted = jax.jit(lambda *args: (traces.append(1), run(*args))[1])
    return shown, jnp.arange(40) // 4, jnp.arange(40) < 32, counted, traces


def test_one_compilation_serves_every_round_seed_fold_and_strategy(experiment):
    shown, patient, askable, run, traces = experiment
    for seed, strategy, mask in ((0, 0, askable), (1, 1, askable), (2, 0, ~askable)):
        run(jax.random.key(seed), shown, patient, mask, jnp.int32(strategy))
    assert len(traces) == 1


def test_strategies_start_alike_and_the_pool_only_shrinks(experiment):
    shown, patient, askable, run, _ = experiment
    entropy, random = (run(KEY, shown, patient, askable, jnp.int32(s)) for s in (0, 1))
    np.testing.assert_array_equal(entropy.probs[0], random.probs[0])
    for info in (entropy, random):
        asked = np.asarray(info.indices).ravel()
        assert len(set(asked)) == asked.size
        assert askable[asked].all()
        assert np.diff(info.labeled_slices).tolist() == [5, 5, 5]
    assert (entropy.max_entropy <= np.log(2) + 1e-6).all()


def test_a_hidden_label_never_reaches_the_learner(experiment):
    shown, patient, askable, run, _ = experiment
    info = run(KEY, shown, patient, askable, jnp.int32(0))
    first = driver.initial_labeled(jax.random.fold_in(KEY, 0), patient, askable, 8)
    revealed = np.asarray(first).copy()
    revealed[np.asarray(info.indices[:-1]).ravel()] = True  # the last question is asked after the last fit
    lied = shown._replace(label=jnp.where(jnp.asarray(revealed), shown.label, 1 - shown.label))
    again = run(KEY, lied, patient, askable, jnp.int32(0))
    np.testing.assert_array_equal(info.probs, again.probs)
    np.testing.assert_array_equal(info.indices, again.indices)
