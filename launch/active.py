"""Active labelling, Algorithm 1, against random choice on one sequence (Figs 9-11).

Reads the dataset --data (made by launch.prepare) and writes the folder --workdir:
config.json, acquisitions.csv, curves.csv, stops.csv (where each rule would have stopped), runs.csv, metrics.json.
The same command again goes on where it was stopped or killed, and finds what is finished.

    python -m launch.active --config=configs/active.py:efficientnet_lite0,ce_t1wi \
        --data=DATA_DIR --workdir=RUN_DIR --config.weights=WEIGHTS_DIR
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import errors
from lesion.active.experiment import run_active
from lesion.train.loop import load

FLAGS = flags.FLAGS
errors.define_config("configs/active.py")
flags.DEFINE_string("data", None, "Dataset folder written by launch.prepare.", required=True)
flags.DEFINE_string("workdir", None, "Folder of this run.", required=True)


def main(argv: Sequence[str]) -> None:
    del argv
    run_active(FLAGS.config, load(FLAGS.config, Path(FLAGS.data)), Path(FLAGS.workdir))
    print(f"{FLAGS.workdir}: done; python -m launch.report --workdir={FLAGS.workdir} shows it")


if __name__ == "__main__":
    errors.run(main)
