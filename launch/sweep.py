r"""Runs every setting that a configuration's `sweep(add)` adds, as jobs of a SLURM cluster or of this machine.

Reads the dataset --data (made by launch.prepare) and writes a folder per setting into --workdir, each as launch.train
or launch.active would, and --workdir/submitit with the logs. Shows what waits, runs, failed and is finished. Ctrl-C
ends the display, not the jobs; the same command again comes back to them and submits only what is missing. Jobs that
SLURM preempts, or that reach their time limit, save, wait in the queue again and resume.

    python -m launch.sweep --config=configs/head_search.py:efficientnet_lite0,ce_t1wi \
        --data=DATA_DIR --workdir=RUN_DIR --config.weights=WEIGHTS_DIR --dry_run
    python -m launch.sweep --config=configs/head_search.py --executor=slurm --partition=gpu --gpus=1 --timeout_min=120 \
        --parallel=8 --data=DATA_DIR --workdir=RUN_DIR --config.weights=WEIGHTS_DIR

With --executor=slurm all three folders must be seen by every node.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import cli, files
from lesion.errors import UserError
from lesion.experiments import board, executors
from lesion.experiments.preview import preview_all
from lesion.experiments.runner import run_all
from lesion.experiments.settings import settings

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "Dataset folder written by launch.prepare.", required=True)
flags.DEFINE_string("workdir", None, "Folder of the sweep.", required=True)
flags.DEFINE_bool("dry_run", False, "Check everything, print what would run and write nothing.")
executors.define_flags("local")


def main(argv: Sequence[str]) -> None:
    del argv
    file, overrides = cli.config_source()
    experiments = settings(cli.load_module(file), file, FLAGS.config, overrides)
    data, workdir = Path(FLAGS.data), Path(FLAGS.workdir)
    if FLAGS.dry_run:
        title = f"{len(experiments)} settings, executor {FLAGS.executor}"
        text, failing = preview_all(title, experiments, data, workdir)
        print(text)
        if failing:
            raise UserError(f"{len(failing)} of {len(experiments)} settings would fail, see above")
        return
    with files.locked(workdir, inside=True):
        rows = run_all(experiments, data, workdir, executors.from_flags)
    print(board.counts(rows))
    failed = [row for row in rows if row.state == board.FAILED]
    for row in failed:
        print(f"{row.name}: {row.text}", file=sys.stderr)
    if failed:
        raise UserError(f"{len(failed)} of {len(rows)} settings failed, see above; the same command tries them again")
    print(f"{workdir}: done")


if __name__ == "__main__":
    cli.run(main, "configs/head_search.py")
