"""The whole experiment as one program: traces, starts, hidden labels, parallel runs, resuming."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesion.active import driver, parallel, program
from lesion.active.driver import QueryConfig
from lesion.active.program import Run
from lesion.errors import UserError
from lesion.models.heads import Head
from lesion.train.frozen import Examples, frozen_learner
from lesion.train.network import Network
from lesion.train.step import Recipe

pytestmark = pytest.mark.slow

KEY = jax.random.key(3)
SCORED = ("entropy", "random", "ceal")
PATIENT, IN_POOL = jnp.arange(40) // 4, jnp.arange(40) < 32
INPUTS = jax.random.normal(KEY, (40, 5, 6))
SHOWN = Examples(INPUTS, (INPUTS[:, 0, 0] > 0).astype(jnp.int32))
LEARNER = frozen_learner(Network(Head((4,), 0.1)), Recipe(2, 8, 0.05), num_samples=3)


def run_of(strategy=0, seed=3, in_pool=IN_POOL, initial=8):
    return Run(jax.random.key(seed), in_pool, jnp.int32(initial), jnp.int32(strategy))


@pytest.fixture(scope="module")
def counted():
    traces = []
    run = program.algorithm1(LEARNER, SCORED, QueryConfig(5), 4)
    return jax.jit(lambda *args: (traces.append(1), run(*args)[0])[1]), traces


def test_one_compilation_serves_every_round_seed_fold_strategy_and_start(counted):
    run, traces = counted
    for case in (run_of(), run_of(1, 1), run_of(2, 2, ~IN_POOL), run_of(initial=40)):
        run(case, SHOWN, PATIENT)
    assert len(traces) == 1


def test_strategies_start_alike_and_the_pool_only_shrinks(counted):
    infos = [counted[0](run_of(s), SHOWN, PATIENT) for s in range(3)]
    for info in infos:
        np.testing.assert_array_equal(info.probs[0], infos[0].probs[0])
        asked = np.asarray(info.indices).ravel()
        assert len(set(asked)) == asked.size
        assert IN_POOL[asked].all()
        assert np.diff(info.labeled_slices).tolist() == [5, 5, 5]
        assert (info.mean_entropy <= info.p95_entropy).all() and (info.p95_entropy <= info.max_entropy).all()
        assert (info.max_entropy <= np.log(2) + 1e-6).all()


def test_with_all_labels_nothing_is_left_to_ask(counted):
    info = counted[0](run_of(initial=40), SHOWN, PATIENT)
    assert (info.labeled_slices == 32).all() and (info.labeled_patients == 8).all()
    assert (info.scores == -jnp.inf).all() and (info.max_entropy == -jnp.inf).all()


def revealed(info, in_pool=IN_POOL, initial=8):
    """What the oracle told: the first set, and all questions but the last, which comes after the last fit."""
    first = driver.initial_labeled(jax.random.fold_in(KEY, 0), PATIENT, in_pool, initial, SHOWN.label)
    told = np.asarray(first).copy()
    told[np.asarray(info.indices[:-1]).ravel()] = True
    return jnp.asarray(told)


@pytest.mark.parametrize("name", ["entropy", "ceal", "aift", "bald", "badge", "typiclust"])  # one a way of looking
def test_a_hidden_label_never_reaches_the_learner(name):
    run = jax.jit(program.algorithm1(LEARNER, (name,), QueryConfig(5, max_per_patient=3), 4))
    info, _ = run(run_of(), SHOWN, PATIENT)
    lied = SHOWN._replace(label=jnp.where(revealed(info), SHOWN.label, 1 - SHOWN.label))
    again, _ = run(run_of(), lied, PATIENT)
    np.testing.assert_array_equal(info.probs, again.probs)
    np.testing.assert_array_equal(info.indices, again.indices)


def test_what_looks_at_labels_sees_those_that_were_told_only():
    """A learner whose predictions are the labels it is shown: hidden ones change nothing."""

    def predict(state, examples):
        glioma = jnp.where(examples.label < 0, 0.5, examples.label.astype(jnp.float32))
        return jnp.stack([1 - glioma, glioma], -1)

    def pool_outputs(key, state, examples, name):
        return LEARNER.pool_outputs(key, state, examples, name) + predict(state, examples)[:, :1]

    peeks = LEARNER._replace(predict=predict, pool_outputs=pool_outputs)
    run = jax.jit(program.algorithm1(peeks, ("k_centre",), QueryConfig(5), 4))
    info, _ = run(run_of(), SHOWN, PATIENT)
    lied = SHOWN._replace(label=jnp.where(revealed(info), SHOWN.label, 1 - SHOWN.label))
    again, _ = run(run_of(), lied, PATIENT)
    jax.tree.map(np.testing.assert_array_equal, info, again)
    told = run(run_of(), SHOWN._replace(label=1 - SHOWN.label), PATIENT)[0]
    assert (told.probs != info.probs).any()  # what was told does show


def test_ceal_trains_on_what_it_is_sure_of_and_pays_nothing_for_it(monkeypatch):
    monkeypatch.setattr(program, "PSEUDO_START", 0.6)  # so that a weak model is sure of something
    run = jax.jit(program.algorithm1(LEARNER, SCORED, QueryConfig(5), 4))
    info, _ = run(run_of(2), SHOWN, PATIENT)
    plain, _ = run(run_of(0), SHOWN, PATIENT)
    assert info.pseudo_slices[0] == 0 and (info.pseudo_slices[1:] > 0).any() and not plain.pseudo_slices.any()
    np.testing.assert_array_equal(info.labeled_slices, plain.labeled_slices)
    np.testing.assert_array_equal(info.probs[0], plain.probs[0])
    assert (info.probs[-1] != plain.probs[-1]).any()


def test_parallel_runs_give_what_single_runs_give_and_a_killed_batch_is_not_run_again(tmp_path):
    run = program.algorithm1(LEARNER, SCORED, QueryConfig(5), 3)
    todo, shared = [run_of(s, seed) for seed in (1, 2) for s in range(3)][:5], (SHOWN, PATIENT)

    side_by_side = {count: parallel.side_by_side(run, count) for count in (1, 2)}

    def results(count, compiled=None):
        compiled = compiled or side_by_side[count]
        batches = parallel.run_all(compiled, todo, list("abcde"), shared, count, tmp_path / str(count))
        return [result for batch in batches for result in batch]

    single, wide = results(1), results(2)
    assert len(single) == len(wide) == 5
    for (a, _), (b, _) in zip(single, wide, strict=True):
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_allclose(a.probs, b.probs, rtol=1e-4, atol=1e-6)
    (tmp_path / "2" / "00002-2.npz").unlink()
    again = results(2)
    for (a, sha_a), (b, sha_b) in zip(wide, again, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
        assert sha_a == sha_b
    results(2, lambda *args: pytest.fail("run again"))


def test_a_run_that_diverged_is_named_and_not_kept(tmp_path):
    inputs = SHOWN._replace(inputs=SHOWN.inputs.at[3].set(jnp.nan))
    compiled = parallel.side_by_side(program.algorithm1(LEARNER, SCORED, QueryConfig(5), 3), 1)
    with pytest.raises(UserError, match="fold 1: diverged in round 1: lower"):
        list(parallel.run_all(compiled, [run_of()], ["fold 1"], (inputs, PATIENT), 1, tmp_path))
    assert not list(tmp_path.iterdir())
