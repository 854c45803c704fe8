"""Executors run experiments in this process or, by submitit, on SLURM or in other processes of this machine."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import submitit
from absl import flags

from lesion.errors import Interrupted, InUseError, UserError
from lesion.experiments.board import RUNS, WAITS
from lesion.experiments.job import WARNED_S, Job, Work, run_experiment

Record = dict[str, Any]  # describes a submitted job, JSON-able
FOLDER = "submitit"  # below the working directory: logs and submitit's own files
TIMES = 1000  # most times that a job is requeued at its time limit
NO_END_MIN = 60 * 24 * 365  # time limit of a local job


class Executor(NamedTuple):
    """Where experiments run.

    Attributes:
        in_process: whether they run in this process, one after another, without jobs.
        slots: most jobs that may be submitted at once; None: the executor has a queue of its own.
        poll_s: seconds between two looks at the jobs.
        submit: (work, records of the jobs that wait or run) -> records of the new jobs.
        states: (records) -> for each job `WAITS`, `RUNS`, or None if it has ended.
        stop_command: (records) -> the shell command that stops these jobs.
    """

    in_process: bool
    slots: int | None
    poll_s: float
    submit: Callable[[Sequence[Work], Sequence[Record]], list[Record]]
    states: Callable[[Sequence[Record]], list[str | None]]
    stop_command: Callable[[Sequence[Record]], str]


def log_of(folder: Path, record: Record) -> Path:
    """Returns the path of a job's log, its stderr."""
    return submitit.core.utils.JobPaths(folder, record["job"], 0).stderr


def in_process() -> Executor:
    """Builds an executor that runs experiments in this process, one after another."""

    def submit(work: Sequence[Work], busy: Sequence[Record]) -> list[Record]:
        del busy
        for item in work:
            try:
                run_experiment(item)
            except (Interrupted, InUseError, OSError):  # a stop, a folder in use, a full disk: not the experiment's
                raise
            except UserError:
                pass  # the reason is recorded in its folder
            except Exception:
                traceback.print_exc(file=sys.stderr)
        return []

    return Executor(True, 1, 0.0, submit, lambda records: [], lambda records: "")


def slurm(folder: Path, parallel: int | None, options: Mapping[str, Any], extra: Mapping[str, Any]) -> Executor:
    """Builds an executor that submits SLURM arrays.

    Args:
        folder: folder for logs, seen by all nodes.
        parallel: most jobs that run at once; None: as many as there is room for.
        options: arguments of `submitit.SlurmExecutor.update_parameters`; None leaves one to the cluster.
        extra: further options of sbatch.

    Raises:
        UserError: if there is no SLURM on this machine.
    """
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMES)
    except RuntimeError as error:
        raise UserError("no srun here: start it on a machine of the cluster, or give --executor=local") from error
    given = {k: v for k, v in options.items() if v is not None} | ({"array_parallelism": parallel} if parallel else {})
    # Requeued when a node fails or another job preempts it: not every cluster does so unless asked.
    executor.update_parameters(signal_delay_s=WARNED_S, additional_parameters={"requeue": True, **extra}, **given)

    def submit(work: Sequence[Work], busy: Sequence[Record]) -> list[Record]:
        del busy
        try:
            jobs = executor.map_array(Job(), *zip(*work, strict=True))
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
            lines = re.findall(r"sbatch: (?:error: )?(.*)", str(error)) or str(error).strip().splitlines()
            raise UserError(f"sbatch: {lines[0]}: see the flags of the cluster in --help") from error
        return [{"executor": "slurm", "job": job.job_id} for job in jobs]

    def states(records: Sequence[Record]) -> list[str | None]:
        queue = _squeue() if records else {}
        return [queue.get(record["job"]) for record in records]

    def stop_command(records: Sequence[Record]) -> str:
        return f"scancel {' '.join(sorted({record['job'].partition('_')[0] for record in records}))}"

    return Executor(False, None, 3.0, submit, states, stop_command)


