"""Serves the doctor's page: it shows the slices that the current round of launch.active queries and takes the answers.

Serves RUN_DIR on this machine only, at an address that it prints; Ctrl-C ends it and nothing is lost. With --worklist
reads the answers of a worklist that was filled in elsewhere (a copy of RUN_DIR/annotate/round_NNN/worklist.csv).
With --private writes the tables with which launch.prepare begins the next study, patients.csv and slices.csv, into the
private folder of the scans.

    python -m launch.annotate --workdir=RUN_DIR
    python -m launch.annotate --workdir=RUN_DIR --worklist=FILLED.csv
    python -m launch.annotate --workdir=RUN_DIR --data=DATA_DIR --private=DICOM_DIR/lesion_private
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import cli
from lesion.annotate import server
from lesion.errors import UserError
from lesion.worklist import labels, round_file

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of a run of launch.active with configs/doctor.py.", required=True)
flags.DEFINE_string("worklist", None, "Filled-in worklist to read answers from, instead of serving the page.")
flags.DEFINE_string("private", None, "Private folder of the scans, to write the next study's tables to.")
flags.DEFINE_string("data", None, "Dataset of the run, for --private.")
flags.DEFINE_integer("port", 0, "Port on 127.0.0.1; 0: the previous one, or a free one.", 0, 65535)


def main(argv: Sequence[str]) -> None:
    del argv
    workdir = Path(FLAGS.workdir)
    if FLAGS.worklist:
        print(round_file.import_worklist(workdir, round_file.newest(workdir), Path(FLAGS.worklist)))
        labels.write(workdir)
    elif FLAGS.private or FLAGS.data:
        if not (FLAGS.private and FLAGS.data):
            raise UserError("the next study's tables need both --private=DICOM_DIR/lesion_private and --data=DATA_DIR")
        from lesion.worklist import next_study  # late: it reads datasets, the page needs none

        print(next_study.write(workdir, Path(FLAGS.data), Path(FLAGS.private)))
    else:
        server.serve(workdir, FLAGS.port)


if __name__ == "__main__":
    cli.run(main)
