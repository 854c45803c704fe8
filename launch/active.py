r"""Active labelling, Algorithm 1, against random choice on one sequence (Figs 9-11), or with a doctor who answers.

Reads the dataset --data (made by launch.prepare) and writes the folder --workdir:
config.json, acquisitions.csv, curves.csv, stops.csv (where each rule would have stopped), runs.csv, metrics.json.
The same command again resumes where it was stopped or killed, and finds what is finished; with --dry_run it prints what
would be done.

    python -m launch.active --config=configs/active.py:efficientnet_lite0,ce_t1wi \
        --data=DATA_DIR --workdir=RUN_DIR --config.weights=WEIGHTS_DIR

With --config=configs/doctor.py:BACKBONE,SEQUENCE it queries labels that the dataset lacks: a doctor answers by
launch.annotate, and each call goes on as far as there are answers.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import cli, files
from lesion.experiments import kinds
from lesion.experiments.preview import preview

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "Dataset folder written by launch.prepare.", required=True)
flags.DEFINE_string("workdir", None, "Folder of this run.", required=True)
flags.DEFINE_bool("dry_run", False, "Check everything, print what would run and write nothing.")


def main(argv: Sequence[str]) -> None:
    del argv
    config, data, workdir = FLAGS.config, Path(FLAGS.data), Path(FLAGS.workdir)
    name = "doctor" if kinds.kind_of(config) == "doctor" else "active"
    kind = kinds.KINDS[name]
    kind.check(config)
    if FLAGS.dry_run:
        print(preview(kinds.Experiment("", config, name), data, workdir))
        return
    with files.locked(workdir, inside=True):
        outcome = kind.run(config, kind.load(config, data, True), workdir)
    report = shlex.join(["python", "-m", "launch.report", f"--workdir={workdir}"])
    print(outcome if name == "doctor" else f"{workdir}: done; {report} shows it")


if __name__ == "__main__":
    cli.run(main, "configs/active.py")
