"""What of a DICOM tree is used: all headers read, the user's tables heeded, frames gathered into series."""

import collections
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lesion import workers
from lesion.dicom import SEQUENCES, read, tables
from lesion.errors import UserError

VERSION = 5  # of the reading; raise it when the same inputs would give another dataset


class Inputs(NamedTuple):
    """The user's tables; see `lesion.dicom.tables`."""

    patients: dict[str, int]
    slices: dict[tuple[str, int | None], int] | None
    series: dict[str, tuple[str, int]]
    readers: dict[tuple[str, str], tuple[int, int]]


class Series(NamedTuple):
    """One stack of slices, the unit of windowing and cropping.

    Attributes:
        root: the scanned folder.
        sequence: of the three.
        members: (object, its frames of this stack, those chosen).
        spares: further copies of an object, by SOPInstanceUID, for where it cannot be decoded.
    """

    root: str
    sequence: str
    members: tuple[tuple[read.MrObject, tuple[int, ...], tuple[int, ...]], ...]
    spares: dict[str, list[read.MrObject]]


class Scan(NamedTuple):
    """What the headers say: usable objects, files skipped and rejected, and further copies of objects by UID."""

    objects: list[read.MrObject]
    skipped: list[read.Skip]
    rejects: list[read.Reject]
    spares: dict[str, list[read.MrObject]]


def stop_if(strict: bool, folder: Path, broken: read.Reject) -> None:
    """Raises UserError for a broken file if `strict`."""
    if strict:
        raise UserError(
            f"{folder / broken.file}: {broken.kind}: {broken.reason}; mend or remove it, or leave out --strict"
        )


