r"""Runs every experiment of a configuration and writes one report.

Reads the dataset --data (made by launch.prepare) and writes the folder --workdir: a folder for each part of the plan
(transfer/, explain/, baselines/, fusion/, leakage/, active/, ablations/), cohort/, report.html and paper/, its tables
and figures for LaTeX. The same command again skips what is finished, also when the plan has grown, and tries again
what failed. With --dry_run it prints what would be done. With --executor=slurm the experiments are jobs of a cluster,
see launch.sweep.

    python -m launch.reproduce --config=configs/demo.py \
        --data=DATA_DIR --workdir=RUN_DIR --config.weights=WEIGHTS_DIR
    python -m launch.reproduce --config=configs/paper.py \
        --data=DATA_DIR --workdir=RUN_DIR --config.weights=FOLDER_OF_WEIGHTS
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import cli, files
from lesion.experiments import executors
from lesion.experiments.reproduce import dry_run, reproduce

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "Dataset folder written by launch.prepare.", required=True)
flags.DEFINE_string("workdir", None, "Folder of this run.", required=True)
flags.DEFINE_bool("dry_run", False, "Check everything, print what would run and write nothing.")
executors.define_flags("here")


def main(argv: Sequence[str]) -> None:
    del argv
    if FLAGS.dry_run:
        dry_run(FLAGS.config, Path(FLAGS.data), Path(FLAGS.workdir))
        return
    with files.locked(Path(FLAGS.workdir), inside=True):
        print(reproduce(FLAGS.config, Path(FLAGS.data), Path(FLAGS.workdir), executors.from_flags))


if __name__ == "__main__":
    cli.run(main, "configs/demo.py")
