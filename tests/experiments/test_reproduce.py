"""The whole way on a small phantom: DICOM to report, twice, and into a folder that is taken."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest

from configs import active, demo
from lesion.errors import UserError
from lesion.experiments.kinds import Experiment
from lesion.experiments.preview import preview
from lesion.experiments.reproduce import dry_run

pytestmark = pytest.mark.slow
SMALL = (
    "--config.num_epochs=3",
    "--config.num_folds=2",
    "--config.num_copies=1",
    "--config.active.num_epochs=2",
    "--config.active.initial_labeled=4",
    "--config.active.num_acquire=2",
    "--config.active.num_rounds=3",
    "--config.active.num_repeats=2",
)


def launch(module, *flags):
    command = [sys.executable, "-m", f"launch.{module}", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def root(tmp_path_factory, phantom_dicom):
    root = tmp_path_factory.mktemp("whole")
    for module, *flags in (
        ("prepare", f"--input={phantom_dicom}", f"--output={root}/data", f"--private={root}/private"),
        ("convert_weights", f"--output={root}/weights"),
        ("reproduce", *run_flags(root)),
    ):
        result = launch(module, *flags)
        assert result.returncode == 0, result.stderr[-2000:]
    return root


def run_flags(root):
    plan = "--config=configs/demo.py", f"--config.weights={root}/weights", *SMALL
    return *plan, f"--data={root}/data", f"--workdir={root}/run"


def test_every_file_of_a_run_is_there_and_complete(root):
    for sequence in ("flair", "ce_t1wi", "t2wi"):
        run = root / "run" / "transfer/efficientnet_lite0" / sequence
        table = rows(run / "predictions.csv")
        assert len({r["slice"] for r in table}) == len(table) > 0
        assert all(0 <= float(r["probability"]) <= 1 for r in table)
        of_patient = {}
        for r in table:
            assert of_patient.setdefault(r["patient"], r["fold"]) == r["fold"]
        metrics = json.loads((run / "metrics.json").read_text())
        accuracy = metrics["slice"]["accuracy"]  # an AUC of so few patients has no interval
        assert accuracy["low"] <= accuracy["value"] <= accuracy["high"] and 0 <= metrics["slice"]["auc"]["value"] <= 1
        assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["fold_0", "fold_1"]
    curves = rows(root / "run/active/ce_t1wi/curves.csv")
    num_rounds = json.loads((root / "run/active/ce_t1wi/metrics.json").read_text())["num_rounds"]
    assert 1 <= num_rounds <= 3 and len(curves) == 2 * 2 * 2 * num_rounds  # folds, seeds, strategies, rounds
    asked = rows(root / "run/active/ce_t1wi/acquisitions.csv")
    assert len({tuple(r[k] for k in ("fold", "seed", "strategy", "slice")) for r in asked}) == len(asked)
    hashes = {json.loads(p.read_text())["split_hash"] for p in (root / "run").rglob("config.json")}
    assert len(hashes) == 1


def test_the_report_is_one_offline_file_that_says_phantom(root):
    page = (root / "run/report.html").read_text()
    assert "phantom" in page.lower()
    assert not [word for word in ('src="http', 'href="http', "@import", "url(http") if word in page]


def test_a_second_run_does_nothing_again_and_another_config_is_refused(root):
    files = {p: p.stat().st_mtime_ns for p in (root / "run").rglob("*.csv")}
    again = launch("reproduce", *run_flags(root))
    assert again.returncode == 0, again.stderr[-2000:]
    assert "4 experiments" in again.stdout and "4 finished before, 0 to run" in again.stdout
    assert files == {p: p.stat().st_mtime_ns for p in (root / "run").rglob("*.csv")}
    other = launch("reproduce", *run_flags(root), "--config.optim.lr=0.1")
    assert other.returncode == 1
    assert other.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "config.optim.lr is 0.001 there, 0.1 now" in other.stderr


def small(config, root, **changes):
    changes = {"num_folds": 2, "num_copies": 1, "num_epochs": 3, "weights": f"{root}/weights"} | changes
    config.update_from_flattened_dict(changes)
    return config


def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(root, capsys):
    data, before = root / "data", {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    # Of another seed: its folds are not in the dataset's splits.json yet.
    flags = "--config.num_folds=2", "--config.seed=7", f"--data={data}", f"--workdir={root}/new", "--dry_run"
    told = launch("train", *flags).stdout
    for line in ("would run  feature transfer on ce_t1wi", "PHANTOM", "RANDOM", "/new: new"):
        assert line in told
    config = small(active.get_config(), root, initial_labeled=4, num_acquire=2, seed=7)
    told = preview(Experiment("", config, "active"), data, root / "new")
    assert "lite's efficientnet-lite0" in told and "20 runs (2 folds, 5 repeats, 2 strategies) of" in told
    assert "is exhausted after" in told and "of 10 rounds, where all runs end; --config.initial_labeled=" in told
    fields = {flag.partition("=")[0].removeprefix("--config."): int(flag.partition("=")[2]) for flag in SMALL}
    dry_run(small(demo.get_config(), root, **fields), data, root / "run")
    assert capsys.readouterr().out.count(": finished already") == 4
    dry_run(small(demo.get_config(), root, **fields, explain=True), data, root / "run")  # grown
    assert capsys.readouterr().out.count(": finished already") == 4
    fields |= {"active.initial_labeled": 400}
    with pytest.raises(UserError, match="1 of 4 experiments would fail"):
        dry_run(small(demo.get_config(), root, **fields), data, root / "new")
    assert "active/ce_t1wi: WOULD FAIL: a fold of ce_t1wi has" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


def test_damaged_weights_fail_each_experiment_and_not_the_report(root):
    shutil.copytree(root / "weights", root / "damaged")
    os.truncate(max((root / "damaged").rglob("*"), key=lambda path: path.stat().st_size), 500_000)
    flags = [flag.replace(f"{root}/weights", f"{root}/damaged") for flag in run_flags(root)]
    flags[-1] = f"--workdir={root}/failing"
    result = launch("reproduce", *flags, "--config.active.sequences=()")
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: 3 of 3 experiments failed") and "the same command tries them again" in line
    assert "cannot be read: remove the folder and convert again" in (root / "failing/report.html").read_text()


def test_an_interrupted_run_ends_with_the_same_numbers(root):
    run = root / "run/transfer/efficientnet_lite0/flair"
    before = (run / "predictions.csv").read_bytes()
    (run / "metrics.json").unlink()  # as if killed before it was finished
    (run / "predictions.csv").unlink()
    assert launch("reproduce", *run_flags(root)).returncode == 0
    assert (run / "predictions.csv").read_bytes() == before
