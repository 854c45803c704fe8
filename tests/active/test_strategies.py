"""Every strategy against plain NumPy, alone, vmapped and jitted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion.active import diversity, driver
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


REFERENCES = {
    "entropy": _entropy,
    "ceal": _entropy,
    "margin": lambda p: 1 - (np.sort(p)[-1] - np.sort(p)[-2]),
    "least_confidence": lambda p: 1 - p.max(),
    "random": None,
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


BY_TURNS = [name for name, row in STRATEGIES.items() if row.select]


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_TURNS)
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


def _aift(p):
    """PAPER.md's words, one after another, of a candidate's patches p [m]."""
    p = np.sort(np.clip(p.astype(float), 1e-7, 1 - 1e-7))
    if p.mean() > 0.5:
        p = p[::-1]
    p = p[: max(1, round(len(p) / 4))]
    total = 0.0
    for i, a in enumerate(p):
        for j, b in enumerate(p):
            if i == j:
                total += -(a * np.log(a) + (1 - a) * np.log(1 - a))
            else:
                total += (a - b) * np.log(a / b) + ((1 - a) - (1 - b)) * np.log((1 - a) / (1 - b))
    return total


@pytest.mark.parametrize("copies", [1, 5])
def test_aift_ranks_a_patient_by_all_of_its_pictures(copies):
    rng = np.random.default_rng(0)
    patient, allowed = np.repeat([3, 1, 4, 0], [6, 2, 1, 11]), np.arange(20) != 4
    p = rng.beta(0.5, 0.5, (20, copies)).astype(np.float32)
    p[9:] **= 8  # a patient of whom the model is nearly sure
    seen = jnp.stack([1 - p, p], -1)
    found = jax.jit(STRATEGIES["aift"].patient_score)(seen, jnp.asarray(patient), jnp.asarray(allowed))
    wanted = {i: _aift(p[(patient == i) & allowed].ravel()) for i in set(patient.tolist())}
    np.testing.assert_allclose(found, [wanted[i] for i in patient.tolist()], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_aift_by_hand():
    """Eight patches of mean .3625: the two least are kept, .1 and .2."""
    p = np.array([[0.2, 0.9], [0.1, 0.3], [0.4, 0.3], [0.4, 0.3]], np.float32)
    found = STRATEGIES["aift"].patient_score(jnp.stack([1 - p, p], -1), jnp.zeros(4, int), jnp.ones(4, bool))
    entropies = 0.325083 + 0.500402
    pairs = 2 * (0.1 * np.log(2) + 0.1 * np.log(9 / 8))  # (.2 − .1) ln (.2 / .1) + (.9 − .8) ln (.9 / .8), twice
    np.testing.assert_allclose(found, entropies + pairs, rtol=1e-5)


# Three blobs and a slice far from all, of 24 slices; the first blob has a label.
BLOBS = np.concatenate([np.random.default_rng(2).normal(np.eye(3)[i], 0.05, (n, 3)) for i, n in enumerate((6, 10, 7))])
BLOBS = np.concatenate([BLOBS, [[-1.0, -1, -1]]]).astype(np.float32)
OF_BLOBS = Candidates(jnp.arange(24) == 2, (jnp.arange(24) != 2) & (jnp.arange(24) != 7), jnp.arange(24) // 2, 0)
SEEN = np.linspace(0.02, 0.6, 24).astype(np.float32)


def select(name, candidates=OF_BLOBS, k=2, key=KEY):
    run = jax.jit(
        lambda: STRATEGIES[name].select(key, jnp.asarray(BLOBS), jnp.stack([1 - SEEN, SEEN], -1), candidates, k)
    )
    return [np.asarray(x) for x in run()]


def unit(points):
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def distances(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def lloyd(points, weight, centres):
    centres = centres.copy()
    for _ in range(diversity.NUM_ITERATIONS):
        cluster = ((points[:, None] - centres) ** 2).sum(-1).argmin(1)
        for c in set(cluster[weight > 0].tolist()):
            centres[c] = np.average(points[cluster == c], axis=0, weights=weight[cluster == c])
    return centres, ((points[:, None] - centres) ** 2).sum(-1).argmin(1)


def test_typiclust_takes_the_most_typical_of_the_largest_clusters_without_a_label():
    pool, points = np.arange(24) != 7, unit(BLOBS.astype(float))
    start = jax.random.uniform(jax.random.fold_in(KEY, 0), (24,))
    centres = points[np.argsort(np.where(pool, start, 2.0))[:3]]  # a label and two to pick
    _, cluster = lloyd(points, pool.astype(float), centres)
    wanted, covered = [], np.bincount(cluster[[2]], minlength=3)
    for _ in range(2):
        size = np.bincount(cluster[pool], minlength=3)
        chosen = max(range(3), key=lambda c: (-covered[c], size[c]))
        typicality = {
            i: 1 / np.sort(distances(points)[i][(cluster == chosen) & pool & (np.arange(24) != i)])[:20].mean()
            for i in np.flatnonzero((cluster == chosen) & pool)
        }
        wanted.append(max((i for i in typicality if i != 2 and i not in wanted), key=typicality.__getitem__))
        covered[chosen] += 1
    found, scores = select("typiclust")
    assert found.tolist() == wanted and (scores > 0).all()


def test_probcover_takes_the_ball_that_covers_most():
    points, pool = unit(BLOBS.astype(float)), np.arange(24) != 7
    distance = distances(points)
    first = int(diversity.argmax_by_lot(jax.random.fold_in(KEY, 0), jnp.zeros(24), jnp.asarray(pool)))
    farthest = np.where(pool, distance[first], -1).argmax()
    _, cluster = lloyd(points, pool.astype(float), points[[first, farthest]])
    to_other = [distance[i][(cluster != cluster[i]) & pool].min() for i in np.flatnonzero(pool)]
    delta = max(d for d in to_other if np.mean(np.array(to_other) < d) <= 0.05)
    near = (distance < delta) & pool & pool[:, None]
    covered, gains = near[2].copy(), []
    found, scores = select("probcover")
    for row, score in zip(found, scores, strict=True):
        gain = (near & ~covered).sum(1)
        gains.append(gain[np.asarray(OF_BLOBS.allowed)].max())
        assert gain[row] == score == gains[-1]  # of equal ones any
        covered |= near[row]
    assert gains[0] > 0


def test_margin_k_means_takes_one_slice_near_each_centre_of_the_least_certain():
    weight = np.where(OF_BLOBS.allowed, 2 * np.minimum(SEEN, 1 - SEEN), 0.0)
    rows = np.argsort(-weight)[:20]  # ten times as many as are picked
    centres, _ = lloyd(BLOBS[rows].astype(float), weight[rows], BLOBS[rows[:2]].astype(float))
    wanted = []
    for centre in centres:
        left = [i for i in rows if weight[i] and i not in wanted]
        wanted.append(min(left, key=lambda i: ((BLOBS[i] - centre) ** 2).sum()))
    found, scores = select("margin_k_means")
    assert found.tolist() == wanted and (scores <= 0).all()
