"""Predicts the patients of a DICOM folder by the networks of a run. Research use only.

Reads the folder --input as launch.prepare does (no labels needed; slices.csv and series.csv in it are used) and
writes the table --output, each patient and then the patient's slices: probability of glioma (with other --classes of
launch.prepare: of the second), its spread over the networks of the folds, entropy in nats, and a flag that says why
there is no prediction. A folder beside it gets Grad-CAM sheets, one per patient. Patients have pseudonyms, whose table
stays in the private folder.

    python -m launch.predict --checkpoint=RUN_DIR --input=DICOM_DIR --output=predictions.csv
    python -m launch.predict --checkpoint=RUN_DIR/checkpoints/fold_0 --input=DICOM_DIR --output=predictions.csv
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import cli
from lesion.dicom import reading_flags

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Run of launch.train, or one fold of it.", required=True)
_INPUT = flags.DEFINE_string("input", None, "DICOM tree of the patients.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Table to write, e.g. predictions.csv.", required=True)
_PRIVATE = flags.DEFINE_string("private", None, "Private folder; default: INPUT/lesion_private.")
reading_flags.define_flags()
_WEIGHTS = flags.DEFINE_string("weights", "", "Current folder of the backbone's weights, if they were moved.")


def main(argv: Sequence[str]) -> None:
    # Imported late: worker processes import this module again and need none of it.
    from lesion.dataset import pseudonyms
    from lesion.inference.predict import predict

    del argv
    source = Path(_INPUT.value)
    private = Path(_PRIVATE.value) if _PRIVATE.value else source / pseudonyms.FOLDER
    options = reading_flags.options_from_flags()
    checkpoint, output = Path(_CHECKPOINT.value), Path(_OUTPUT.value)
    print(predict(checkpoint, source, output, private=private, weights=_WEIGHTS.value, options=options))


if __name__ == "__main__":
    cli.run(main)
