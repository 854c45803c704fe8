"""Turns a folder of DICOM files into a dataset.

Reads the DICOM tree --input and writes the folder --output, which the other programs take as --data.

    python -m launch.prepare --input=DICOM_DIR --output=DATA_DIR

The DICOM tree holds patients.csv (patient_id,label), slices.csv (sop_instance_uid,frame; optional), series.csv
(series_instance_uid,sequence; optional) and readers.csv (patient_id,reader,label; optional: doctors' diagnoses). The
pseudonym key and table and rejects.csv (file,reason) go to the private folder, which stays with the patients' data. A
second run on the same inputs does nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import cli

_INPUT = flags.DEFINE_string("input", None, "DICOM tree, with patients.csv in it.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write the dataset to.", required=True)
_PRIVATE = flags.DEFINE_string("private", None, "Private folder; default: INPUT/lesion_private.")
_STRICT = flags.DEFINE_bool("strict", False, "Stop at the first file that cannot be read.")


def main(argv: Sequence[str]) -> None:
    # Imported late: worker processes import this module again and need none of it.
    from lesion.dataset import prepare, pseudonyms

    del argv
    source = Path(_INPUT.value)
    private = Path(_PRIVATE.value) if _PRIVATE.value else source / pseudonyms.FOLDER
    print(prepare.prepare(source, Path(_OUTPUT.value), private, _STRICT.value))


if __name__ == "__main__":
    cli.run(main)
