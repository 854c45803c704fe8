"""Runs experiments: submits those that are missing, watches until none waits or runs, and returns how each ended."""

import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from lesion import files
from lesion.errors import UserError
from lesion.experiments import board, executors
from lesion.experiments.board import FAILED, FINISHED, RUNS, WAITS, Board, Row
from lesion.experiments.executors import Executor, Record
from lesion.experiments.job import Work
from lesion.experiments.kinds import KINDS, Experiment, load_all
from lesion.runs import rundir

GONE = 2  # looks before a job that has left the queue unfinished has failed: files of another machine appear late


def run_all(
    experiments: Sequence[Experiment], data_dir: Path, workdir: Path, make_executor: Callable[[Path], Executor]
) -> list[Row]:
    """Runs every experiment in the folder of its name; one that is finished there, or under another name, is kept.

    Ctrl-C ends the watching, not the jobs; the same call again finds them, and submits only what is missing. An
    experiment that failed before is tried again, once per call.

    Args:
        experiments: experiments from `plan.plan` or `settings.settings`.
        data_dir: dataset folder written by launch.prepare.
        workdir: gets a folder per experiment, and submitit/ with the logs of jobs.
        make_executor: builds the executor, given the folder for its logs.

    Returns:
        How each experiment ended.
    """
    data_dir, workdir = data_dir.absolute(), workdir.absolute()
    executor = make_executor(workdir / executors.FOLDER)
    if not executor.in_process:  # watching needs no GPU, and the jobs need all of its memory
        jax.config.update("jax_platforms", "cpu")
    runner = _Runner(experiments, data_dir, workdir, executor)
    waiting = runner.begin()
    before = len(experiments) - len(waiting)
    title = f"{len(experiments)} experiments in {workdir}: {before} finished before, {len(waiting)} to run"
    try:
        with Board(title, live=not executor.in_process) as display:
            return runner.watch(waiting, display)
    except KeyboardInterrupt:
        if executor.in_process:
            raise
        sys.exit(runner.leave())


