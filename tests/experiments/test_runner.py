"""Experiments in this process: what is kept, what is found under another name, what fails."""

import json

import pytest
from ml_collections import ConfigDict

from lesion.errors import UserError
from lesion.experiments import executors, kinds, runner
from lesion.runs import rundir
from lesion.transfer.loading import Setup


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs experiments [(name, seed, error, after)] of a kind that writes what a run does, or fails: {name: row}."""
    errors = {}

    def load(config, data_dir, keep):
        return Setup(data_dir, None, None, {}, {"config": json.loads(config.to_json()), "weights": {}})

    def run_one(config, setup, workdir):
        name = str(workdir.relative_to(tmp_path))
        if rundir.open_run(workdir, setup.run):
            return None
        if errors.get(name):
            raise errors[name]
        (workdir / "predictions.csv").write_text(f"{name}\n")
        rundir.finish(workdir, {"seed": config.seed})
        return {}

    kind = kinds.Kind("launch.train", print, load, run_one, lambda *_: "runs", lambda *_: "new")
    monkeypatch.setitem(kinds.KINDS, "transfer", kind)

    def run_all(*wanted):
        experiments = []
        for name, *rest in wanted:
            seed, error, after = (*rest, *(0, None, "")[len(rest) :])
            errors[name] = error
            experiments.append(kinds.Experiment(name, ConfigDict({"seed": seed}).lock(), "transfer", after))
        rows = runner.run_all(experiments, tmp_path / "data", tmp_path, lambda folder: executors.in_process())
        return {row.name: row for row in rows}

    return run_all


def test_a_failure_is_one_line_in_its_folder_and_tried_again(run, tmp_path, capsys):
    for error, line in ((UserError("diverged in step 3"), "diverged in step 3"), (MemoryError(), "MemoryError")):
        row = run(("transfer/a", 0, error))["transfer/a"]
        assert (row.state, row.text) == ("failed", line)
        assert json.loads((tmp_path / "transfer/a/failed.json").read_text())["error"] == line
    assert "MemoryError" in capsys.readouterr().err  # what no user can mend comes with its traceback
    assert run(("transfer/a",))["transfer/a"].state == "finished"
    assert not (tmp_path / "transfer/a/failed.json").exists()
    with pytest.raises(OSError, match="full"):
        run(("transfer/b", 1, OSError("full")))


def test_a_run_that_is_finished_elsewhere_is_found_by_what_it_is(run, tmp_path):
    run(("transfer/a",))
    again = RuntimeError("was run again")
    rows = run(("transfer/a", 0, again), ("ablations/copies/num_copies=4", 0, again), ("ablations/seed/seed=1", 1))
    assert {row.state for row in rows.values()} == {"finished"}
    assert (tmp_path / "ablations/copies/num_copies=4/predictions.csv").read_text() == "transfer/a\n"
    assert (tmp_path / "ablations/seed/seed=1/predictions.csv").read_text() == "ablations/seed/seed=1\n"


def test_two_names_of_one_run_are_run_once(run, tmp_path):
    rows = run(("a",), ("b",), ("c", 1))
    assert {row.state for row in rows.values()} == {"finished"}
    assert [(tmp_path / name / "predictions.csv").read_text().strip() for name in "abc"] == ["a", "a", "c"]


def test_a_copy_that_was_not_completed_is_no_finished_run(run, tmp_path):
    run(("transfer/a",))
    partial = tmp_path / "transfer/.b.partial"
    (tmp_path / "transfer/a").rename(partial)
    (partial / "predictions.csv").unlink()
    assert run(("transfer/b",))["transfer/b"].state == "finished"
    assert (tmp_path / "transfer/b/predictions.csv").exists()


def test_what_needs_another_waits_for_it_or_fails_with_it(run):
    rows = run(("explain", 1, None, "transfer"), ("transfer", 2))
    assert {row.state for row in rows.values()} == {"finished"}
    rows = run(("x", 3, None, "y"), ("y", 4, UserError("no")))
    assert rows["x"].text == "y failed" and rows["y"].text == "no"


def test_the_folder_of_another_run_fails_its_experiment_only(run):
    run(("a",))
    rows = run(("a", 1), ("b",))
    assert rows["a"].state == "failed" and "config.seed is 0 there, 1 now" in rows["a"].text
    assert rows["b"].state == "finished"


def test_a_run_of_random_weights_is_the_same_on_another_kind_of_device(tmp_path):
    experiment = kinds.Experiment("a", ConfigDict(), "transfer")
    weights = {"seed": 0, "pretrained": False, "sha256": "of a GPU"}
    (tmp_path / "config.json").write_text(json.dumps({"config": {}, "weights": weights}))
    here = {"config": {}, "weights": weights | {"sha256": "of a CPU"}}
    assert not runner._is_finished(experiment, tmp_path, here)
    (tmp_path / "metrics.json").write_text("{}")
    assert runner._is_finished(experiment, tmp_path, here)
    with pytest.raises(UserError, match=r"weights.seed is 0 there, 1 now"):
        runner._is_finished(experiment, tmp_path, here | {"weights": weights | {"seed": 1}})
