"""Who runs experiments: this process, or by submitit SLURM, or other processes of this machine."""

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

from lesion.errors import Interrupted, UserError
from lesion.experiments.board import RUNS, WAITS
from lesion.experiments.job import WARNED_S, Job, Work, run_experiment

Record = dict[str, Any]  # of a job that was submitted, JSON-able
FOLDER = "submitit"  # of the working directory: logs and what submitit keeps
TIMES = 1000  # that a job may be put back after its time was over
NO_END_MIN = 60 * 24 * 365


class Executor(NamedTuple):
    """Where experiments run.

    Attributes:
        in_process: whether they run in this process, one after another, and no jobs are made.
        slots: submitted at once, at most; None: it has a queue of its own.
        poll_s: seconds between two looks.
        submit: (work, records of the jobs that are there) -> records of the new ones.
        states: (records) -> of each `WAITS`, `RUNS`, or None if it is there no more.
        stop_command: (records) -> the command that stops them.
    """

    in_process: bool
    slots: int | None
    poll_s: float
    submit: Callable[[Sequence[Work], Sequence[Record]], list[Record]]
    states: Callable[[Sequence[Record]], list[str | None]]
    stop_command: Callable[[Sequence[Record]], str]


def log_of(folder: Path, record: Record) -> Path:
    """Returns where a job writes what it says."""
    return submitit.core.utils.JobPaths(folder, record["job"], 0).stderr


def in_process() -> Executor:
    """Builds an executor that runs experiments in this process, one after another."""

    def submit(work: Sequence[Work], busy: Sequence[Record]) -> list[Record]:
        del busy
        for item in work:
            try:
                run_experiment(item)
            except (Interrupted, OSError):  # to be stopped, or no disk to write on: not this experiment's fault
                raise
            except UserError:
                pass  # why is left in its folder
            except Exception:
                traceback.print_exc(file=sys.stderr)
        return []

    return Executor(True, 1, 0.0, submit, lambda records: [], lambda records: "")


def slurm(folder: Path, parallel: int | None, options: Mapping[str, Any], extra: Mapping[str, Any]) -> Executor:
    """Builds an executor that submits SLURM arrays.

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

    def submit(work: Sequence[Work], busy: Sequence[Record]) -> list[Record]:
        del busy
        try:
            jobs = executor.map_array(Job(), *zip(*work, strict=True))
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
            lines = re.findall(r"sbatch: (?:error: )?(.*)", str(error)) or str(error).strip().splitlines()
            raise UserError(f"sbatch: {lines[0]}: see the flags of the cluster in --help") from error
        return [{"executor": "slurm", "job": job.job_id} for job in jobs]

    def states(records: Sequence[Record]) -> list[str | None]:
        shown = _squeue() if records else {}
        return [shown.get(record["job"]) for record in records]

    def stop_command(records: Sequence[Record]) -> str:
        return f"scancel {' '.join(sorted({record['job'].partition('_')[0] for record in records}))}"

    return Executor(False, None, 3.0, submit, states, stop_command)


def _squeue() -> dict[str, str]:
    """Returns {job: state} of this user's jobs that wait or run."""
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
    """Builds an executor of processes of this machine, that outlive this one; each gets a GPU where there are any.

    Args:
        folder: for logs.
        parallel: how many run at once; None: one a GPU, or one.
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
    """Returns the numbers of the GPUs that may be used; found without JAX, which would take their memory."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",") if name.strip()]
        if not all(name.isdigit() for name in names):
            raise UserError(f"CUDA_VISIBLE_DEVICES={given}: a sweep wants numbers there, such as 0,1")
        return [int(name) for name in names]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted(int(match[1]) for match in found if match)


@contextlib.contextmanager
def _ignoring_the_terminal() -> Iterator[None]:
    """Lets processes be started inside that go on after Ctrl-C here, and when the terminal is closed."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_alive(folder: Path, pid: str) -> bool:
    """Returns whether a process is alive and a job of this folder: numbers are used again."""
    try:
        return str(folder).encode() in Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return False


def define_flags(default: str) -> None:
    """Defines the flags of what runs experiments: --executor, with this default, and those of jobs."""
    flags.DEFINE_enum("executor", default, ["here", "local", "slurm"], "This process, other ones, or a SLURM array.")
    flags.DEFINE_integer("parallel", None, "Jobs at once, at most; default: local one a GPU, slurm all.", lower_bound=1)
    flags.DEFINE_string("partition", None, "slurm: of the cluster; default: its own.")
    flags.DEFINE_integer("gpus", None, "slurm: GPUs a job.", lower_bound=0)
    flags.DEFINE_integer("cpus", None, "slurm: CPU cores a job.", lower_bound=1)
    flags.DEFINE_integer("mem_gb", None, "slurm: memory a job, GB.", lower_bound=1)
    about = "slurm: minutes; a job that needs more saves and queues again."
    flags.DEFINE_integer("timeout_min", 240, about, lower_bound=5)
    flags.DEFINE_list("sbatch", [], "slurm: further options of sbatch, such as account=NAME,constraint=a100.")


def from_flags(folder: Path) -> Executor:
    """Builds the executor that the flags name, with `folder` for the logs of jobs."""
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
    extra = dict(option.partition("=")[::2] for option in given.sbatch)
    return slurm(folder, given.parallel, options, extra)
