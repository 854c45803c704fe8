"""Every experiment of a configuration and one report.

Reads the dataset --data (made by launch.prepare) and writes the folder --workdir:
transfer/, active/, cohort/, report.html.
The same command again finds what is finished and does not do it again.

    python -m launch.reproduce --config=configs/demo.py \
        --data=DATA_DIR --workdir=RUN_DIR --config.weights=WEIGHTS_DIR
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import errors
from lesion.reproduce import reproduce

FLAGS = flags.FLAGS
errors.define_config("configs/demo.py")
flags.DEFINE_string("data", None, "Dataset folder written by launch.prepare.", required=True)
flags.DEFINE_string("workdir", None, "Folder of this run.", required=True)


def main(argv: Sequence[str]) -> None:
    del argv
    print(reproduce(FLAGS.config, Path(FLAGS.data), Path(FLAGS.workdir)))


if __name__ == "__main__":
    errors.run(main)
