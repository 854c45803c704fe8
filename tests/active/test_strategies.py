"""Every strategy against plain NumPy, alone, vmapped and jitted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion.active import driver
from lesion.active.diversity import Candidates
from lesion.active.strategies import STRATEGIES, PoolOutputs

KEY = jax.random.key(3)
PROBS = np.array([[0.5, 0.5], [0.9, 0.1], [0.0, 1.0], [0.3, 0.7], [1.0, 0.0], [0.8, 0.2]], np.float32)
N = len(PROBS)


def many(count):
    """[N, count, 2]: predictions of copies, or drawn with dropout."""
    p = np.random.default_rng(0).uniform(size=(N, count)).astype(np.float32)
    p[0] = 0.0  # certain
    return np.stack([1 - p, p], -1)


EMBEDDING = np.random.default_rng(1).normal(size=(N, 4)).astype(np.float32)
OUTPUTS = PoolOutputs(jnp.asarray(PROBS), many(9), many(10), jnp.asarray(EMBEDDING))


def _entropy(p):
    return -sum(x * np.log(x) for x in p if x > 0)


def _aift(copies):
    """PAPER.md's words, one after another."""
    p = np.sort(np.clip(copies[:, 1].astype(float), 1e-7, 1 - 1e-7))
    if copies[:, 1].mean() > 0.5:
        p = p[::-1]
    p = p[: round(len(p) / 4)]
    total = 0.0
    for i, a in enumerate(p):
        for j, b in enumerate(p):
            if i == j:
                total += -(a * np.log(a) + (1 - a) * np.log(1 - a))
            else:
                total += (a - b) * np.log(a / b) + ((1 - a) - (1 - b)) * np.log((1 - a) / (1 - b))
    return total


REFERENCES = {
    "entropy": _entropy,
    "ceal": _entropy,
    "margin": lambda p: 1 - (np.sort(p)[-1] - np.sort(p)[-2]),
    "least_confidence": lambda p: 1 - p.max(),
    "random": None,
    "aift": _aift,
    "bald": lambda samples: _entropy(samples.mean(0)) - np.mean([_entropy(p) for p in samples]),
}


@pytest.mark.parametrize("name", [name for name, row in STRATEGIES.items() if row.score])
def test_scores_equal_numpy_alone_vmapped_and_jitted(name):
    row = STRATEGIES[name]
    seen, keys = getattr(OUTPUTS, row.output), jax.random.split(KEY, N)
    alone = np.array([row.score(k, jnp.asarray(x)) for k, x in zip(keys, seen, strict=True)])
    np.testing.assert_allclose(jax.vmap(row.score)(keys, jnp.asarray(seen)), alone, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(row.score))(keys, jnp.asarray(seen)), alone, rtol=1e-5, atol=1e-6)
    if REFERENCES[name]:
        np.testing.assert_allclose(alone, [REFERENCES[name](x) for x in seen], rtol=1e-4, atol=1e-6)
    else:
        assert len(set(alone.tolist())) == N
    assert np.isfinite(alone).all()


def _k_centre(candidates, k):
    centres, picked = [i for i in range(N) if candidates.labeled[i]], []
    for _ in range(k):
        below_limit = may_be_picked(picked, candidates)
        left = [i for i in range(N) if candidates.allowed[i] and i not in picked and below_limit[i]]
        far = {i: min(((EMBEDDING[i] - EMBEDDING[c]) ** 2).sum() for c in centres + picked) for i in left}
        picked.append(max(far, key=far.__getitem__))
    return picked


def may_be_picked(picked, candidates):
    patient = candidates.patient.tolist()
    queried = [sum(patient[i] == patient[j] for j in picked) for i in range(N)]
    most = candidates.max_per_patient
    return [not most or n < most for n in queried]


def candidates(most=0, allowed=(1, 1, 0, 1, 1, 1)):
    labeled = jnp.array([0, 0, 1, 0, 0, 0], bool)
    return Candidates(labeled, jnp.array(allowed, bool), jnp.array([0, 0, 1, 1, 2, 2]), most)


@pytest.mark.parametrize("most", [0, 1])
def test_k_centre_is_the_greedy_loop(most):
    select = STRATEGIES["k_centre"].select
    indices, distances = jax.jit(lambda: select(KEY, OUTPUTS.embedding, OUTPUTS.probs, candidates(most), 3))()
    assert indices.tolist() == _k_centre(candidates(most), 3)
    assert (np.diff(distances) <= 1e-6).all()


def test_badge_begins_with_the_longest_gradient_and_draws_by_distance():
    select = STRATEGIES["badge"].select
    gradient = (PROBS[:, 1] - PROBS.argmax(-1))[:, None] * EMBEDDING
    keys = jax.random.split(KEY, 1000)
    drawn = jax.vmap(lambda key: select(key, OUTPUTS.embedding, OUTPUTS.probs, candidates(), 2)[0])(keys).tolist()
    longest = max(range(N), key=lambda i: (gradient[i] ** 2).sum())
    assert {first for first, _ in drawn} == {longest}
    distance = ((gradient - gradient[longest]) ** 2).sum(-1) * np.asarray(candidates().allowed)
    share = np.bincount([second for _, second in drawn], minlength=N) / len(drawn)
    np.testing.assert_allclose(share, distance / distance.sum(), atol=0.06)


@pytest.mark.parametrize("name", ["badge", "k_centre"])
def test_what_is_chosen_one_by_one_runs_out(name):
    indices, distances = STRATEGIES[name].select(
        KEY, OUTPUTS.embedding, OUTPUTS.probs, candidates(allowed=(1, 0, 0, 0, 0, 1)), 4
    )
    assert sorted(indices[:2].tolist()) == [0, 5]
    assert (distances[2:] == -jnp.inf).all() and (distances[:2] > -jnp.inf).all()


@pytest.mark.parametrize("name", ["entropy", "margin", "least_confidence"])
def test_sure_slices_keep_their_order(name):
    probs = jax.nn.sigmoid(jnp.array([[-x, x] for x in (12.0, 18.0, 20.0, 25.0, 30.0)]))
    scores = jax.vmap(STRATEGIES[name].score, (None, 0))(KEY, probs)
    assert (np.diff(scores) < 0).all()


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6, unique=True))
def test_the_three_uncertainties_query_the_same_of_two_classes(values):
    # 2^-10 apart, so that rounding in a score cannot swap two slices
    p = np.unique(np.round(np.abs(np.array(values) - 0.5) * 1024) / 1024)[:4].astype(np.float32)
    probs, every = jnp.asarray(np.stack([0.5 - p, 0.5 + p], -1)), jnp.arange(len(p))
    queried = []
    for name in ("entropy", "margin", "least_confidence"):
        queries = driver.make_driver(STRATEGIES[name], driver.QueryConfig(1))
        pool = queries.init(jnp.zeros(len(p), bool), jnp.ones(len(p), bool))
        queried.append(int(queries.step(KEY, pool, PoolOutputs(probs), every)[1].indices[0]))
    assert len(set(queried)) == 1