def _squeue() -> dict[str, str]:
    """Returns {job: `WAITS` or `RUNS`} of this user's jobs."""
    command = ["squeue", "--me", "-h", "-r", "-o", "%i %T"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (subprocess.SubprocessError, OSError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise UserError(
            f"squeue does not answer ({lines[0] if lines else error}): the jobs go on, run it later"
        ) from error
    ids = (line.split() for line in output.splitlines())
    return {job: RUNS if state in ("RUNNING", "COMPLETING") else WAITS for job, state in ids}


def local(folder: Path, parallel: int | None) -> Executor:
    """Builds an executor of processes on this machine that outlive this one; each gets a GPU if there are any.

    Args:
        folder: folder for logs.
        parallel: most processes at once; None: one per GPU, or one without GPUs.
    """
    gpus = _gpus()
    executor = submitit.LocalExecutor(folder, max_num_timeout=TIMES)
    here = socket.gethostname()

    def submit(work: Sequence[Work], busy: Sequence[Record]) -> list[Record]:
        made: list[Record] = []
        for item in work:
            used = Counter(record.get("gpu") for record in [*busy, *made])
            gpu = min(gpus, key=lambda number: used[number], default=None)
            own = {} if gpu is None else {"visible_gpus": [gpu], "gpus_per_node": 1}
            executor.update_parameters(timeout_min=NO_END_MIN, **own)
            with _ignoring_the_terminal():
                job = executor.submit(Job(), *item)
            made.append({"executor": "local", "job": job.job_id, "host": here, "gpu": gpu})
        return made

    def states(records: Sequence[Record]) -> list[str | None]:
        for record in records:
            if record["host"] != here:
                raise UserError(f"these jobs run on {record['host']}: run the command there")
        return [RUNS if _is_alive(folder, record["job"]) else None for record in records]

    def stop_command(records: Sequence[Record]) -> str:
        return f"kill {' '.join(record['job'] for record in records)}"

    return Executor(False, parallel or len(gpus) or 1, 1.0, submit, states, stop_command)


def _gpus() -> list[int]:
    """Returns the numbers of the usable GPUs; does without JAX, which would take their memory."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",") if name.strip()]
        if not all(name.isdigit() for name in names):
            raise UserError(f"CUDA_VISIBLE_DEVICES={given}: a sweep needs numbers there, such as 0,1")
        return [int(name) for name in names]
    matches = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted(int(match[1]) for match in matches if match)


@contextlib.contextmanager
def _ignoring_the_terminal() -> Iterator[None]:
    """Makes processes that are started inside survive Ctrl-C here and a closed terminal."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_alive(folder: Path, pid: str) -> bool:
    """Returns whether a process is alive and a job of this folder: process ids are reused."""
    try:
        return str(folder).encode() in Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return False


def define_flags(default: str) -> None:
    """Defines the flags of executors: --executor, with this default, and those of its jobs."""
    flags.DEFINE_enum("executor", default, ["here", "local", "slurm"], "In this process, in others, or on SLURM.")
    flags.DEFINE_integer("parallel", None, "Most jobs at once; default: local one per GPU, slurm all.", lower_bound=1)
    flags.DEFINE_string("partition", None, "slurm: partition; default: the cluster's.")
    flags.DEFINE_integer("gpus", None, "slurm: GPUs per job.", lower_bound=0)
    flags.DEFINE_integer("cpus", None, "slurm: CPU cores per job.", lower_bound=1)
    flags.DEFINE_integer("mem_gb", None, "slurm: memory per job, GB.", lower_bound=1)
    about = "slurm: time limit, minutes; a job that needs longer saves and queues again."
    flags.DEFINE_integer("timeout_min", 240, about, lower_bound=5)
    about = "slurm: further options of sbatch, such as account=NAME,mail-type=END,FAIL or exclusive."
    flags.DEFINE_multi_string("sbatch", [], about)


def from_flags(folder: Path) -> Executor:
    """Builds the executor that the flags name; its jobs log to `folder`."""
    given = flags.FLAGS
    if given.executor == "here":
        return in_process()
    if given.executor == "local":
        return local(folder, given.parallel)
    options = {
        "job_name": "lesion",
        "partition": given.partition,
        "time": given.timeout_min,
        "gpus_per_node": given.gpus,
        "cpus_per_task": given.cpus,
        "mem": given.mem_gb and f"{given.mem_gb}GB",
    }
    return slurm(folder, given.parallel, options, sbatch_options(given.sbatch))


def sbatch_options(given: Sequence[str]) -> dict[str, str | bool]:
    """Returns {option: value} of `account=NAME,mail-type=END,FAIL`: a comma parts options only where `name=` follows.

    An option without a value, such as `exclusive`, is True; it is written alone, in a --sbatch of its own.
    """
    options = [option for text in given for option in re.split(r",(?=[a-z-]+=)", text) if option]
    return {name: value if sign else True for name, sign, value in (option.partition("=") for option in options)}
