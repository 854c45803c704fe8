"""Tries a finished run, unchanged, on another labelled cohort, and writes the report of it.

Reads a finished run of launch.train and a dataset of launch.prepare, and writes the folder --output: predictions.csv,
metrics.json, evaluation.json, report.html. Thresholds are those of the run's own test folds. A cohort that shares a
patient with the run's is refused.

    python -m launch.evaluate --checkpoint=RUN_DIR --data=DATA_DIR --output=DIR
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import cli

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "Finished run of launch.train, or one fold of it.", required=True)
flags.DEFINE_string("data", None, "Dataset of the other cohort, written by launch.prepare.", required=True)
flags.DEFINE_string("output", None, "Folder to write.", required=True)
flags.DEFINE_string("weights", "", "Current folder of the backbone's weights, if they were moved.")
flags.DEFINE_string(
    "recalibrate_on", None, "Text file with a pseudonym a line: patients on whom the intercept is fitted."
)


def main(argv: Sequence[str]) -> None:
    from lesion import report
    from lesion.inference.evaluate import evaluate

    del argv
    chosen = Path(FLAGS.recalibrate_on) if FLAGS.recalibrate_on else None
    output = Path(FLAGS.output)
    print(evaluate(Path(FLAGS.checkpoint), Path(FLAGS.data), output, weights=FLAGS.weights, recalibrate_on=chosen))
    print(f"report: {report.write(output)}")


if __name__ == "__main__":
    cli.run(main)
