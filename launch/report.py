"""Writes WORKDIR/report.html, one file that opens offline, and WORKDIR/paper (LaTeX tables, PDF figures).

From a finished or half-finished run folder; what failed is shown as failed.

python -m launch.report --workdir=RUN_DIR
"""

from collections.abc import Sequence

from absl import flags

from lesion import cli, report

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of launch.reproduce, launch.train or launch.active.", required=True)


def main(argv: Sequence[str]) -> None:
    del argv
    print(report.write(FLAGS.workdir))


if __name__ == "__main__":
    cli.run(main)
