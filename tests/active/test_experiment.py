"""Whole experiments on a tiny backbone: what is refused, what is written, and what a killed one leaves."""

import csv
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from lesion import models
from lesion.active import driver, experiment, program
from lesion.errors import UserError

pytestmark = pytest.mark.slow

TABLES = ("acquisitions.csv", "curves.csv", "stops.csv", "runs.csv", "metrics.json")
BAD = {
    "an unknown strategy": ({"strategies": ("luck",)}, "no strategy 'luck'"),
    "bald without dropout": ({"strategies": ("bald",)}, "head.dropout above 0"),
    "aift without copies": ({"strategies": ("aift",), "num_copies": 0}, "num_copies above 0"),
    "one by one by patient": ({"strategies": ("badge",), "unit": "patient"}, "leave --config.unit at slice"),
    "no such unit": ({"unit": "hospital"}, "choose one of 'slice', 'patient'"),
    "no rounds": ({"num_rounds": 0}, "num_rounds=0: it must be 1 to 10000"),
    "a limit by patient": ({"strategies": ("entropy",), "unit": "patient", "max_per_patient": 2}, "leave it at 0"),
    "a budget below nothing": ({"budget_slices": -1}, "budget_slices=-1: it must be 0 to 1000000"),
    "too few slices": ({"initial_labeled": 20}, "has 20 slices to label"),
}


