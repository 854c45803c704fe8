import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lesion.dataset import store
from lesion.errors import UserError
from lesion.experiments import board, executors, settings

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
TWO = "--config=tests/experiments/two.py"
NAMES = ("checkpoint_every=1", "checkpoint_every=1000")


def named(name, overrides=(), **fields):
    module = import_module(f"configs.{name}")
    given = SimpleNamespace(sweep=lambda add: add(**fields)) if fields else module
    return settings.settings(given, f"configs/{name}.py", module.get_config(), dict(overrides))


def test_settings_are_runnable_and_can_be_run_alone():
    found = named("head_search", {"num_epochs": 3})
    assert len({one.name for one in found}) == 14 and found[2].name == "head.widths=256,head.dropout=0.0"
    assert found[2].config.head.widths == (256,) and found[2].config.is_locked
    assert found[2].command[2:4] == ("launch.train", "--config=configs/head_search.py")
    assert {"--config.num_epochs=3", "--config.head.widths=(256,)"} <= set(found[2].command)
    for rate in ({"optim.lr": 0.1}, {"optim": {"lr": 0.1}}):  # the rest of a group stays
        (one,) = named("active", max_per_patient=3, **rate)
        assert one.name == "max_per_patient=3,optim.lr=0.1" and one.config.optim.lr_decay == 0.9
    assert one.command[2] == "launch.active" and one.config.optim.backbone_lr == 0.1


REFUSED = {
    "no sweep": (
        ("transfer",),
        {},
        "configs/transfer.py has no sweep.add.: name one that has, such as configs/head_se",
    ),
    "set twice": (("head_search", {"head.widths": (1,)}), {}, "--config.head.widths: the sweep sets it"),
    "no such field": (("transfer",), {"lr": 1.0}, "sets lr, which"),
    "no such field of a group": (("transfer",), {"optim": {"lrr": 1.0}}, "sets optim.lrr, which"),
    "another type": (("transfer",), {"num_epochs": "many"}, "num_epochs=many: "),
    "cannot be run": (("transfer",), {"num_folds": 1}, "num_folds=1: --config.num_folds=1: it must be 2 to 1000"),
    "fusion": (("fusion",), {"num_epochs": 3}, "fusion cannot be swept"),
    "a doctor": (("doctor",), {"num_rounds": 3}, "a doctor answers one run at a time"),
}


