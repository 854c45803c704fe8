"""Reads a folder of DICOM: all headers, with the user's tables heeded and frames gathered into stacks."""

import collections
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lesion import workers
from lesion.dicom import SEQUENCES, sequence, tables
from lesion.dicom.read import Instance, RejectedFile, SkippedFile, is_axial, read_header
from lesion.dicom.tables import UserTables
from lesion.errors import UserError

VERSION = 5  # of the reading; raise it when the same folder would be read otherwise
OTHER_SEQUENCE, OTHER_PLANE = "MR, another sequence", "MR, sagittal or coronal"


class ListedFile(NamedTuple):
    """A file of the tree: its path relative to the folder, its size in bytes and when it was changed, in ns."""

    path: str
    size: int
    mtime_ns: int


class Scan(NamedTuple):
    """What the headers of a folder say.

    Attributes:
        instances: MR images, each SOPInstanceUID once.
        skipped: files that are no MR image.
        rejected: broken files and duplicates.
        duplicates: further files with the SOPInstanceUID of an instance, by that UID.
    """

    instances: list[Instance]
    skipped: list[SkippedFile]
    rejected: list[RejectedFile]
    duplicates: dict[str, list[Instance]]


class StackKey(NamedTuple):
    """What the slices of a stack share; see `Instance` and `Frame`."""

    sequence: str
    series_uid: str
    shape: tuple[int, int]
    plane: tuple[float, ...]
    spacing: tuple[float, float]


class StackMember(NamedTuple):
    """An instance of a stack, the numbers of its frames that lie in the stack, and those of them that are chosen."""

    instance: Instance
    frames: tuple[int, ...]
    chosen: tuple[int, ...]


class Stack(NamedTuple):
    """The slices of one series that share plane, spacing and matrix: the unit of windowing and cropping.

    Attributes:
        folder: the scanned folder.
        sequence: "flair", "ce_t1wi" or "t2wi".
        members: the instances, in the order of their files.
        duplicates: further files of an instance, by SOPInstanceUID, for where its pixels cannot be decoded.
    """

    folder: str
    sequence: str
    members: tuple[StackMember, ...]
    duplicates: dict[str, list[Instance]]


def strict_error(folder: Path, rejected: RejectedFile) -> UserError:
    """Returns the error that a broken file is under --strict."""
    broken = f"{folder / rejected.file}: {rejected.kind}: {rejected.reason}"
    return UserError(f"{broken}; mend or remove it, or leave out --strict")


def list_files(folder: Path, leave_out: Sequence[Path]) -> list[ListedFile]:
    """Returns all files of a tree, sorted; `leave_out` are folders inside that are not entered."""
    entered = {path.resolve() for path in [folder, *leave_out]}
    files = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        # Links are followed, each folder once: one may lead back to the top.
        resolved = {name: Path(parent, name).resolve() for name in sorted(folders)}
        folders[:] = [name for name, path in resolved.items() if path not in entered]
        entered |= {resolved[name] for name in folders}
        for name in names:
            path = os.path.join(parent, name)
            if os.path.isfile(path):
                status = os.stat(path)
                files.append(ListedFile(os.path.relpath(path, folder), status.st_size, status.st_mtime_ns))
    return sorted(files)


def scan_files(folder: Path, files: Sequence[ListedFile], strict: bool) -> Scan:
    """Reads the headers of all files; one whose SOPInstanceUID was seen before is rejected as a duplicate.

    Raises:
        UserError: nothing readable is MR, or `strict` and a file is broken.
    """
    result, first_file = Scan([], [], [], {}), dict[str, str]()
    tasks = [(str(folder), file.path) for file in files]
    for header in workers.parallel_map(_read, tasks, "reading headers", _read_crashed, chunk_size=32):
        if isinstance(header, Instance) and header.sop_uid in first_file:
            reason = f"same SOPInstanceUID as {first_file[header.sop_uid]}, which is used unless its pixels are broken"
            result.rejected.append(RejectedFile(header.file, "duplicate", reason))
            result.duplicates.setdefault(header.sop_uid, []).append(header)
        elif isinstance(header, Instance):
            first_file[header.sop_uid] = header.file
            result.instances.append(header)
        elif isinstance(header, SkippedFile):
            result.skipped.append(header)
        elif strict:
            raise strict_error(folder, header)
        else:
            result.rejected.append(header)
    if not result.instances:
        raise UserError(f"no readable DICOM MR image among the {len(files)} files of {folder}: is it the right folder?")
    return result


