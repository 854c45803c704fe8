"""New patients: a DICOM folder read and prepared as a dataset is, and what of it a network should not be asked about.

No label is needed. What looks unlike the slices that a network was trained on is flagged and gets no picture; nothing
is guessed. Pseudonyms are those of `launch.prepare` on the same folder, their table stays in its private folder.
"""

import collections
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lesion.dataset import SEQUENCES, pseudonyms, render
from lesion.dicom import read, scan, tables
from lesion.errors import UserError

EMPTY = 0.1  # a picture with a smaller share of pixels above 0 shows no head to speak of; a guess


class NewSlice(NamedTuple):
    """A slice of a new patient: pseudonyms, `image` uint8 [224, 224], `flag` why it should not be asked about."""

    patient: str
    slice: str
    image: np.ndarray
    position_mm: float
    flag: str


class Incoming(NamedTuple):
    """A folder of new patients.

    Attributes:
        slices: of the sequence asked for, by patient and height.
        flags: why nothing can be said of a patient, by pseudonym.
        skipped: how many files were left out, by reason.
        told: whether a slices.csv chose the slices.
        phantom: of which patients every image used says that it is of a phantom.
    """

    slices: list[NewSlice]
    flags: dict[str, str]
    skipped: dict[str, int]
    told: bool
    phantom: set[str]


def read_folder(folder: Path, sequence: str, private: Path) -> Incoming:
    """Reads the patients of a DICOM folder.

    Args:
        folder: the tree; slices.csv and series.csv are heeded if they are there, patients.csv is not read.
        sequence: the network's.
        private: for key, pseudonym table and rejects.csv; made if missing.

    Raises:
        UserError: if there is no readable MR image, or a table is wrong.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the DICOM tree with --input=DIR")
    inputs = scan.Inputs({}, tables.read_slices(folder), tables.read_series(folder), {})
    key = pseudonyms.read_key(private) or pseudonyms.new_key()
    found = scan.scan(folder, scan.list_files(folder, leave_out=(private,)), strict=False)
    series, left_out = scan.gather(folder, found, inputs)
    wanted = [one for one in series if one.sequence == sequence]
    made, broken = render.picture_all(wanted, strict=False)
    names = {mr.patient_id: pseudonyms.pseudonym(key, "patient", mr.patient_id) for mr in found.objects}
    table, slices = {(name, "patient", original) for original, name in names.items()}, []
    for some in made:
        for picture in some:
            original = f"{picture.sop_uid}:{picture.number}"
            slice_id = pseudonyms.pseudonym(key, "slice", original)
            table.add((slice_id, "slice", original))
            image = np.asarray(Image.open(io.BytesIO(picture.png)))
            flag = _flag(image, picture.plan.found)
            slices.append(NewSlice(names[picture.patient_id], slice_id, image, picture.position_mm, flag))
    slices.sort(key=lambda one: (one.patient, one.position_mm, one.slice))
    rejects = sorted(found.rejects + broken)
    rows = [(reject.file, f"{reject.kind}: {reject.reason}") for reject in rejects]
    pseudonyms.save(private, key, sorted(table | set(pseudonyms.read_table(private))), rows)
    reasons = [*(skip.reason for skip in [*found.skipped, *left_out]), *(reject.kind for reject in rejects)]
    phantom = {names[mr.patient_id] for mr in found.objects} - {
        names[mr.patient_id] for mr in found.objects if not mr.phantom
    }
    flags = _patient_flags(found.objects, series, names, slices, sequence)
    return Incoming(slices, flags, dict(collections.Counter(reasons)), inputs.slices is not None, phantom)


def _flag(image: np.ndarray, found: str) -> str:
    if found != "brain":
        return "no brain found in its series"
    return "nearly empty" if np.mean(image > 0) < EMPTY else ""


def _patient_flags(
    objects: Sequence[read.MrObject],
    series: Sequence[scan.Series],
    names: dict[str, str],
    slices: Sequence[NewSlice],
    sequence: str,
) -> dict[str, str]:
    """Why no slice of a patient can be asked about."""
    fine = {one.patient for one in slices if not one.flag}
    flagged = {one.patient: one.flag for one in slices}
    there = collections.defaultdict(set)
    for one in series:
        for mr, _, _ in one.members:
            there[names[mr.patient_id]].add(one.sequence)
    flags = {}
    for patient in sorted({names[mr.patient_id] for mr in objects} - fine):
        others = ", ".join(name for name in SEQUENCES if name in there[patient] and name != sequence)
        missing = f"no {sequence} slice that could be read" + (f", there is {others}" if others else "")
        flags[patient] = f"no slice to ask about: {flagged[patient]}" if patient in flagged else missing
    return flags
