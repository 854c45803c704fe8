"""Who runs the jobs: SLURM, or processes of this machine; both by submitit."""

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import submitit

from lesion.errors import UserError
from lesion.experiments.job import WARNED_S, Job

Record = dict[str, Any]  # of a job that was submitted, JSON-able
Work = tuple[dict[str, Any], str, str, str]  # the arguments of `Job`
WAITS, RUNS = "waits", "runs"
FOLDER = "submitit"  # of a sweep's folder: logs and what submitit keeps
TIMES = 1000  # that a job may be put back after its time was over
NO_END_MIN = 60 * 24 * 365


class Executor(NamedTuple):
    """Where jobs run.

    Attributes:
        name: `local` or `slurm`.
        slots: submitted at once, at most; None: it has a queue of its own.
        poll_s: seconds between two looks.
        submit: (work, records of the jobs that are there) -> records of the new ones.
        states: (records) -> of each `WAITS`, `RUNS`, or None if it is there no more.
        stops: (records) -> the command that stops them.
    """

    name: str
    slots: int | None
    poll_s: float
    submit: Callable[[Sequence[Work], Sequence[Record]], list[Record]]
    states: Callable[[Sequence[Record]], list[str | None]]
    stops: Callable[[Sequence[Record]], str]


def log_of(folder: Path, record: Record) -> Path:
    """What a job says."""
    return submitit.core.utils.JobPaths(folder, record["job"], 0).stderr


def slurm(folder: Path, parallel: int | None, options: Mapping[str, Any], extra: Mapping[str, Any]) -> Executor:
    """A SLURM array.

    Args:
        folder: for logs, on all nodes.
        parallel: how many run at once, at most; None: as many as there is room for.
        options: of `submitit.SlurmExecutor.update_parameters`; those that are None are left to the cluster.
        extra: further ones of sbatch.

    Raises:
        UserError: if this is no SLURM machine.
    """
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMES)
    except RuntimeError as error:
        raise UserError("no srun here: start it on a machine of the cluster, or give --executor=local") from error
    given = {k: v for k, v in options.items() if v is not None} | ({"array_parallelism": parallel} if parallel else {})
    # Put back when a node fails or another job comes first: not every cluster does unless asked to.
    executor.update_parameters(signal_delay_s=WARNED_S, additional_parameters={"requeue": True, **extra}, **given)

    def submit(work: Sequence[Work], there: Sequence[Record]) -> list[Record]:
        del there
        try:
            jobs = executor.map_array(Job(), *zip(*work, strict=True))
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
            lines = re.findall(r"sbatch: (?:error: )?(.*)", str(error)) or str(error).strip().splitlines()
            raise UserError(f"sbatch: {lines[0]}: see the flags of the cluster in --help") from error
        return [{"executor": "slurm", "job": job.job_id} for job in jobs]

    def states(records: Sequence[Record]) -> list[str | None]:
        shown = _squeue() if records else {}
        return [shown.get(record["job"]) for record in records]

    def stops(records: Sequence[Record]) -> str:
        return f"scancel {' '.join(sorted({record['job'].partition('_')[0] for record in records}))}"

    return Executor("slurm", None, 3.0, submit, states, stops)


def _squeue() -> dict[str, str]:
    """{job: state} of this user's jobs that wait or run."""
    command = ["squeue", "--me", "-h", "-r", "-o", "%i %T"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (subprocess.SubprocessError, OSError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise UserError(
            f"squeue does not answer ({said[0] if said else error}): the jobs go on, run it later"
        ) from error
    ids = (line.split() for line in told.splitlines())
    return {job: RUNS if state in ("RUNNING", "COMPLETING") else WAITS for job, state in ids}


def local(folder: Path, parallel: int | None) -> Executor:
    """Processes of this machine, that outlive this one; each gets one GPU where there are any.

    Args:
        folder: for logs.
        parallel: how many run at once; None: one a GPU, or one.
    """
    gpus = _gpus()
    executor = submitit.LocalExecutor(folder, max_num_timeout=TIMES)
    here = socket.gethostname()

    def submit(work: Sequence[Work], there: Sequence[Record]) -> list[Record]:
        made: list[Record] = []
        for one in work:
            used = Counter(record.get("gpu") for record in [*there, *made])
            gpu = min(gpus, key=lambda number: used[number], default=None)
            own = {} if gpu is None else {"visible_gpus": [gpu], "gpus_per_node": 1}
            executor.update_parameters(timeout_min=NO_END_MIN, **own)
            with _deaf_to_the_terminal():
                job = executor.submit(Job(), *one)
            made.append({"executor": "local", "job": job.job_id, "host": here, "gpu": gpu})
        return made

    def states(records: Sequence[Record]) -> list[str | None]:
        for record in records:
            if record["host"] != here:
                raise UserError(f"this sweep's jobs run on {record['host']}: run the command there")
        return [RUNS if _is_there(folder, record["job"]) else None for record in records]

    def stops(records: Sequence[Record]) -> str:
        return f"kill {' '.join(record['job'] for record in records)}"

    return Executor("local", parallel or len(gpus) or 1, 1.0, submit, states, stops)


def _gpus() -> list[int]:
    """Numbers of the GPUs that may be used; found without JAX, which would take their memory."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",") if name.strip()]
        if not all(name.isdigit() for name in names):
            raise UserError(f"CUDA_VISIBLE_DEVICES={given}: a sweep wants numbers there, such as 0,1")
        return [int(name) for name in names]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted(int(match[1]) for match in found if match)


@contextlib.contextmanager
def _deaf_to_the_terminal() -> Iterator[None]:
    """Inside, processes are started that go on after Ctrl-C here, and when the terminal is closed."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_there(folder: Path, pid: str) -> bool:
    """Whether the process is there and is a job of this sweep: numbers are used again."""
    try:
        return str(folder).encode() in Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return False