@pytest.mark.parametrize(("given", "fields", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_swept_is_one_line(given, fields, message):
    with pytest.raises(UserError, match=message):
        named(*given, **fields)


def test_the_board_tells_what_is_new_once_and_scores_with_intervals(tmp_path, capsys):
    auc = {"value": 0.9, "low": 0.8, "high": 0.95}
    (tmp_path / "metrics.json").write_text(json.dumps({"slice": {"auc": auc}, "patient": {"auc": auc | {"low": None}}}))
    assert board.score(tmp_path) == "AUC: slices 0.900 [0.800, 0.950], patients 0.900"
    areas = {"entropy": {"area": {"auc": [0.9, 0.8, 0.95]}}, "random": {"area": {"auc": [None, None, None]}}}
    (tmp_path / "metrics.json").write_text(json.dumps({"strategies": areas}))
    assert board.score(tmp_path) == "area under AUC: entropy 0.900 [0.800, 0.950], random undefined"
    (tmp_path / "metrics.json").write_text(json.dumps({"num_shuffles": 200, "patient": {"p": 0.005}}))
    assert board.score(tmp_path) == "200 shuffles: p 0.005"
    (tmp_path / "log").write_bytes(b"one\n10 %\r20 %\r\n\n")
    assert board.last_line(tmp_path / "log") == "20 %" and board.last_line(tmp_path / "none") == ""
    with board.Board("two settings") as shown:
        for state in ("runs", "runs", "finished"):
            shown.show([board.Row("a", state, "AUC: 1", "7"), board.Row("b", "waits", "", "")])
    told = capsys.readouterr().out.splitlines()
    assert told == ["two settings", "a: runs (job 7)", "b: waits", "a: finished (job 7), AUC: 1"]


def test_the_table_has_a_line_a_setting_and_fits(capsys):
    rows = [board.Row("w" * 20, "waits", "", "12_5"), board.Row("f" * 30, "failed", "x" * 200, "12_4")]
    board.Console(width=90, force_terminal=True, color_system=None).print(board._table("two", rows, 90))
    title, _, head, _, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith("two") and head.split()[:3] == ["experiment", "state", "job"]
    assert [line.split()[:3] for line in lines[:2]] == [["f" * 30, "failed", "12_4"], ["w" * 20, "waits", "12_5"]]
    assert max(map(len, lines)) <= 90 and "1 failed, 1 waits" in lines[-1]


def test_gpus_are_those_that_may_be_used(monkeypatch):
    for given, found in (("", []), ("1, 3", [1, 3])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert executors._gpus() == found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1f")
    with pytest.raises(UserError, match="a sweep needs numbers there"):
        executors._gpus()


def test_a_local_job_is_known_by_more_than_its_number(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)", str(tmp_path)]
    with subprocess.Popen(command) as process:
        wait_for(lambda: executors._is_alive(tmp_path, str(process.pid)), None, 20)
        assert not executors._is_alive(tmp_path / "other", str(process.pid))
        process.kill()
    assert not executors._is_alive(tmp_path, str(process.pid))
    elsewhere = [{"executor": "local", "job": "1", "host": "moon", "gpu": None}]
    with pytest.raises(UserError, match="jobs run on moon"):
        executors.local(tmp_path, 1).states(elsewhere)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("sweep") / "data", np.random.default_rng(0)

    def record(i):
        image, stream = rng.integers(0, 160, (224, 224), np.uint8), io.BytesIO()
        image[: 112 * (i // 4 % 2)] += 60
        Image.fromarray(image).save(stream, "PNG")
        return store.Record(f"s{i:02d}", f"p{i // 4}", i // 4 % 2, stream.getvalue(), (1.0, 1.0), str(i), float(i))

    folder.mkdir()
    store.write(folder, "ce_t1wi", [record(i) for i in range(40)])
    told = {"sequences": {"ce_t1wi": {"glioma": 20}}, "fingerprint": "tiny", "phantom": True}
    (folder / "cohort.json").write_text(json.dumps(told))
    return folder


@pytest.fixture
def launch(data, tmp_path, monkeypatch):
    """Starts launch.sweep, or another program, into tmp_path/run: (process, file of what it says)."""
    paths = [HERE, HERE.parent, HERE.parents[1], os.environ.get("PYTHONPATH")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(path) for path in paths if path))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(data.parent / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    started = []

    def start(*more, program="sweep", flags=(TWO, f"--data={data}", f"--workdir={tmp_path}/run")):
        said = tmp_path / f"said_{len(started)}"
        command = [sys.executable, "-m", f"launch.{program}", *flags, *more]
        with open(said, "wb") as file:
            started.append(subprocess.Popen(command, stdout=file, stderr=file, cwd=HERE.parents[1]))
        return started[-1], said

    yield start
    for process in started:
        process.kill()
        process.wait()
    for path in (tmp_path / "run/submitit").glob("*.json"):
        record = json.loads(path.read_text())
        if record["executor"] == "local" and executors._is_alive(path.parent, record["job"]):
            os.kill(int(record["job"]), signal.SIGTERM)


def wait_for(condition, said, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, said and said.read_text()
        time.sleep(0.1)


def end(started, status=0):
    process, said = started
    assert process.wait(timeout=240) == status, said.read_text()
    return said.read_text()


PAIRS = {
    "train": ("--config.num_folds=2", "--config.num_epochs=20", "--config.mode=finetune", "--config.num_copies=0"),
    "active": (
        "--config.num_folds=2",
        "--config.num_epochs=20",
        "--config.initial_labeled=4",
        "--config.num_acquire=2",
    ),
    "convert_weights": (),
}


@pytest.mark.parametrize("program", PAIRS)
def test_of_two_that_begin_at_once_on_one_output_one_waits_or_is_refused(program, data, launch, tmp_path):
    flags = [f"--output={tmp_path}/run"]
    if program != "convert_weights":
        kind = "transfer" if program == "train" else program
        flags = [f"--config=configs/{kind}.py:tiny,ce_t1wi", f"--data={data}", f"--workdir={tmp_path}/run"]
    both = [launch(*PAIRS[program], program=program, flags=flags) for _ in range(2)]
    for process, said in both:
        if process.wait(timeout=400):
            told = said.read_text()
            assert process.returncode == 1 and told.count("\n") == 1 and "/run is in use by process" in told, told
    assert 0 in [process.returncode for process, _ in both]
    end(launch(*PAIRS[program], program=program, flags=flags))
    assert not list(tmp_path.rglob("*.lock"))


def test_processes_outlive_the_sweep_and_what_failed_is_told(launch, tmp_path):
    run = tmp_path / "run"
    process, said = launch("--parallel=1")
    wait_for(lambda: (run / NAMES[0] / "checkpoints").exists(), said)
    process.send_signal(signal.SIGINT)
    told = end((process, said), 128 + signal.SIGINT)
    assert "1 jobs go on without this (kill " in told and "starts those that still wait" in told
    job = json.loads((run / "submitit" / f"{NAMES[0]}.json").read_text())["job"]
    # The second setting's folder holds another run's result of one fold: it fails, and says why.
    bad = run / NAMES[1] / "checkpoints/fold_0"
    bad.mkdir(parents=True)
    (bad / "provenance.json").write_text("{}")
    told = end(launch("--parallel=1"), 1)
    assert f"{NAMES[0]}: runs (job {job})" in told and f"{NAMES[0]}: finished, AUC: slices" in told
    assert f"{NAMES[1]}: failed" in told and "is of another run" in told
    assert "error: 1 of 2 settings failed" in told
    log = next(word for word in told.split() if word.endswith("_log.err"))
    assert "is of another run" in Path(log).read_text()
    assert "is of another run" in json.loads((run / NAMES[1] / "failed.json").read_text())["error"]


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch):
    """A SLURM of one node, for one test."""
    if not shutil.which("slurmctld") or not shutil.which("munged") or os.getuid():
        pytest.skip("no SLURM: apt-get install slurm-wlm munge, as root")
    folder = tmp_path_factory.mktemp("slurm")  # short: sockets lie in it
    script = ["bash", str(HERE / "slurm.sh")]
    result = subprocess.run([*script, "start", str(folder)], capture_output=True, text=True, check=False, timeout=60)
    if result.returncode:
        pytest.skip(f"SLURM does not start here: {result.stderr.strip()[-500:]}")
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    yield folder
    subprocess.run(["scancel", "--me"], check=False, timeout=60)
    subprocess.run([*script, "stop", str(folder)], check=True, timeout=60)


def test_slurm_puts_jobs_back_and_they_go_on(launch, slurm, tmp_path):
    run, flags = tmp_path / "run", ("--executor=slurm", "--timeout_min=30", "--sbatch=comment=tested")
    process, said = launch(*flags)
    wait_for(lambda: all((run / "submitit" / f"{name}.json").exists() for name in NAMES), said)
    jobs = [json.loads((run / "submitit" / f"{name}.json").read_text())["job"] for name in NAMES]
    assert jobs[0].partition("_")[0] == jobs[1].partition("_")[0]  # one array
    # The first is taken off its node, as when another job comes first; the second is told that its time is over.
    todo = {NAMES[0]: ["scontrol", "requeue", jobs[0]], NAMES[1]: ["scancel", "--signal=USR2", jobs[1]]}

    def sent():
        for name in [name for name in todo if any((run / name).glob("tensorboard/fold_0/*"))]:
            subprocess.run(todo.pop(name), check=True)
        return not todo

    wait_for(sent, said)
    told = end((process, said))
    assert "2 finished" in told.splitlines()
    for job, name in zip(jobs, NAMES, strict=True):
        log = (run / "submitit" / f"{job}_0_log.err").read_text()
        assert "stopped in epoch" in log and not (run / name / "failed.json").exists(), log
        assert f"job {job}" in told
    rows = [(run / name / "predictions.csv").read_bytes() for name in NAMES]
    assert rows[0] == rows[1]  # stopped at different steps
    again = end(launch(*flags))
    assert "2 finished before, 0 to run" in again
    assert subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout == ""
