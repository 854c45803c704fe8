"""Whole runs of a tiny backbone, each in a process of its own: devices, machines, streams, and deaths."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def start():
    """Begins `tiny.train` in a new process, forked from one that has everything imported but no device yet."""
    import tiny

    def begin(workdir, changes=None, num_devices=1, processes=None, run=tiny.train):
        log = Path(f"{workdir}.log")
        process = context.Process(target=logged, args=(log, run, workdir, changes or {}, num_devices, processes))
        process.start()
        return process

    with pytest.MonkeyPatch.context() as patch:
        context = tiny.forked(patch)
        yield begin


def logged(log, run, *args):
    """Runs it with everything it prints in a file, that of its threads and of its last words too."""
    sys.stderr = sys.stdout = open(log, "a", buffering=1)
    os.dup2(sys.stderr.fileno(), 1)
    os.dup2(sys.stderr.fileno(), 2)
    run(*args)


@pytest.fixture(scope="module")
def finish(start):
    def run(workdir, *args, status=0):
        process = start(workdir, *args)
        process.join(300)
        log = Path(f"{workdir}.log").read_text()
        assert process.exitcode == status, log[-3000:]
        return log

    return run


@pytest.fixture(scope="module")
def plain(finish, tmp_path_factory):
    """The run that others are compared with."""
    workdir = tmp_path_factory.mktemp("plain") / "run"
    finish(workdir)
    return workdir


def losses(workdir):
    return np.array(json.loads((workdir / "metrics.json").read_text())["train_loss"])


def same(workdir, plain):
    assert (workdir / "predictions.csv").read_bytes() == (plain / "predictions.csv").read_bytes()
    assert (workdir / "metrics.json").read_bytes() == (plain / "metrics.json").read_bytes()
    for fold in (0, 1):
        ours, theirs = (
            json.loads((w / f"checkpoints/fold_{fold}/provenance.json").read_text()) for w in (workdir, plain)
        )
        assert ours["sha256"] == theirs["sha256"]  # of the weights


def test_a_run_learns_and_leaves_what_it_should(plain):
    assert (losses(plain)[:, -1] < losses(plain)[:, 0]).all()
    assert sorted(p.name for p in (plain / "checkpoints").iterdir()) == ["fold_0", "fold_1"]
    assert len(list((plain / "tensorboard").rglob("events*"))) == 2
    history = json.loads((plain / "metrics.json").read_text())["history"][0]
    assert set(history[0]) == {"loss", "auc"}


# 6 examples a step: whole on 2 devices, padded on 4 and 8; the last step of an epoch has 4.
@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_devices_give_the_losses_of_one(num_devices, plain, finish, tmp_path):
    finish(tmp_path / "run", {}, num_devices)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(plain), rtol=1e-5)


@pytest.fixture
def pair(start):
    """Begins two processes of one run, joined by flags or as SLURM would."""

    def begin(workdir, changes, slurm=False, **run):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]

        def task(i):
            names = {"JOB_ID": 1, "STEP_NODELIST": "127.0.0.1", "NTASKS": 2, "PROCID": i, "LOCALID": 0}
            names |= {"STEP_NUM_TASKS": 2, "STEP_NUM_NODES": 2}
            return {f"SLURM_{name}": str(value) for name, value in names.items()} | {"JAX_COORDINATOR_PORT": str(port)}

        joined = [task(i) if slurm else (f"127.0.0.1:{port}", 2, i) for i in range(2)]
        return [start(workdir, changes, 1, joined[i], **run) for i in range(2)]

    return begin


@pytest.mark.parametrize("slurm", [False, True])
def test_two_processes_give_the_losses_of_one(slurm, plain, pair, tmp_path):
    both = pair(tmp_path / "run", {}, slurm)
    for process in both:
        process.join(300)
    assert [p.exitcode for p in both] == [0, 0], (tmp_path / "run.log").read_text()[-3000:]
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(plain), rtol=1e-5)


SLOW_S = 32  # more than Gloo waits


def features_and_saving_are_slow(*args):
    """`tiny.train` whose first process takes long to compute the activations, and to save the second checkpoint."""
    import tiny

    from lesion.runs import processes, resume
    from lesion.train import features

    load_or_compute, save = features.load_or_compute, resume.Checkpointer.save

    def slow(function, when):
        def slowed(*args, **options):
            if processes.is_first() and when(*args):
                time.sleep(SLOW_S)
            return function(*args, **options)

        return slowed

    features.load_or_compute = slow(load_or_compute, lambda *args: True)
    resume.Checkpointer.save = slow(
        save, lambda self, number, *args: self.folder.name == "fold_0_training" and number == 14
    )
    tiny.train(*args)


def the_second_looks_late(*args):
    """`tiny.train` whose second process is late after every meeting."""
    import jax
    import tiny

    from lesion.runs import processes

    wait_for_all = processes.wait_for_all

    def late(name):
        wait_for_all(name)
        time.sleep(0 if processes.is_first() else 3)

    processes.wait_for_all = late
    try:
        tiny.train(*args)
    finally:
        jax.distributed.shutdown()  # as at the end of a program: the first waits for the second


SLOWED = {
    "the first": ({"finetune_from": "conv2", "cache_activations": True}, features_and_saving_are_slow),
    "the second": ({"mode": "frozen"}, the_second_looks_late),
}


@pytest.mark.parametrize(("changes", "run"), SLOWED.values(), ids=SLOWED)
def test_a_slow_process_is_waited_for(changes, run, pair, finish, tmp_path):
    both = pair(tmp_path / "run", changes, run=run)
    for process in both:
        process.join(400)
    assert [p.exitcode for p in both] == [0, 0], (tmp_path / "run.log").read_text()[-3000:]
    finish(tmp_path / "one", changes)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "one"), rtol=1e-5)


def test_one_of_two_processes_is_told_to_stop_and_both_do(plain, pair, finish, tmp_path):
    both = pair(tmp_path / "run", {"num_epochs": 3})
    wait_for(tmp_path / "run", "checkpoints/fold_0_training/*[0-9]")  # one was written, and Orbax asked
    os.kill(both[1].pid, signal.SIGTERM)
    for process in both:
        process.join(120)
    log = (tmp_path / "run.log").read_text()
    assert [p.exitcode for p in both] == [128 + signal.SIGTERM] * 2, log[-3000:]
    assert "all saved: the same command goes on from there" in log
    finish(tmp_path / "run")
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(plain), rtol=1e-5)


def test_streamed_slices_give_the_same_numbers(plain, finish, tmp_path):
    finish(tmp_path / "run", {"data_on": "host"})
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(plain), rtol=1e-6)


def test_cached_activations_give_the_same_numbers(finish, tmp_path):
    for cached in (True, False):
        finish(tmp_path / str(cached), {"finetune_from": "conv2", "cache_activations": cached})
    np.testing.assert_allclose(losses(tmp_path / "True"), losses(tmp_path / "False"), rtol=1e-5)


OPTIONS = {
    "everything": {
        "class_weights": True,
        "label_smoothing": 0.1,
        "augmentation": "fresh",
        "batch_norm": "frozen",
        "optim_decay_every": "step",
        "optim_backbone_lr": 0.001,
        "head_dropout": 0.2,
        "head_pooling": "max",
    },
    "bfloat16": {"dtype": "bfloat16"},
    "early stopping": {"patience": 1, "num_epochs": 30, "num_copies": 0, "validation": 0.5, "optim_lr": 0.1},
    "scratch": {"mode": "scratch"},
    "frozen, all of it": {"mode": "frozen", "head_dropout": 0.2, "class_weights": True},
    "frozen, early stopping": {"mode": "frozen", "patience": 1, "num_epochs": 30, "validation": 0.5, "optim_lr": 1.0},
}


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_options_run_and_end_finite(changes, finish, tmp_path):
    finish(tmp_path / "run", changes)
    history = json.loads((tmp_path / "run/metrics.json").read_text())["history"]
    assert all(np.isfinite(epoch["loss"]) for fold in history for epoch in fold)
    if "patience" in changes:
        assert all(len(fold) < 30 for fold in history)
        best = [min(fold, key=lambda epoch: epoch["validation_loss"]) for fold in history]
        assert all(fold.index(epoch) + 2 == len(fold) for fold, epoch in zip(history, best, strict=True))
    assert all(np.isfinite(epoch["auc"]) for fold in history for epoch in fold)


def test_killed_at_random_moments_it_ends_with_the_same_bytes(plain, start, finish, tmp_path, rng):
    begin = time.monotonic()
    finish(tmp_path / "whole")
    whole = time.monotonic() - begin
    same(tmp_path / "whole", plain)
    workdir, kills = tmp_path / "run", 0
    for _ in range(40):
        process = start(workdir)
        # Early at first, so that it is killed several times even where the whole run was measured too slow.
        process.join(whole * rng.uniform(0.2, 0.4 + 0.07 * kills) if kills < 8 else 300)
        if process.exitcode is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    assert process.exitcode == 0, Path(f"{workdir}.log").read_text()[-3000:]
    assert kills > 2
    same(workdir, plain)


def wait_for(path, pattern, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if list(path.glob(pattern)):
            return
        time.sleep(0.05)
    pytest.fail(f"no {pattern} in {path}")


def test_sigterm_saves_first_and_the_run_goes_on_elsewhere(plain, start, finish, tmp_path):
    workdir = tmp_path / "run"
    process = start(workdir, {"num_epochs": 3})
    wait_for(workdir, "checkpoints/fold_0_training")
    os.kill(process.pid, signal.SIGTERM)
    process.join(120)
    log = Path(f"{workdir}.log").read_text()
    assert process.exitcode == 128 + signal.SIGTERM, log[-3000:]
    assert "all saved: the same command goes on from there" in log
    moved = workdir.rename(tmp_path / "a run 数 #1")
    finish(moved)
    same(moved, plain)


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_a_loss_that_turns_nan_names_step_and_slices(mode, finish, tmp_path):
    log = finish(tmp_path / "run", {"mode": mode, "optim_lr": 1e30, "optim_backbone_lr": 1e30}, status=1)
    line = log.strip().splitlines()[-1]
    assert line.startswith("error: the loss is not finite in epoch 1, step ")
    assert "(slices s" in line and "lower --config.optim.lr" in line


# One step in all: its loss is taken before its update, so that only the predictions tell.
@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_a_last_update_that_diverges_leaves_no_finished_fold(mode, finish, tmp_path):
    rates = {"optim_lr": 1e38, "optim_backbone_lr": 1e38}
    log = finish(tmp_path / "run", {"mode": mode, "num_epochs": 1, "batch_size": 40} | rates, status=1)
    assert "fold 1 of 2: diverged in its last step: lower --config.optim.lr" in log.strip().splitlines()[-1]
    assert not (tmp_path / "run/checkpoints/fold_0").exists()


def test_other_settings_and_damaged_checkpoints_are_refused(start, finish, tmp_path):
    workdir = tmp_path / "run"
    process = start(workdir, {"num_epochs": 40})
    wait_for(workdir, "checkpoints/fold_0_training/*[0-9]/record")  # one that is not still being written
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    log = finish(workdir, {"num_epochs": 41}, status=1)
    assert "config.num_epochs is 40 there, 41 now" in log
    folder = workdir / "checkpoints/fold_0_training"
    newest = max((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    for data in (newest / "tree").rglob("d/*"):
        os.truncate(data, data.stat().st_size // 2)
    log = finish(workdir, {"num_epochs": 40}, status=1)
    assert f"error: the checkpoint {newest} is damaged" in log
    assert "remove that folder to" in log
