"""Turns a folder of DICOM files into a dataset.

Reads the DICOM tree --input and writes the folder --output, which the other programs take as --data.

    python -m launch.prepare --input=DICOM_DIR --survey
    python -m launch.prepare --input=DICOM_DIR --output=DATA_DIR

The first only reads headers and one slice a series, and tells what every series is taken for: a page to look at, where
sequences are corrected. In the DICOM tree lie patients.csv (patient_id,label), slices.csv (sop_instance_uid,frame;
optional), series.csv (series_instance_uid,sequence; optional; the page writes it) and readers.csv
(patient_id,reader,label; optional: what doctors said of a patient). Archives are unpacked; pictures go in where
images.csv (file,patient_id,sequence) names them, NIfTI as BIDS, as BraTS or by that table; see lesion/dicom/README.md.

The pseudonym key and table, rejects.csv (file,reason), series_found.csv, series_found.html and qc_text.png (slices with
text burned in, before and after) go to the private folder, which stays with the patients' data. A second run on the
same inputs does nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import classes, cli, files
from lesion.dicom import reading_flags

_INPUT = flags.DEFINE_string("input", None, "DICOM tree, with patients.csv in it.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write the dataset to; not needed with --survey.")
_SURVEY = flags.DEFINE_bool("survey", False, "Only tell what becomes of each series.")
_PRIVATE = flags.DEFINE_string("private", None, "Private folder; default: INPUT/lesion_private.")
reading_flags.define_flags()
_LABELS = flags.DEFINE_string("labels", None, "Column of labels in participants.tsv (BIDS); default: patients.csv.")
_MASKS = flags.DEFINE_string("masks", None, "Folder of lesion masks (NIfTI): slices with lesion are chosen by them.")
_MIN_LESION = flags.DEFINE_float("min_lesion_mm2", 50.0, "--masks: area from which on a slice is chosen.", 0.0)
_CLASSES = flags.DEFINE_list("classes", list(classes.PAPER), "The two classes that labels name: NEGATIVE,POSITIVE.")
_WINDOW = flags.DEFINE_enum(
    "window",
    "head",
    ["head", "header", "series"],
    "Black and white from the inner head, the file's VOI window or lookup table, or percentiles of the whole head.",
)
_FACES = flags.DEFINE_bool("faces", True, "Use isotropic 3D series too, from which a face can be rendered.")
_STRICT = flags.DEFINE_bool("strict", False, "Stop at the first file that cannot be read.")


def main(argv: Sequence[str]) -> None:
    # Imported late: worker processes import this module again and need none of it.
    from lesion.dataset import prepare, pseudonyms
    from lesion.errors import UserError

    del argv
    source = Path(_INPUT.value)
    private = Path(_PRIVATE.value) if _PRIVATE.value else source / pseudonyms.FOLDER
    options = reading_flags.options_from_flags(
        strict=_STRICT.value,
        labels_column=_LABELS.value or "",
        masks=Path(_MASKS.value) if _MASKS.value else None,
        min_lesion_mm2=_MIN_LESION.value,
        classes=classes.parse(_CLASSES.value),
        window=_WINDOW.value,
        faces=_FACES.value,
    )
    if _SURVEY.value:
        print(prepare.survey(source, private, options))
    elif _OUTPUT.value is None:
        raise UserError("--output is not given: name the folder to make the dataset in, or look first with --survey")
    else:
        with files.locked(Path(_OUTPUT.value)):
            print(prepare.prepare(source, Path(_OUTPUT.value), private, options))


if __name__ == "__main__":
    cli.run(main)
