"""A job: runs one experiment, stopped and requeued as often as necessary."""

import contextlib
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import submitit
from ml_collections import ConfigDict

from lesion import files
from lesion.errors import Interrupted
from lesion.experiments.kinds import KINDS
from lesion.runs import rundir

WARNED_S = 120  # seconds before its time limit at which a job is warned
PATIENCE_S = 60  # of these seconds, those a job has to reach a point where all is saved
USER_SIGNAL = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")


class Work(NamedTuple):
    """Arguments of a job.

    Attributes:
        kind: key of `kinds.KINDS`.
        fields: fields of the configuration.
        data_dir: dataset folder written by launch.prepare.
        folder: folder of the experiment.
        command: command line to record in the experiment's config.json.
    """

    kind: str
    fields: dict[str, Any]
    data_dir: str
    folder: str
    command: str


class Job(submitit.helpers.Checkpointable):
    """Runs an experiment in a process of its own, as launch.train or launch.active do.

    SLURM sends SIGTERM to a job that it preempts or cancels, and submitit's signal (SIGUSR2) to one near its time
    limit. The job saves on either. After SIGTERM SLURM itself requeues the job unless it was cancelled; after SIGUSR2
    submitit does, by the handler that was set before this one. A requeued job resumes.
    """

    def __call__(self, *work: Any) -> None:
        """Runs the experiment; takes the fields of `Work`."""
        put_back, requests = signal.getsignal(USER_SIGNAL), []

        def stop(*_: Any) -> None:
            raise Interrupted("stopped where there was nothing to save")

        def time_is_over(number: int, frame: Any) -> None:
            requests.append(number)
            signal.alarm(PATIENCE_S)  # computing features checks for no signal; those computed are kept
            handler = signal.getsignal(signal.SIGTERM)  # the training's, or `stop`
            assert callable(handler)
            handler(signal.SIGTERM, frame)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(USER_SIGNAL, time_is_over)
        signal.signal(signal.SIGALRM, stop)
        try:
            run_experiment(Work(*work))
        except Interrupted as error:
            print(error, file=sys.stderr, flush=True)
            for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGALRM):
                signal.signal(number, signal.SIG_IGN)  # SLURM sends more of them while this ends
            if requests and callable(put_back):
                put_back(USER_SIGNAL, None)
            sys.exit(128 + signal.SIGTERM)
        finally:
            signal.alarm(0)


def run_experiment(work: Work) -> None:
    """Runs or resumes an experiment; records a failure in its folder and raises it.

    Raises:
        InUseError: if another process uses the folder, in which nothing is recorded then.
    """
    with files.locked(Path(work.folder), inside=True):
        _run(work)


def _run(work: Work) -> None:
    kind, config, folder = KINDS[work.kind], ConfigDict(work.fields).lock(), Path(work.folder)
    (folder / rundir.FAILED).unlink(missing_ok=True)
    try:
        setup = kind.load(config, Path(work.data_dir), True)
        if hasattr(setup, "run"):  # a Grad-CAM sheet has no record of its own
            setup = setup._replace(run=setup.run | {"command": work.command})
        kind.run(config, setup, folder)
    except Interrupted:
        raise
    except Exception as error:
        with contextlib.suppress(OSError):  # perhaps the disk is full
            rundir.fail(folder, error)
        raise
