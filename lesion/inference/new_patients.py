"""Reads a DICOM folder of new patients as `launch.prepare` does, and flags slices that should not be predicted.

No label is needed. A slice that looks unlike those a network was trained on is flagged and gets no prediction.
Pseudonyms are those of `launch.prepare` on the same folder; their table stays in the private folder.
"""

import collections
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lesion.dataset import SEQUENCES, pseudonyms
from lesion.dataset.render import RenderedSlice, render_stacks
from lesion.dicom import scan, tables
from lesion.dicom.scan import Stack
from lesion.errors import UserError

MIN_FILLED = 0.1  # share of pixels above 0 below which a picture shows too little of a head; a guess


class NewSlice(NamedTuple):
    """A slice of a new patient: pseudonyms, `image` uint8 [224, 224], `flag` why it should not be predicted, or ""."""

    patient: str
    slice: str
    image: np.ndarray
    position_mm: float
    flag: str


class NewPatients(NamedTuple):
    """A folder of new patients.

    Attributes:
        slices: slices of the run's sequence, by patient and height.
        flags: {pseudonym: reason} of the patients without a prediction.
        skipped: {reason: number of files left out}.
        slices_listed: whether a slices.csv chose the slices.
        phantom: pseudonyms of patients whose images are all marked as a phantom's.
    """

    slices: list[NewSlice]
    flags: dict[str, str]
    skipped: dict[str, int]
    slices_listed: bool
    phantom: set[str]


def read_folder(folder: Path, sequence: str, private: Path) -> NewPatients:
    """Reads the patients of a DICOM folder.

    Args:
        folder: DICOM tree; slices.csv and series.csv are used if they exist, patients.csv is not read.
        sequence: sequence that the networks were trained on.
        private: folder for key, pseudonym table and rejects.csv; made if missing.

    Raises:
        UserError: if there is no readable MR image, or a table is wrong.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the DICOM tree with --input=DIR")
    user = tables.UserTables({}, tables.read_slices(folder), tables.read_series(folder), {})
    key = pseudonyms.read_key(private) or pseudonyms.new_key()
    scanned = scan.scan_files(folder, scan.list_files(folder, leave_out=(private,)), strict=False)
    stacks, unused = scan.find_stacks(folder, scanned, user)
    wanted = [stack for stack in stacks if stack.sequence == sequence]
    rendered, undecodable = render_stacks(wanted, strict=False)
    rejected = scanned.rejected + undecodable

    patients = pseudonyms.pseudonymize(key, "patient", (instance.patient_id for instance in scanned.instances))
    table = {pseudonyms.Row(pseudonym, "patient", patient_id) for patient_id, pseudonym in patients.items()}
    slices = []
    for slice_ in (slice_ for of_stack in rendered for slice_ in of_stack):
        slice_id = pseudonyms.pseudonym(key, "slice", slice_.original_id)
        table.add(pseudonyms.Row(slice_id, "slice", slice_.original_id))
        slices.append(_new_slice(slice_, patients[slice_.patient_id], slice_id))
    slices.sort(key=lambda slice_: (slice_.patient, slice_.position_mm, slice_.slice))
    pseudonyms.save(private, key, table | set(pseudonyms.read_table(private)), rejected)

    reasons = [file.reason for file in [*scanned.skipped, *unused]] + [file.kind for file in rejected]
    not_phantom = {instance.patient_id for instance in scanned.instances if not instance.phantom}
    return NewPatients(
        slices=slices,
        flags=_patient_flags(stacks, patients, slices, sequence),
        skipped=dict(collections.Counter(reasons)),
        slices_listed=user.slices is not None,
        phantom={patients[patient_id] for patient_id in patients.keys() - not_phantom},
    )


def _new_slice(rendered: RenderedSlice, patient: str, slice_id: str) -> NewSlice:
    image = np.asarray(Image.open(io.BytesIO(rendered.png)))
    flag = "nearly empty" if np.mean(image > 0) < MIN_FILLED else ""
    if rendered.plan.region != "brain":
        flag = "no brain found in its series"
    return NewSlice(patient, slice_id, image, rendered.position_mm, flag)


def _patient_flags(
    stacks: Sequence[Stack], patients: dict[str, str], slices: Sequence[NewSlice], sequence: str
) -> dict[str, str]:
    """Returns {pseudonym: reason} of the patients of whom no slice can be predicted."""
    usable = {slice_.patient for slice_ in slices if not slice_.flag}
    flagged = {slice_.patient: slice_.flag for slice_ in slices}
    present = collections.defaultdict(set)
    for stack in stacks:
        for member in stack.members:
            present[patients[member.instance.patient_id]].add(stack.sequence)
    flags = {}
    for patient in sorted(set(patients.values()) - usable):
        others = ", ".join(name for name in SEQUENCES if name in present[patient] and name != sequence)
        missing = f"no {sequence} slice that could be read" + (f", there is {others}" if others else "")
        flags[patient] = f"no slice to ask about: {flagged[patient]}" if patient in flagged else missing
    return flags
