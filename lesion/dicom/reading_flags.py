"""Flags of the programs that read a folder of images, and the options that they make."""

from pathlib import Path
from typing import Any

from absl import flags


def define_flags() -> None:
    """Defines --rules, --visits, --patient, --ocr and --max_pixels."""
    flags.DEFINE_string("rules", None, "File of rules for sequences; default: lesion/dicom/sequences.toml.")
    about = "Visits of a patient: the first of those with the most sequences, or all."
    flags.DEFINE_enum("visits", "first", ["first", "all"], about)
    about = "What names a patient: PatientID, or the first folder below --input."
    flags.DEFINE_enum("patient", "header", ["header", "folder"], about)
    about = "Read pictures, 8-bit and secondary images for text burned in; --noocr takes away white text only."
    flags.DEFINE_bool("ocr", True, about)
    about = "A file of more pixels, all its slices, is refused; a pixel takes up to 16 bytes of memory."
    flags.DEFINE_integer("max_pixels", 2**28, about, 1)


def options_from_flags(**others: Any) -> Any:
    """Returns the `lesion.dicom.folder.Options` that the flags name, and sets the limit on pixels.

    Args:
        **others: further fields of the options.
    """
    # Imported late: worker processes import the programs again and need none of it.
    from lesion.dicom.folder import Options
    from lesion.dicom.read import set_max_pixels
    from lesion.dicom.rules import DEFAULT

    given = flags.FLAGS
    set_max_pixels(given.max_pixels)
    return Options(
        rules=Path(given.rules) if given.rules else DEFAULT,
        visits=given.visits,
        patient_from_folder=given.patient == "folder",
        ocr=given.ocr,
        **others,
    )