def read_inputs(folder: Path) -> Inputs:
    """Reads the tables beside the tree.

    Raises:
        UserError: the folder is missing or empty, or a table is wrong.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the DICOM tree with --input=DIR")
    if not any(folder.iterdir()):
        raise UserError(f"{folder} is empty: put the DICOM tree and {tables.PATIENTS} there")
    return Inputs(
        tables.read_patients(folder),
        tables.read_slices(folder),
        tables.read_series(folder),
        tables.read_readers(folder),
    )


def list_files(folder: Path, leave_out: Sequence[Path]) -> list[tuple[str, int, int]]:
    """(path relative to `folder`, size, time of change in ns) of all files, sorted; `leave_out` are folders inside."""
    avoid = {path.resolve() for path in [folder, *leave_out]}
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        # Links are followed, each folder once: one may lead back to the top.
        inside = {name: Path(parent, name).resolve() for name in sorted(folders)}
        folders[:] = [name for name, path in inside.items() if path not in avoid]
        avoid |= {inside[name] for name in folders}
        for name in names:
            path = os.path.join(parent, name)
            if os.path.isfile(path):
                status = os.stat(path)
                found.append((os.path.relpath(path, folder), status.st_size, status.st_mtime_ns))
    return sorted(found)


def scan(folder: Path, files: Sequence[tuple[str, int, int]], strict: bool) -> Scan:
    """Reads all headers; a file whose SOPInstanceUID was seen before is rejected as a duplicate.

    Raises:
        UserError: nothing readable is MR, or `strict` and a file is broken.
    """
    result, seen = Scan([], [], [], {}), dict[str, str]()
    tasks = [(str(folder), name) for name, _, _ in files]
    for header in workers.spread(_read, tasks, "reading headers", _read_crashed, chunk=32):
        if isinstance(header, read.MrObject) and header.sop_uid in seen:
            reason = f"same SOPInstanceUID as {seen[header.sop_uid]}, which is used unless its pixels are broken"
            result.rejects.append(read.Reject(header.file, "duplicate", reason))
            result.spares.setdefault(header.sop_uid, []).append(header)
        elif isinstance(header, read.MrObject):
            seen[header.sop_uid] = header.file
            result.objects.append(header)
        elif isinstance(header, read.Skip):
            result.skipped.append(header)
        else:
            result.rejects.append(header)
            stop_if(strict, folder, header)
    if not result.objects:
        raise UserError(f"no readable DICOM MR image among the {len(files)} files of {folder}: is it the right folder?")
    return result


def choose(folder: Path, found: Scan, inputs: Inputs) -> tuple[list[Series], list[read.Skip]]:
    """Groups frames into series of the known sequences that hold at least one chosen slice.

    Returns:
        The series, sorted, and the MR files left out with the reason.

    Raises:
        UserError: a table names a patient, slice or series that is not there, or nothing is left.
    """
    series, left_out = gather(folder, found, inputs)
    if not series:
        raise UserError(
            f"{folder} has MR images, but no chosen slice of {', '.join(SEQUENCES)}: tell the sequences in "
            f"{tables.SERIES} (series_instance_uid,sequence), the slices in {tables.SLICES}"
        )
    return series, left_out


def gather(folder: Path, found: Scan, inputs: Inputs) -> tuple[list[Series], list[read.Skip]]:
    """`choose`, where perhaps nothing is left."""
    _check_patients(folder, found, inputs)
    uids = {mr.series_uid for mr in found.objects}
    for uid, (_, row) in inputs.series.items():
        if uid not in uids:
            raise UserError(f"{folder / tables.SERIES} row {row}: no MR image is of this series: correct the UID")
    _check_slices(folder, found, inputs)
    stacks: dict[tuple, list] = collections.defaultdict(list)
    left_out: list[read.Skip] = []
    for mr in found.objects:
        told = inputs.series.get(mr.series_uid, (None, 0))[0]
        kinds, along = collections.defaultdict(list), False
        for frame in mr.frames:
            name = told or frame.sequence
            if name not in SEQUENCES:
                continue
            # The other planes of an examination show the same lesion again, in pictures of another kind. Who lists
            # slices or series has chosen.
            if inputs.slices is None and not told and not read.is_axial(frame.plane):
                along = True
                continue
            kinds[name, frame.plane, frame.spacing].append(frame.number)
        if not kinds:
            reason = "MR, sagittal or coronal" if along else "MR, another sequence"
            left_out.append(read.Skip(mr.file, reason))
        for (name, plane, spacing), numbers in kinds.items():
            picked = [n for n in numbers if is_chosen(inputs, mr.sop_uid, n)]
            stacks[name, mr.series_uid, mr.shape, plane, spacing].append((mr, tuple(numbers), tuple(picked)))
    series = []
    for (name, *_), members in sorted(stacks.items(), key=lambda item: item[0]):
        used = [member for member in members if member[2]]
        left_out += [read.Skip(mr.file, "not listed in slices.csv") for mr, _, picked in members if not picked]
        if used:
            spares = {mr.sop_uid: found.spares[mr.sop_uid] for mr, *_ in members if mr.sop_uid in found.spares}
            series.append(Series(str(folder), name, tuple(members), spares))
    return series, left_out


def is_chosen(inputs: Inputs, sop_uid: str, number: int) -> bool:
    """Whether slices.csv takes this frame; without the file everything is taken."""
    return inputs.slices is None or (sop_uid, number) in inputs.slices or (sop_uid, None) in inputs.slices


def _check_patients(folder: Path, found: Scan, inputs: Inputs) -> None:
    broken = [reject for reject in found.rejects if reject.kind != "duplicate"]
    there = {mr.patient_id for mr in found.objects} | {reject.patient_id for reject in broken}
    for index, patient in enumerate(inputs.patients):
        if patient not in there:
            near = [other for other in there if other.lstrip("0") == patient.lstrip("0")]
            hint = "leading zeros were lost" if near else "correct the patient_id or delete the row"
            rows = sum(other not in there for other in inputs.patients)
            unknown = [reject for reject in broken if not reject.patient_id]
            if unknown and not near:
                hint += f", or mend {unknown[0].file} ({unknown[0].kind}), one of {len(unknown)} of nobody knows whom"
            raise UserError(
                f"{folder / tables.PATIENTS} entry {index + 1} ({patient}): no MR image has this PatientID: {hint} "
                f"({rows} such)"
            )
    for (_, patient), (_, row) in inputs.readers.items():
        if patient not in there:
            what = "no MR image has this patient_id: correct it or delete the row"
            raise UserError(f"{folder / tables.READERS} row {row}: {what}")


def slices_not_found(found: Scan, inputs: Inputs) -> list[int]:
    """The rows of slices.csv that no readable image answers."""
    counts = {mr.sop_uid: len(mr.frames) for mr in found.objects}
    return [row for (uid, frame), row in (inputs.slices or {}).items() if (frame or 1) > counts.get(uid, 0)]


def _check_slices(folder: Path, found: Scan, inputs: Inputs) -> None:
    broken = [reject for reject in found.rejects if reject.kind != "duplicate"]
    known = {reject.sop_uid for reject in broken if reject.sop_uid}
    rows = set(slices_not_found(found, inputs))
    rows -= {row for (uid, _), row in (inputs.slices or {}).items() if uid in known}
    # A file whose header is broken keeps its UID to itself: as many of the rest may be theirs.
    if len(rows) > sum(not reject.sop_uid for reject in broken):
        where, what = f"{folder / tables.SLICES} row {min(rows)}", "no MR image has this sop_instance_uid and frame"
        raise UserError(f"{where}: {what}: correct or delete the row ({len(rows)} such)")


def phantom_share(series: Iterable[Series]) -> bool | str:
    """True if every used image is marked as of a phantom (QualityControlImage), False if none, else "mixed"."""
    marks = {mr.phantom for one in series for mr, _, picked in one.members if picked}
    return "mixed" if len(marks) > 1 else marks == {True}


def _read(task: tuple[str, str]) -> read.MrObject | read.Skip | read.Reject:
    return read.read_header(*task)


def _read_crashed(task: tuple[str, str]) -> read.Reject:
    return read.Reject(task[1], "unreadable header", "the reader died on it")
