"""Submits what is missing, looks on until nothing waits or runs, says what came of it."""

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from lesion.errors import UserError
from lesion.experiments import board, executors
from lesion.experiments.board import FAILED, FINISHED, Board, Row
from lesion.experiments.executors import RUNS, WAITS, Executor, Record
from lesion.experiments.settings import Setting, is_finished, is_phantom, loaded, shown_command
from lesion.files import write_json
from lesion.runs import rundir
from lesion.transfer import preview

GONE = 2  # looks at which a job is neither in the queue nor finished: files of another machine come late


class _Sweep(NamedTuple):
    """What does not change while it runs; `jobs` is where submitit writes."""

    todo: Sequence[Setting]
    data_dir: Path
    workdir: Path
    executor: Executor

    @property
    def jobs(self) -> Path:
        return self.workdir / executors.FOLDER

    def record(self, name: str) -> Path:
        return self.jobs / f"{name}.json"


def sweep(todo: Sequence[Setting], data_dir: Path, workdir: Path, executor: Callable[[Path], Executor]) -> None:
    """Runs every setting in a folder of its name.

    Ctrl-C ends the looking on, not the jobs; the same call again finds them, and submits only what is missing. A
    setting that failed before is tried again, once a call.

    Args:
        todo: of `settings`.
        data_dir: what `launch/prepare` wrote.
        workdir: gets a folder a setting, and submitit/ with the logs.
        executor: makes it, from the folder for its logs.

    Raises:
        UserError: if a setting cannot be run; after the others have ended, if some failed.
    """
    data_dir, workdir = data_dir.absolute(), workdir.absolute()
    # What is looked at here needs no GPU, and the jobs need all of its memory.
    jax.config.update("jax_platforms", "cpu")
    finished = [is_finished(*pair, workdir) for pair in zip(todo, loaded(todo, data_dir), strict=True)]
    this = _Sweep(todo, data_dir, workdir, executor(workdir / executors.FOLDER))
    this.jobs.mkdir(parents=True, exist_ok=True)
    there = _records(this)
    alive = dict(zip(there, this.executor.states(list(there.values())), strict=True))
    missing = [one for one, done in zip(todo, finished, strict=True) if not done and alive.get(one.name) is None]
    for one in missing:
        this.record(one.name).unlink(missing_ok=True)
    phantom = ", PHANTOM patients" if is_phantom(data_dir) else ""
    told = f"{len(todo)} settings in {workdir}{phantom}: {sum(finished)} finished before, {len(missing)} to submit"
    try:
        with Board(told) as shown:
            rows = _look_on(this, missing, shown)
    except KeyboardInterrupt:
        sys.exit(_leave(this))
    print(board.counts(rows))
    failed = [row for row in rows if row.state == FAILED]
    for row in failed:
        print(f"{row.name}: {row.told}", file=sys.stderr)
    if failed:
        raise UserError(f"{len(failed)} of {len(rows)} settings failed, see above; the same command tries them again")


def _look_on(this: _Sweep, missing: list[Setting], shown: Board) -> list[Row]:
    """Submits as there is room, until all have ended; the last rows."""
    gone: Counter[str] = Counter()
    while True:
        there = _records(this)
        states = dict(zip(there, this.executor.states(list(there.values())), strict=True))
        busy = [there[name] for name, state in states.items() if state]
        slots = len(missing) if this.executor.slots is None else this.executor.slots - len(busy)
        now, missing = missing[: max(slots, 0)], missing[max(slots, 0) :]
        if now:
            work = [
                (
                    one.config.copy_and_resolve_references().to_dict(),
                    str(this.data_dir),
                    str(this.workdir / one.name),
                    shown_command(one, this.data_dir, this.workdir),
                )
                for one in now
            ]
            for one, record in zip(now, this.executor.submit(work, busy), strict=True):
                write_json(this.record(one.name), record)
                states[one.name], there[one.name] = WAITS, record
        gone.update(name for name, state in states.items() if state is None)
        rows = [_row(this, one, there.get(one.name), states.get(one.name), gone[one.name]) for one in this.todo]
        shown.show(rows)
        if all(row.state in (FINISHED, FAILED) for row in rows):
            return rows
        time.sleep(this.executor.poll_s)


def _row(this: _Sweep, one: Setting, record: Record | None, state: str | None, gone: int) -> Row:
    folder, job = this.workdir / one.name, record["job"] if record else ""
    if (folder / rundir.METRICS).exists():
        return Row(one.name, FINISHED, board.score(folder), "")
    if record is None:
        return Row(one.name, WAITS, "", "")
    log = executors.log_of(this.jobs, record)
    if state or gone < GONE:
        return Row(one.name, state or RUNS, board.last_line(log) if state == RUNS else "", job)
    why = folder / rundir.FAILED
    reason = json.loads(why.read_text())["error"] if why.exists() else board.last_line(log) or "it says nothing"
    return Row(one.name, FAILED, f"{reason}; its log: {log}", job)


def _records(this: _Sweep) -> dict[str, Record]:
    """Of the jobs that were submitted, by setting."""
    found = {one.name: this.record(one.name) for one in this.todo}
    return {name: json.loads(path.read_text()) for name, path in found.items() if path.exists()}


def _leave(this: _Sweep) -> int:
    """Says how to come back; the exit status."""
    there = list(_records(this).values())
    alive = [record for record, state in zip(there, this.executor.states(there), strict=True) if state]
    told = "no job runs"
    if alive:
        told = f"{len(alive)} jobs go on without this ({this.executor.stops(alive)} stops them)"
    later = "" if this.executor.slots is None else ", and starts those that still wait"
    print(f"{told}; the same command comes back to them{later}", file=sys.stderr)
    return 128 + signal.SIGINT


def dry_run(todo: Sequence[Setting], data_dir: Path, workdir: Path, parallel: str) -> str:
    """What `sweep` would do, checked as it does; writes nothing.

    Args:
        todo: of `settings`.
        data_dir: what `launch/prepare` wrote.
        workdir: where it would go; need not exist.
        parallel: how the jobs would run, in words.
    """
    jax.config.update("jax_platforms", "cpu")
    setups = loaded(todo, data_dir)
    rows = [row for row in preview.about(todo[0].config, setups[0]) if row[0] != "devices"]  # the jobs have their own
    lines = []
    for one, setup in zip(todo, setups, strict=True):
        state = "finished already" if is_finished(one, setup, workdir) else "new"
        if state == "new" and (workdir / one.name / rundir.CONFIG).exists():
            state = "goes on, unless it runs now"
        lines.append(f"{one.name}: {state}")
    rows = [("would run", f"{len(todo)} settings, {parallel}"), *rows, ("into", str(workdir.absolute()))]
    return preview.render(rows, ["", *lines])
