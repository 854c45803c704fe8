"""Measures something and prints a table; the README holds the figures for --preset=table1.

python -m launch.benchmark --suite=phantom --input=runs/phantom/dicom --markdown
"""

from pathlib import Path

from absl import flags

from lesion import errors
from lesion.benchmarks import phantom

SUITE = flags.DEFINE_enum("suite", "phantom", ["phantom"], "what to measure")
INPUT = flags.DEFINE_string("input", None, "DICOM tree with patients.csv and slices.csv", required=True)
CACHE = flags.DEFINE_string("cache", "runs/benchmark", "folder for converted weights and computed features")
MARKDOWN = flags.DEFINE_bool("markdown", False, "print the table as Markdown")


def main(argv):
    del argv
    print(phantom.table(phantom.run(Path(INPUT.value), Path(CACHE.value)), MARKDOWN.value))


if __name__ == "__main__":
    errors.run(main)
