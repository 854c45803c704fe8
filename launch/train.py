r"""Feature transfer with cross-validation over patients on one sequence (Tables 3-5), or fusion of several.

Reads the dataset --data (made by launch.prepare) and writes the folder --workdir:
config.json, checkpoints/, tensorboard/, predictions.csv, metrics.json.
The same command again resumes where it was stopped or killed, and finds what is finished; with --dry_run it prints what
would be done.

    python -m launch.train --config=configs/transfer.py:efficientnet_lite0,ce_t1wi \
        --data=DATA_DIR --workdir=RUN_DIR --config.weights=WEIGHTS_DIR
    python -m launch.train --config=configs/transfer.py:resnet50,ce_t1wi --config.mode=finetune \
        --config.finetune_from=layer4 --data=DATA_DIR --workdir=RUN_DIR --config.weights=WEIGHTS_DIR
    python -m launch.train --config=configs/fusion.py:efficientnet_lite0 \
        --data=DATA_DIR --workdir=RUN_DIR --config.weights=WEIGHTS_DIR

All devices of a machine are used. On several machines start it once on each, with the same folders: under SLURM as it
is, else with --coordinator, --num_processes and --process_id.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import cli
from lesion.experiments import kinds
from lesion.experiments.preview import preview
from lesion.runs.processes import locked
from lesion.train.devices import connect

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "Dataset folder written by launch.prepare.", required=True)
flags.DEFINE_string("workdir", None, "Folder of this run.", required=True)
flags.DEFINE_bool("dry_run", False, "Check everything, print what would run and write nothing.")
flags.DEFINE_string("coordinator", None, "HOST:PORT of the first process, if several run without SLURM.")
flags.DEFINE_integer("num_processes", None, "Number of processes.", lower_bound=1)
flags.DEFINE_integer("process_id", None, "Index of this process, from 0.", lower_bound=0)


def main(argv: Sequence[str]) -> None:
    del argv
    connect(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    config, data, workdir = FLAGS.config, Path(FLAGS.data), Path(FLAGS.workdir)
    name = "fusion" if kinds.kind_of(config) == "fusion" else "transfer"
    if FLAGS.dry_run:
        print(preview(kinds.Experiment("", config, name), data, workdir))
        return
    kind = kinds.KINDS[name]
    with locked(workdir):
        kind.run(config, kind.load(config, data, True), workdir)
    part = workdir / "early" if name == "fusion" else workdir
    print(f"{workdir}: done; {shlex.join(['python', '-m', 'launch.report', f'--workdir={part}'])} shows it")


if __name__ == "__main__":
    cli.run(main, "configs/transfer.py")
