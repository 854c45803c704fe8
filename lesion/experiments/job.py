"""What a job does: one setting, stopped and put back into the queue as often as need be."""

import contextlib
import signal
import sys
from pathlib import Path
from typing import Any

import submitit
from ml_collections import ConfigDict

from lesion.active.experiment import run_active
from lesion.errors import Interrupted
from lesion.experiments.settings import is_active
from lesion.runs import rundir
from lesion.transfer.loading import load, run_transfer

WARNED_S = 120  # before its time is over
PATIENCE_S = 60  # of them, to come to where all is saved
USER_SIGNAL = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")


class Job(submitit.helpers.Checkpointable):
    """Called in the job: does what launch.train or launch.active do.

    SLURM sends SIGTERM to a job that it takes off its node, and submitit's signal (SIGUSR2) to one whose time is nearly
    over. Both save first. After SIGTERM SLURM itself puts the job back into the queue, or it was cancelled; after
    SIGUSR2 submitit does, by the handler that it had set before. When the job begins again it goes on.
    """

    def __call__(self, fields: dict[str, Any], data_dir: str, folder: str, command: str) -> None:
        """`fields` are those of the configuration, `command` is recorded as what was typed."""
        put_back, asked = signal.getsignal(USER_SIGNAL), []

        def stop(*_: Any) -> None:
            raise Interrupted("stopped where there was nothing to save")

        def time_is_over(number: int, frame: Any) -> None:
            asked.append(number)
            signal.alarm(PATIENCE_S)  # features are computed without looking up; what there is of them is kept
            heed = signal.getsignal(signal.SIGTERM)  # of the training, or `stop`
            assert callable(heed)
            heed(signal.SIGTERM, frame)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(USER_SIGNAL, time_is_over)
        signal.signal(signal.SIGALRM, stop)
        try:
            run_setting(ConfigDict(fields).lock(), Path(data_dir), Path(folder), command)
        except Interrupted as error:
            print(error, file=sys.stderr, flush=True)
            for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGALRM):
                signal.signal(number, signal.SIG_IGN)  # SLURM sends more of them while this ends
            if asked and callable(put_back):
                put_back(USER_SIGNAL, None)
            sys.exit(128 + signal.SIGTERM)
        finally:
            signal.alarm(0)


def run_setting(config: ConfigDict, data_dir: Path, folder: Path, command: str) -> None:
    """Runs or goes on; why it failed is left in the folder."""
    (folder / rundir.FAILED).unlink(missing_ok=True)
    try:
        setup = load(config, data_dir)
        setup = setup._replace(run=setup.run | {"command": command})
        (run_active if is_active(config) else run_transfer)(config, setup, folder)
    except Interrupted:
        raise
    except Exception as error:
        with contextlib.suppress(OSError):  # perhaps the disk is full
            rundir.fail(folder, error)
        raise
