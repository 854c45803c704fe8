"""What a job does: one experiment, stopped and put back into the queue as often as need be."""

import contextlib
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import submitit
from ml_collections import ConfigDict

from lesion.errors import Interrupted
from lesion.experiments.kinds import KINDS
from lesion.runs import rundir

WARNED_S = 120  # before its time is over
PATIENCE_S = 60  # of them, to come to where all is saved
USER_SIGNAL = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")


class Work(NamedTuple):
    """What a job is told.

    Attributes:
        kind: a key of `kinds.KINDS`.
        fields: of the configuration.
        data_dir: the dataset that launch.prepare wrote.
        folder: of the experiment.
        command: recorded as what was typed.
    """

    kind: str
    fields: dict[str, Any]
    data_dir: str
    folder: str
    command: str


class Job(submitit.helpers.Checkpointable):
    """Runs an experiment in a process of its own, as launch.train or launch.active do.

    SLURM sends SIGTERM to a job that it takes off its node, and submitit's signal (SIGUSR2) to one whose time is nearly
    over. Both save first. After SIGTERM SLURM itself puts the job back into the queue, or it was cancelled; after
    SIGUSR2 submitit does, by the handler that it had set before. When the job begins again it goes on.
    """

    def __call__(self, *work: Any) -> None:
        """Takes the fields of `Work`."""
        put_back, requests = signal.getsignal(USER_SIGNAL), []

        def stop(*_: Any) -> None:
            raise Interrupted("stopped where there was nothing to save")

        def time_is_over(number: int, frame: Any) -> None:
            requests.append(number)
            signal.alarm(PATIENCE_S)  # features are computed without looking up; what there is of them is kept
            handler = signal.getsignal(signal.SIGTERM)  # of the training, or `stop`
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
    """Runs or goes on; why it failed is left in the folder."""
    kind, config, folder = KINDS[work.kind], ConfigDict(work.fields).lock(), Path(work.folder)
    (folder / rundir.FAILED).unlink(missing_ok=True)
    try:
        setup = kind.load(config, Path(work.data_dir), True)
        if hasattr(setup, "run"):  # a Grad-CAM sheet is known by the run it is of
            setup = setup._replace(run=setup.run | {"command": work.command})
        kind.run(config, setup, folder)
    except Interrupted:
        raise
    except Exception as error:
        with contextlib.suppress(OSError):  # perhaps the disk is full
            rundir.fail(folder, error)
        raise
