"""Writes WORKDIR/report.html, one file that opens offline, and WORKDIR/paper (LaTeX tables, PDF figures).

Reads the folder of a finished or unfinished run; experiments that failed are shown as failed.

    python -m launch.report --workdir=RUN_DIR
"""

from collections.abc import Sequence

from absl import flags

from lesion import cli, report

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of launch.reproduce, launch.train or launch.active.", required=True)
flags.DEFINE_float(
    "prevalence",
    None,
    "Share of the positive class for which predictive values and net benefit are told; the cohort's if not given.",
    lower_bound=0.0,
    upper_bound=1.0,
)


def main(argv: Sequence[str]) -> None:
    del argv
    print(report.write(FLAGS.workdir, FLAGS.prevalence))


if __name__ == "__main__":
    cli.run(main)
