"""Reads a folder of images from its files to what becomes of each series: the way in of prepare and of predict.

Archives are unpacked into the private folder. DICOM files are read by their headers; pictures count as far as
images.csv names them, NIfTI files by their place in a BIDS tree or a patient's folder, or by images.csv.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lesion.classes import PAPER, Classes
from lesion.dicom import archives, nifti, pictures, scan, tables
from lesion.dicom.decide import NOT_LISTED, decide
from lesion.dicom.read import Instance, RejectedFile, is_axial
from lesion.dicom.rules import DEFAULT, Rules
from lesion.dicom.scan import ListedFile, Scan
from lesion.dicom.series import Series, find_series
from lesion.dicom.tables import UserTables
from lesion.errors import UserError

UNPACKED = "unpacked"  # in the private folder


class Options(NamedTuple):
    """How a folder is read.

    Attributes:
        strict: stop at the first broken file.
        rules: file of rules that tell sequences.
        visits: "first": one visit of each patient, see `lesion.dicom.decide`; "all": every visit.
        patient_from_folder: the first folder below the tree names the patient, not the header.
        sequence: the only sequence that is asked for; empty for all.
        labels_column: column of BIDS' participants.tsv that holds the labels; empty for patients.csv.
        masks: folder of lesion masks as NIfTI, which choose the slices; None without.
        min_lesion_mm2: area of the lesion from which on a slice is chosen by its mask.
        classes: the two classes that labels name.
        ocr: whether slices that may hold text are read, see `lesion.dataset.burned_in_text`.
        window: how windows are chosen, see `lesion.dataset.preprocess`.
        faces: whether series from which a face can be rendered are used.
    """

    strict: bool = False
    rules: Path = DEFAULT
    visits: str = "first"
    patient_from_folder: bool = False
    sequence: str = ""
    labels_column: str = ""
    masks: Path | None = None
    min_lesion_mm2: float = 50.0
    classes: Classes = PAPER
    ocr: bool = True
    window: str = "head"
    faces: bool = True


class Found(NamedTuple):
    """What the files of a folder say.

    Attributes:
        user: the user's tables, under the PatientIDs of the images.
        scanned: the headers.
        series: all series, with what becomes of each.
    """

    user: UserTables
    scanned: Scan
    series: list[Series]


def find(folder: Path, private: Path, listing: Sequence[ListedFile], user: UserTables, options: Options) -> Found:
    """Reads the headers of a folder and decides what becomes of each series.

    Args:
        folder: the tree.
        private: the private folder, into which archives are unpacked.
        listing: the files of the tree.
        user: its tables.
        options: how to read it.

    Raises:
        UserError: no file is an MR image, a table names what is not there, or the rules are wrong.
    """
    rules = Rules(options.rules)
    unpacked = private / UNPACKED
    unread = archives.unpack(folder, unpacked, leave_out=(private,))
    inside = scan.list_files(unpacked, ()) if unpacked.is_dir() else []
    root = Path(os.path.relpath(unpacked, folder))
    listing = [*listing, *(file._replace(path=str(root / file.path)) for file in inside)]

    def patient_of(path: str) -> str:
        """Returns the first folder of a path, or the archive in its place; empty for a file that lies in none."""
        if path.startswith(f"{root}/"):
            first = Path(path).relative_to(root).parts[0]
            return first.partition(".")[0] if (folder / first).is_file() else first
        return Path(path).parts[0] if len(Path(path).parts) > 1 else ""

    scanned = scan.scan_files(folder, listing, options.strict, patient_of if options.patient_from_folder else None)
    sequences: dict[str, str] = {}
    for instances, names, rejected in (pictures.scan_pictures(folder), nifti.scan_nifti(folder)):
        sequences |= names
        scanned = _with_files(scanned, instances, rejected)
    scanned.rejected.extend(RejectedFile(archive, "archive not read", reason) for archive, reason in unread)
    if options.strict and (broken := [file for file in scanned.rejected if file.kind != "duplicate"]):
        raise scan.strict_error(broken[0])
    if not scanned.instances:
        raise UserError(pictures.advice(folder) or scan.nothing_found(folder, len(listing), scanned))
    user = user._replace(series={**{uid: (name, 0) for uid, name in sequences.items()}, **user.series})
    if options.masks:
        user = user._replace(slices=_slices_of_masks(folder, scanned, options.masks, options.min_lesion_mm2))
    if options.labels_column:  # a list of all participants, also of those without a scan
        present = {instance.patient_id for instance in scanned.instances}
        user = user._replace(labels={patient: label for patient, label in user.labels.items() if patient in present})
    user = scan.match_tables(folder, scanned, user)
    found = find_series(folder, scanned, rules)
    return Found(user, scanned, decide(found, user, rules, options.visits, options.sequence, options.faces))


def _with_files(scanned: Scan, instances: list[Instance], rejected: list[RejectedFile]) -> Scan:
    """Adds instances that are no DICOM, which the scan has skipped."""
    files = {instance.file for instance in instances} | {file.file for file in rejected}
    return scanned._replace(
        instances=scanned.instances + instances,
        skipped=[file for file in scanned.skipped if file.file not in files],
        rejected=[file for file in scanned.rejected if file.file not in files] + rejected,
    )


def _slices_of_masks(
    folder: Path, scanned: Scan, masks: Path, min_area_mm2: float
) -> dict[tuple[str, int | None], int]:
    """Returns the slices on which a lesion is marked, as a slices.csv would name them; row 0 stands for a mask.

    Raises:
        UserError: no image has a mask.
    """
    by_uid = {instance.sop_uid: instance for instance in scanned.instances if instance.sop_uid == instance.file}
    found = nifti.find_masks(masks, list(by_uid.values()))
    if not found:
        raise UserError(f"--masks={masks}: no mask there belongs to a NIfTI image of {folder}: is it the right folder?")
    return {
        (uid, number): 0
        for uid, path in found.items()
        for number in nifti.mask_slices(folder, by_uid[uid], path, min_area_mm2)
    }


def read_tables(folder: Path, options: Options) -> UserTables:
    """Reads the tables of a folder of labelled patients.

    Raises:
        UserError: the folder is missing or empty, or a table is wrong.
    """
    if not options.labels_column:
        return tables.read_tables(folder, options.classes)
    user = tables_of_new_patients(folder)
    labels = nifti.read_participants(folder, options.labels_column, options.classes)
    return user._replace(labels=labels, readers=tables.read_readers(folder, options.classes))


def tables_of_new_patients(folder: Path) -> UserTables:
    """Reads the tables of a folder whose patients have no label: slices.csv and series.csv, where they are there.

    Raises:
        UserError: there is no such folder, or a table is wrong.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the DICOM tree with --input=DIR")
    return UserTables({}, tables.read_slices(folder), tables.read_series(folder), {})


def not_used(scanned: Scan, judged: Iterable[Series]) -> Iterator[str]:
    """Yields why, in words of a fixed vocabulary, for each file that is not used."""
    yield from (file.reason for file in scanned.skipped)
    used, unused = set[str](), dict[str, str]()
    for series in judged:
        for member in series.members:
            if series.used and member.chosen:
                used.add(member.instance.file)
            elif series.used or series.reason == NOT_LISTED:
                unused[member.instance.file] = NOT_LISTED
            else:
                unused.setdefault(member.instance.file, _kind(series))
    yield from (reason for file, reason in unused.items() if file not in used)


def _kind(series: Series) -> str:
    if not series.sequence:
        return "MR, another sequence"
    return "MR, not used" if is_axial(series.plane) else "MR, sagittal or coronal"