def find_stacks(folder: Path, scanned: Scan, user: UserTables) -> tuple[list[Stack], list[SkippedFile]]:
    """Gathers the frames of the known sequences into stacks that hold at least one chosen slice.

    Returns:
        The stacks, sorted, and the MR files that are not used, with the reason.

    Raises:
        UserError: a table names a patient, slice or series that is not there.
    """
    _check_patients(folder, scanned, user)
    _check_series(folder, scanned, user)
    _check_slices(folder, scanned, user)
    members: dict[StackKey, list[StackMember]] = collections.defaultdict(list)
    skipped: list[SkippedFile] = []
    for instance in scanned.instances:
        frames, reason = _group_frames(instance, user)
        if not frames:
            skipped.append(SkippedFile(instance.file, reason))
        for key, numbers in frames.items():
            chosen = tuple(number for number in numbers if user.chooses(instance.sop_uid, number))
            members[key].append(StackMember(instance, tuple(numbers), chosen))
            if not chosen:
                skipped.append(SkippedFile(instance.file, "not listed in slices.csv"))
    stacks = []
    for key in sorted(members):
        if any(member.chosen for member in members[key]):
            uids = [member.instance.sop_uid for member in members[key]]
            duplicates = {uid: scanned.duplicates[uid] for uid in uids if uid in scanned.duplicates}
            stacks.append(Stack(str(folder), key.sequence, tuple(members[key]), duplicates))
    return stacks, skipped


def _group_frames(instance: Instance, user: UserTables) -> tuple[dict[StackKey, list[int]], str]:
    """Returns the numbers of an instance's usable frames by stack, and why the others are not used."""
    override = user.series.get(instance.series_uid, ("", 0))[0]
    groups: dict[StackKey, list[int]] = collections.defaultdict(list)
    reason = OTHER_SEQUENCE
    for frame in instance.frames:
        name = override or sequence.classify(frame.attributes)
        if name not in SEQUENCES:
            continue
        # The other planes of an examination show the same lesion again, in pictures of another kind. A user who lists
        # slices or series has chosen.
        if user.slices is None and not override and not is_axial(frame.plane):
            reason = OTHER_PLANE
            continue
        key = StackKey(name, instance.series_uid, instance.shape, frame.plane, frame.spacing)
        groups[key].append(frame.number)
    return groups, reason


def _check_patients(folder: Path, scanned: Scan, user: UserTables) -> None:
    broken = _broken(scanned)
    present = {instance.patient_id for instance in scanned.instances} | {file.patient_id for file in broken}
    missing = [patient_id for patient_id in user.labels if patient_id not in present]
    if missing:
        entry = list(user.labels).index(missing[0]) + 1
        similar = [other for other in present if other.lstrip("0") == missing[0].lstrip("0")]
        hint = "leading zeros were lost" if similar else "correct the patient_id or delete the row"
        nameless = [file for file in broken if not file.patient_id]
        if nameless and not similar:
            hint += f", or mend {nameless[0].file} ({nameless[0].kind}), one of {len(nameless)} of nobody knows whom"
        raise UserError(
            f"{folder / tables.PATIENTS} entry {entry} ({missing[0]}): no MR image has this PatientID: {hint} "
            f"({len(missing)} such)"
        )
    for (_, patient_id), (_, row) in user.readers.items():
        if patient_id not in present:
            hint = "no MR image has this patient_id: correct it or delete the row"
            raise UserError(f"{folder / tables.READERS} row {row}: {hint}")


def _check_series(folder: Path, scanned: Scan, user: UserTables) -> None:
    present = {instance.series_uid for instance in scanned.instances}
    for series_uid, (_, row) in user.series.items():
        if series_uid not in present:
            raise UserError(f"{folder / tables.SERIES} row {row}: no MR image is of this series: correct the UID")


def _check_slices(folder: Path, scanned: Scan, user: UserTables) -> None:
    broken = _broken(scanned)
    excused = {file.sop_uid for file in broken if file.sop_uid}
    rows = set(slices_not_found(scanned, user))
    rows -= {row for (sop_uid, _), row in (user.slices or {}).items() if sop_uid in excused}
    # A file whose header is broken keeps its UID to itself: as many of the rest may be theirs.
    if len(rows) > sum(not file.sop_uid for file in broken):
        hint = f"no MR image has this sop_instance_uid and frame: correct or delete the row ({len(rows)} such)"
        raise UserError(f"{folder / tables.SLICES} row {min(rows)}: {hint}")


def _broken(scanned: Scan) -> list[RejectedFile]:
    return [file for file in scanned.rejected if file.kind != "duplicate"]


def slices_not_found(scanned: Scan, user: UserTables) -> list[int]:
    """Returns the rows of slices.csv that name no readable image."""
    num_frames = {instance.sop_uid: len(instance.frames) for instance in scanned.instances}
    listed = (user.slices or {}).items()
    return [row for (sop_uid, frame), row in listed if (frame or 1) > num_frames.get(sop_uid, 0)]


def _read(task: tuple[str, str]) -> Instance | SkippedFile | RejectedFile:
    return read_header(*task)


def _read_crashed(task: tuple[str, str]) -> RejectedFile:
    return RejectedFile(task[1], "unreadable header", "the reader died on it")