class _Runner:
    """Submits experiments and tracks their states. An I/O object: the states lie in files and in the queue."""

    def __init__(self, experiments: Sequence[Experiment], data_dir: Path, workdir: Path, executor: Executor) -> None:
        """Loads the experiments' setups, whose records tell whether two runs are the same."""
        self._experiments, self._data_dir, self._workdir, self._executor = experiments, data_dir, workdir, executor
        self._logs, self._gone = workdir / executors.FOLDER, Counter[str]()
        self._records: dict[str, Record] = {}
        # Of each experiment, what identifies its run; None for a kind without; or why it cannot be run.
        self._identity: dict[str, dict[str, Any] | UserError | None] = {}
        self._twin: dict[str, str] = {}  # {experiment: an earlier one with the same identity}
        first: dict[str, str] = {}
        for experiment, setup in zip(experiments, load_all(experiments, data_dir), strict=True):
            identity = setup if isinstance(setup, UserError) else getattr(setup, "run", None)
            self._identity[experiment.name] = identity
            if isinstance(identity, dict):
                twin = first.setdefault(json.dumps(identity, sort_keys=True), experiment.name)
                self._twin |= {experiment.name: twin} if twin != experiment.name else {}

    def begin(self) -> list[Experiment]:
        """Returns the experiments that are neither finished nor running; removes the records of failures."""
        if not self._executor.in_process:
            self._logs.mkdir(parents=True, exist_ok=True)
            paths = {e.name: self._record_path(e) for e in self._experiments}
            self._records = {name: files.read_json(path) for name, path in paths.items() if path.exists()}
        states, waiting = self._states(), []
        for experiment in self._experiments:
            if states.get(experiment.name):
                continue
            self._records.pop(experiment.name, None)
            self._record_path(experiment).unlink(missing_ok=True)
            folder, identity = self._workdir / experiment.name, self._identity[experiment.name]
            (folder / rundir.FAILED).unlink(missing_ok=True)
            try:
                if isinstance(identity, UserError):
                    raise identity
                if not _is_finished(experiment, folder, identity):
                    waiting.append(experiment)
            except UserError as error:  # it cannot be run, or the folder holds another run
                rundir.fail(folder, error)
        return waiting

    def watch(self, waiting: list[Experiment], display: Board) -> list[Row]:
        """Submits experiments as slots become free, until all have ended; returns the last rows."""
        while True:
            states = self._states()
            rows = {e.name: self._row(e, states.get(e.name)) for e in self._experiments}
            ready = [e for e in waiting if self._may_begin(e, rows)]
            busy = [self._records[name] for name, state in states.items() if state]
            slots = len(ready) if self._executor.slots is None else self._executor.slots - len(busy)
            submitted = ready[: max(slots, 0)]
            self._submit(submitted, busy)
            states |= {e.name: WAITS for e in submitted if not self._executor.in_process}
            self._gone.update(name for name, state in states.items() if state is None)
            rows = {e.name: self._row(e, states.get(e.name)) for e in self._experiments}
            waiting = [e for e in waiting if e not in submitted and rows[e.name].state == WAITS]
            display.show(list(rows.values()))
            if all(row.state in (FINISHED, FAILED) for row in rows.values()):
                return list(rows.values())
            time.sleep(self._executor.poll_s)

    def leave(self) -> int:
        """Prints how to come back to the jobs; returns the exit status."""
        alive = [self._records[name] for name, state in self._states().items() if state]
        text = "no job runs"
        if alive:
            text = f"{len(alive)} jobs go on without this ({self._executor.stop_command(alive)} stops them)"
        later = "" if self._executor.slots is None else ", and starts those that still wait"
        print(f"{text}; the same command comes back to them{later}", file=sys.stderr)
        return 128 + signal.SIGINT

    def _states(self) -> dict[str, str | None]:
        """Returns {experiment with a job: `WAITS`, `RUNS`, or None if the job has ended}."""
        return dict(zip(self._records, self._executor.states(list(self._records.values())), strict=True))

    def _may_begin(self, experiment: Experiment, rows: dict[str, Row]) -> bool:
        """Returns whether an experiment may start; links its folder where the same run is finished elsewhere."""
        folder, identity = self._workdir / experiment.name, self._identity[experiment.name]
        if experiment.after and rows[experiment.after].state != FINISHED:
            if rows[experiment.after].state == FAILED:
                rundir.fail(folder, UserError(f"{experiment.after} failed"))
            return False
        twin = self._twin.get(experiment.name)
        if twin and rows[twin].state not in (FINISHED, FAILED):
            return False
        return not (isinstance(identity, dict) and _link_finished(identity, self._workdir, folder))

    def _submit(self, experiments: list[Experiment], busy: list[Record]) -> None:
        work = []
        for e in experiments:
            folder, command = self._workdir / e.name, rundir.command()
            if e.command:
                command = shlex.join([*e.command, f"--data={self._data_dir}", f"--workdir={folder}"])
            fields = e.config.copy_and_resolve_references().to_dict()
            work.append(Work(e.kind, fields, str(self._data_dir), str(folder), command))
        if self._executor.in_process or not work:
            self._executor.submit(work, busy)
            return
        for e, record in zip(experiments, self._executor.submit(work, busy), strict=True):
            self._records[e.name] = record
            files.write_json(self._record_path(e), record)

    def _record_path(self, experiment: Experiment) -> Path:
        return self._logs / f"{experiment.name.replace('/', '+')}.json"

    def _row(self, experiment: Experiment, state: str | None) -> Row:
        name, folder, record = experiment.name, self._workdir / experiment.name, self._records.get(experiment.name)
        if (folder / rundir.FAILED).exists() and state is None and (record is None or self._gone[name] >= GONE):
            error = files.read_json(folder / rundir.FAILED)["error"]
            where = f"; its log: {executors.log_of(self._logs, record)}" if record else ""
            return Row(name, FAILED, f"{error}{where}", record["job"] if record else "")
        if (folder / KINDS[experiment.kind].part / rundir.METRICS).exists():
            return Row(name, FINISHED, board.score(folder), "")
        if record is None:
            return Row(name, WAITS, "", "")
        log = executors.log_of(self._logs, record)
        if state or self._gone[name] < GONE:
            return Row(name, state or RUNS, board.last_line(log) if state == RUNS else "", record["job"])
        return Row(name, FAILED, f"{board.last_line(log) or 'it says nothing'}; its log: {log}", record["job"])


def _is_finished(experiment: Experiment, folder: Path, run: dict[str, Any] | None) -> bool:
    """Returns whether a folder holds the experiment's results; raises a `UserError` if it holds another run's."""
    part = KINDS[experiment.kind].part
    if run is None:
        return (folder / part / rundir.METRICS).exists()
    path = folder / part / rundir.CONFIG
    if path.exists() and not run["weights"].get("pretrained"):
        recorded = files.read_json(path)["weights"]
        if recorded.get("seed") == run["weights"].get("seed"):
            run = run | {"weights": recorded}  # drawn on another processor: equal up to rounding
    return rundir.is_finished(folder / part, run | ({"part": part} if part else {}))


def _link_finished(run: dict[str, Any], workdir: Path, folder: Path) -> bool:
    """Links `folder` to a finished run of identity `run` elsewhere under `workdir`; returns whether there is one."""
    if folder.exists():
        return False
    for path in sorted(workdir.rglob(rundir.METRICS)):
        source = path.parent
        if source == workdir or any(part.startswith(".") for part in source.relative_to(workdir).parts):
            continue  # the whole plan, or an incomplete copy
        config = source / rundir.CONFIG
        if config.exists() and not rundir.differences(files.read_json(config), run):
            with files.new_folder(folder) as partial:
                # Files of a run are replaced, never changed: both names may share them.
                ignored = shutil.ignore_patterns(files.LOCK, rundir.FAILED)  # a refused experiment's
                shutil.copytree(source, partial, copy_function=_link, ignore=ignored, dirs_exist_ok=True)
            return True
    return False


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # not on this file system
        shutil.copy2(source, target)
    return target
