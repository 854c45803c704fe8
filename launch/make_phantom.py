"""Makes a phantom cohort as a DICOM tree with patients.csv and slices.csv.

Reads nothing and writes the folder --output, which launch.prepare takes as --input.

    python -m launch.make_phantom --preset=demo --seed=0 --output=runs/demo/dicom

With --labeled=12 only 12 patients have a label in patients.csv: a cohort to try launch.annotate on. With --readers=2
there is a readers.csv of two simulated readers, to try the report's comparison with readers on. --site=B is another
hospital, to try launch.evaluate on.
"""

from pathlib import Path

from absl import flags

from lesion import cli, files
from lesion.phantom import cohort

PRESET = flags.DEFINE_string("preset", "demo", f"Size of the cohort: {', '.join(cohort.PRESETS)}.")
SEED = flags.DEFINE_integer("seed", 0, "Random seed; the same seed gives the same bytes.")
OVERLAP = flags.DEFINE_float("overlap", cohort.OVERLAP, "Share of atypical cases, 0 to 1.")
LABELED = flags.DEFINE_integer("labeled", None, "Number of patients with a label in patients.csv; default: all.")
SITE = flags.DEFINE_string(
    "site", "A", "Hospital: A, or B with another scanner, contrast, more noise and as many patients of either class."
)
READERS = flags.DEFINE_integer("readers", 0, "Number of simulated readers, who judge every patient in readers.csv.")
OUTPUT = flags.DEFINE_string("output", None, "Folder to write.", required=True)


def main(argv):
    del argv
    output = Path(OUTPUT.value)
    with files.locked(output):
        made = cohort.make(output, PRESET.value, SEED.value, OVERLAP.value, LABELED.value, READERS.value, SITE.value)
    done = f"{PRESET.value} cohort written to {output}" if made else f"{output} holds this cohort already"
    print(f"phantom: {done}")


if __name__ == "__main__":
    cli.run(main)
