"""Reads a folder of DICOM: all headers, checked against the user's tables."""

import collections
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from lesion import workers
from lesion.dicom import tables
from lesion.dicom.read import NO_PATIENT, Instance, RejectedFile, SkippedFile, read_header
from lesion.dicom.tables import UserTables
from lesion.errors import UserError

VERSION = 7  # of the reading; raise it when the same folder would be read otherwise


class ListedFile(NamedTuple):
    """A file of the tree: its path relative to the folder, its size in bytes and when it was changed, in ns.

    A folder, file or link that may not be followed or read is one too, of size -1.
    """

    path: str
    size: int
    mtime_ns: int


class Scan(NamedTuple):
    """What the headers of a folder say.

    Attributes:
        instances: MR images, each SOPInstanceUID of a patient once.
        skipped: files that are no MR image.
        rejected: broken files and duplicates.
        duplicates: further files of an instance, by PatientID and SOPInstanceUID.
    """

    instances: list[Instance]
    skipped: list[SkippedFile]
    rejected: list[RejectedFile]
    duplicates: dict[tuple[str, str], list[Instance]]

    def shared_uids(self) -> set[str]:
        """Returns the SOPInstanceUIDs that several patients have."""
        owners = collections.Counter(instance.sop_uid for instance in self.instances)
        return {uid for uid, count in owners.items() if count > 1}


class FilesError(UserError):
    """A mistake in files, whose names may name patients: the message does not, rejects.csv is to list `files`."""

    def __init__(self, message: str, *files: RejectedFile) -> None:
        super().__init__(message)
        self.files = files


def strict_error(rejected: RejectedFile) -> FilesError:
    """Returns the error that a broken file is under --strict."""
    return FilesError(f"a file is broken ({rejected.kind}): mend or remove it, or leave out --strict", rejected)


def list_files(folder: Path, leave_out: Sequence[Path]) -> list[ListedFile]:
    """Returns all files of a tree, sorted; `leave_out` are folders inside that are not entered."""
    entered = {path.resolve() for path in [folder, *leave_out]}
    files: list[ListedFile] = []

    def add_unreadable(error: OSError) -> None:
        files.append(ListedFile(os.path.relpath(error.filename, folder), -1, 0))

    for parent, folders, names in os.walk(folder, onerror=add_unreadable, followlinks=True):
        # Links are followed, each folder once: one may lead back to the top.
        resolved = {name: Path(parent, name).resolve() for name in sorted(folders)}
        folders[:] = [name for name, path in resolved.items() if path not in entered]
        entered |= {resolved[name] for name in folders}
        for name in names:
            path = os.path.join(parent, name)
            try:
                status = os.stat(path)
            except OSError:
                files.append(ListedFile(os.path.relpath(path, folder), -1, 0))
                continue
            if stat.S_ISREG(status.st_mode):
                files.append(ListedFile(os.path.relpath(path, folder), status.st_size, status.st_mtime_ns))
    return sorted(files)


def scan_files(
    folder: Path,
    files: Sequence[ListedFile],
    strict: bool = False,
    patient_of: Callable[[str], str] | None = None,
) -> Scan:
    """Reads the headers of all files; a second file of a patient's SOPInstanceUID is rejected as a duplicate.

    Args:
        folder: the scanned folder.
        files: those in it.
        strict: stop at the first broken file.
        patient_of: (path) -> PatientID in the place of the header's, if given.

    Raises:
        FilesError: `strict` and a file is broken.
    """
    result, first_file = Scan([], [], [], {}), dict[tuple[str, str], str]()
    for file in files:
        if file.size < 0:
            is_link = os.path.islink(folder / file.path)
            reason = "leads nowhere, or in a circle" if is_link else "permission denied"
            result.rejected.append(RejectedFile(file.path, "broken link" if is_link else "may not be read", reason))
    if strict and result.rejected:
        raise strict_error(result.rejected[0])
    paths = [file.path for file in files if file.size >= 0]
    tasks = [(str(folder), path, patient_of(path) if patient_of else None) for path in paths]
    headers = workers.parallel_map(_read, tasks, "reading headers", _read_crashed, chunk_size=32)
    for header in headers:
        if isinstance(header, Instance):
            key = header.patient_id, header.sop_uid
            if key in first_file:
                reason = f"same SOPInstanceUID as {first_file[key]}, which is used unless its pixels are broken"
                result.rejected.append(RejectedFile(header.file, "duplicate", reason))
                result.duplicates.setdefault(key, []).append(header)
            else:
                first_file[key] = header.file
                result.instances.append(header)
        elif isinstance(header, SkippedFile):
            result.skipped.append(header)
        elif strict:
            headers.close()
            raise strict_error(header)
        else:
            result.rejected.append(header)
    return result


def nothing_found(folder: Path, num_files: int, scanned: Scan) -> str:
    """Returns the message that no file of a folder is an MR image, and what they are."""
    nameless = sum(file.kind == NO_PATIENT for file in scanned.rejected)
    if nameless:
        mend = "if each patient has a folder of their own, name them after it with --patient=folder"
        return f"PatientID is missing or empty in {nameless} MR images of {folder}: {mend}"
    if not num_files:
        return f"{folder} holds no file: is it the right folder?"
    reasons = collections.Counter([*(f.reason for f in scanned.skipped), *(f.kind for f in scanned.rejected)])
    counts = ", ".join(f"{count} × {reason}" for reason, count in sorted(reasons.items()))
    return f"no readable DICOM MR image among the {num_files} files of {folder} ({counts}): is it the right folder?"


def match_tables(folder: Path, scanned: Scan, user: UserTables) -> UserTables:
    """Returns the user's tables under the PatientIDs of the images, checked against what is there.

    Raises:
        UserError: a table names a patient, slice or series that is not there, or a slice that several patients have.
    """
    broken = _broken(scanned)
    present: dict[str, tuple[str, ...]] = {file.patient_id: () for file in broken if file.patient_id}
    present |= {instance.patient_id: instance.patient_readings for instance in scanned.instances}
    nameless = [file for file in broken if not file.patient_id]
    hint = ""
    if nameless:
        kinds = ", ".join(sorted({file.kind for file in nameless}))
        hint = f"mend one of {len(nameless)} files ({kinds}), which rejects.csv of --survey names"
    _check_series(folder, scanned, user)
    _check_slices(folder, scanned, user)
    return tables.match_patients(folder, user, present, hint)


def _check_series(folder: Path, scanned: Scan, user: UserTables) -> None:
    present = {instance.series_uid for instance in scanned.instances}
    for series_uid, (_, row) in user.series.items():
        if series_uid not in present:
            raise UserError(f"{folder / tables.SERIES} row {row}: no MR image is of this series: correct the UID")


def _check_slices(folder: Path, scanned: Scan, user: UserTables) -> None:
    shared = scanned.shared_uids()
    for (sop_uid, _), row in (user.slices or {}).items():
        if sop_uid in shared:
            several = "several patients have this sop_instance_uid, so that it names no slice"
            raise UserError(f"{folder / tables.SLICES} row {row}: {several}: delete the file to take every slice")
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


def _read(task: tuple[str, str, str | None]) -> Instance | SkippedFile | RejectedFile:
    return read_header(*task)


def _read_crashed(task: tuple[str, str, str | None]) -> RejectedFile:
    return RejectedFile(task[1], "unreadable header", "the reader died on it")
