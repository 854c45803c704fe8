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

from lesion.dataset import SEQUENCES, pseudonyms, qc_figures, series_found
from lesion.dataset.render import RenderedSlice, render_all
from lesion.dicom import scan
from lesion.dicom.decide import OTHER_SEQUENCE
from lesion.dicom.folder import Options, find, not_used, tables_of_new_patients
from lesion.dicom.series import Series

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
        doubtful: {note: number of series whose reading is doubtful}.
        slices_listed: whether a slices.csv chose the slices.
        phantom: pseudonyms of patients whose images are all marked as a phantom's.
    """

    slices: list[NewSlice]
    flags: dict[str, str]
    skipped: dict[str, int]
    doubtful: dict[str, int]
    slices_listed: bool
    phantom: set[str]


def read_folder(folder: Path, sequence: str, private: Path, options: Options = Options()) -> NewPatients:  # noqa: B008
    """Reads the patients of a DICOM folder.

    Args:
        folder: DICOM tree; slices.csv and series.csv are used if they exist, patients.csv is not read.
        sequence: sequence that the networks were trained on.
        private: folder for key, pseudonym table, rejects.csv and series_found.csv with its page; made if missing.
        options: how to read the tree.

    Raises:
        UserError: if there is no readable MR image, or a table is wrong.
    """
    user = tables_of_new_patients(folder)
    pseudonyms.check_writable(private)
    listing = scan.list_files(folder, leave_out=(private, folder / pseudonyms.FOLDER))
    with pseudonyms.keeping_rejects(private):
        found = find(folder, private, listing, user, options._replace(sequence=sequence))
    key = pseudonyms.make_key(private)
    rendered = render_all(found.series, ocr=options.ocr, window_from=options.window)
    qc_figures.draw_text(private, rendered)
    series_found.write(private, rendered.series, series_found.draw_thumbnails(rendered.series))

    instances = found.scanned.instances
    patients = pseudonyms.pseudonymize(key, "patient", (instance.patient_id for instance in instances))
    table = {pseudonyms.Row(pseudonym, "patient", patient_id) for patient_id, pseudonym in patients.items()}
    slices = []
    for slice_ in (slice_ for of_series in rendered.slices for slice_ in of_series):
        slice_id = pseudonyms.pseudonym(key, "slice", slice_.original_id)
        table.add(pseudonyms.Row(slice_id, "slice", slice_.original_id))
        slices.append(_new_slice(slice_, patients[slice_.patient_id], slice_id))
    slices.sort(key=lambda slice_: (slice_.patient, slice_.position_mm, slice_.slice))
    pseudonyms.save(private, table, found.scanned.rejected + rendered.rejected)

    reasons = [*not_used(found.scanned, rendered.series), *(file.kind for file in rendered.rejected)]
    not_phantom = {instance.patient_id for instance in instances if not instance.phantom}
    return NewPatients(
        slices=slices,
        flags=_patient_flags(found.series, rendered.series, patients, slices, sequence),
        skipped=dict(collections.Counter(reasons)),
        doubtful=dict(collections.Counter(note for s in rendered.series if s.used for note in s.notes)),
        slices_listed=user.slices is not None,
        phantom={patients[patient_id] for patient_id in patients.keys() - not_phantom},
    )


def _new_slice(rendered: RenderedSlice, patient: str, slice_id: str) -> NewSlice:
    image = np.asarray(Image.open(io.BytesIO(rendered.png)))
    flag = "nearly empty" if np.mean(image > 0) < MIN_FILLED else ""
    return NewSlice(patient, slice_id, image, rendered.position_mm, flag)


def _patient_flags(
    judged: Sequence[Series],
    rendered: Sequence[Series],
    patients: dict[str, str],
    slices: Sequence[NewSlice],
    sequence: str,
) -> dict[str, str]:
    """Returns {pseudonym: reason} of the patients of whom no slice can be predicted."""
    usable = {slice_.patient for slice_ in slices if not slice_.flag}
    why = {slice_.patient: slice_.flag for slice_ in slices}
    present = collections.defaultdict(set)
    for before, after in zip(judged, rendered, strict=True):
        patient = patients[before.patient_id]
        if before.used or before.reason == OTHER_SEQUENCE:
            present[patient].add(before.sequence)
        if before.used and not after.used:
            why.setdefault(patient, after.reason)
    flags = {}
    for patient in sorted(set(patients.values()) - usable):
        others = ", ".join(name for name in SEQUENCES if name in present[patient] and name != sequence)
        missing = f"no {sequence} slice that could be read" + (f", there is {others}" if others else "")
        flags[patient] = f"no slice to ask about: {why[patient]}" if patient in why else missing
    return flags