@pytest.fixture(autouse=True)
def backbone(monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", tiny.SPEC)


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", tiny.SPEC)
        return tiny.setup(tiny.active_config(), tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_run_is_one_line(changes, message, setup, tmp_path):
    with pytest.raises(UserError, match=message):
        experiment.run_active(tiny.active_config(**changes), setup, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_config_of_transfer_is_refused(setup, tmp_path):
    with pytest.raises(UserError, match="begin from --config="):
        experiment.run_active(tiny.config(), setup, tmp_path / "run")


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# Until what is there it is left alone; then killed.
MOMENTS = {
    "frozen": ({}, ["*/00000-1.npz", "k_centre/*.npz"]),
    "finetune": ({"num_repeats": 1, "strategies": ("k_centre",)}, ["k_centre/*/fit_1/*", "k_centre/*/rounds/2/*"]),
}


@pytest.mark.parametrize("mode", MOMENTS)
def test_killed_at_any_moment_it_ends_with_the_same_bytes(mode, tmp_path, monkeypatch):
    context, (changes, moments) = tiny.forked(monkeypatch), MOMENTS[mode]

    def start(workdir):
        process = context.Process(target=tiny.label, args=(workdir,), kwargs={"mode": mode} | changes)
        process.start()
        return process

    def finish(workdir):
        process = start(workdir)
        process.join(400)
        assert process.exitcode == 0

    finish(tmp_path / "whole")
    for moment in moments:
        process = start(tmp_path / "run")
        end = time.monotonic() + 200
        while not list((tmp_path / "run" / "rounds").glob(moment)) and time.monotonic() < end:
            assert process.is_alive()
            time.sleep(0.01)
        process.kill()
        process.join()
        assert not (tmp_path / "run" / "metrics.json").exists()
    finish(tmp_path / "run")
    for name in TABLES:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (tmp_path / "run" / "rounds").exists()
    of = {s: [r for r in rows(tmp_path / "run" / "runs.csv") if r["strategy"] == s] for s in ("k_centre", "full")}
    assert len(of["k_centre"]) == len(of["full"]) == 2 * changes.get("num_repeats", 2)
    queried = [row for row in rows(tmp_path / "run" / "acquisitions.csv") if row["fold"] == row["seed"] == "0"]
    assert len({(row["strategy"], row["slice"]) for row in queried}) == len(queried) > 0


def test_an_exhausted_pool_ends_the_study_and_that_is_told_before(tmp_path, capfd):
    made = tiny.active_config(num_rounds=9, num_acquire=4, strategies=("entropy", "random"), num_epochs=1)
    setup = tiny.setup(made, tmp_path / "data")
    plan = experiment.make_plan(made, setup)
    assert plan.pool_slices.tolist() == [20, 20] and (plan.first_slices == 8).all()  # two patients, of two classes
    assert plan.num_rounds == 3  # trained on 8, 12 and 16 slices
    told = "the smallest pool of flair, 20 slices, is exhausted after 3 of 9 rounds, where all runs end; "
    told += "--config.initial_labeled=6 --config.num_acquire=1 last for all"
    assert experiment.describe_end(made, plan) == told
    result = experiment.run_active(made, setup, tmp_path / "run")
    assert told in capfd.readouterr().err and result["num_rounds"] == plan.num_rounds
    table = rows(tmp_path / "run" / "curves.csv")
    assert len(table) == plan.num_rounds * 8
    assert all(float(row["max_entropy"]) > 0 and int(row["labeled_slices"]) < 20 for row in table)
    assert {row["labeled_classes"] for row in table} == {"2"} and {"num_tied", "sure_share"} <= table[0].keys()
    short = tiny.active_config(num_rounds=3)
    assert not experiment.describe_end(short, experiment.make_plan(short, setup))


def test_a_fold_of_one_class_is_one_line(setup):
    label = np.where(np.isin(setup.slices.patient, ["p1"]), 1, 0).astype(np.int32)
    with pytest.raises(UserError, match=r"fold \d of 2 has no glioma of flair to \w+ on, one class only"):
        experiment.make_plan(tiny.active_config(), setup._replace(slices=setup.slices._replace(label=label)))


def test_fine_tuned_rounds_share_their_programs(tmp_path, monkeypatch):
    """Every strategy on pictures: what it may look at is there, and all rounds run on the programs of the first."""
    names = ("bald", "aift", "badge", "entropy")
    made = tiny.active_config(
        mode="finetune", strategies=names, num_repeats=1, num_rounds=2, num_epochs=1, head_dropout=0.2
    )
    trainers, make = [], experiment.methods.make_trainer
    monkeypatch.setattr(
        experiment.methods, "make_trainer", lambda *a, **k: trainers.append(make(*a, **k)) or trainers[-1]
    )
    setup = tiny.setup(made, tmp_path / "data")
    result = experiment.run_active(made, setup, tmp_path / "a")
    assert set(result["strategies"]) == set(names)
    assert trainers[0].train_step._cache_size() == trainers[0].eval_step._cache_size() == 1


def test_fine_tuning_never_sees_a_hidden_label(tmp_path):
    made = tiny.active_config(mode="finetune", strategies=("entropy",), num_repeats=1, num_epochs=1)
    setup = tiny.setup(made, tmp_path / "data")
    experiment.run_active(made, setup, tmp_path / "a")
    queried = [r for r in rows(tmp_path / "a" / "acquisitions.csv") if r["fold"] == "0"]
    train = setup.folds.masks(setup.slices.patient, setup.slices.label)[0][0]
    patient = np.unique(setup.slices.patient, return_inverse=True)[1]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(made.seed), 0), 0)  # of fold 0, seed 0
    label = jnp.asarray(setup.slices.label)
    first = driver.initial_labeled(
        program.keys_of(key).start, jnp.asarray(patient, jnp.int32), jnp.asarray(train), 4, label
    )
    # What is queried last is answered after the last fit.
    told = np.asarray(first) | np.isin(setup.slices.slice_id, [r["slice"] for r in queried if r["round"] in "01"])
    assert told.sum() == first.sum() + 2 * 3 and len(set(setup.slices.label[np.asarray(first)])) == 2
    lied = np.where(train & ~told, 1 - setup.slices.label, setup.slices.label).astype(np.int32)
    experiment.run_active(made, setup._replace(slices=setup.slices._replace(label=lied)), tmp_path / "b")
    again = [r for r in rows(tmp_path / "b" / "acquisitions.csv") if r["fold"] == "0"]
    assert again == queried
