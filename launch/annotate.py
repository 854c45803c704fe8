"""Serves the doctor's page: it shows the slices that the current round of launch.active queries and takes the answers.

Serves RUN_DIR on this machine only, at an address that it prints; Ctrl-C ends it and nothing is lost. With --worklist
reads the answers of a worklist that was filled in elsewhere (a copy of RUN_DIR/annotate/round_NNN/worklist.csv).

    python -m launch.annotate --workdir=RUN_DIR
    python -m launch.annotate --workdir=RUN_DIR --worklist=FILLED.csv
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import cli
from lesion.annotate import server
from lesion.worklist import round_file

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of a run of launch.active with configs/doctor.py.", required=True)
flags.DEFINE_string("worklist", None, "Filled-in worklist to read answers from, instead of serving the page.")
flags.DEFINE_integer("port", 0, "Port on 127.0.0.1; 0: the previous one, or a free one.", 0, 65535)


def main(argv: Sequence[str]) -> None:
    del argv
    workdir = Path(FLAGS.workdir)
    if FLAGS.worklist:
        print(round_file.import_worklist(workdir, round_file.newest(workdir), Path(FLAGS.worklist)))
    else:
        server.serve(workdir, FLAGS.port)


if __name__ == "__main__":
    cli.run(main)
