"""Unpacks the archives of a tree into another folder, so that what is in them is read like the rest.

Archives are not trusted. One is unpacked wholly or not at all, and refused if a path in it leads out of its folder, if
it holds links or devices, or if it grows beyond 20 times its size or 50 GiB, whatever is less; archives inside count
towards the outermost one. They may lie in one another, two deep below the outermost; one takes the place of its own
file there.
"""

import errno
import glob
import gzip
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from lesion import files
from lesion.dicom import scan
from lesion.progress import track

MAX_DEPTH = 2  # of archives inside the outermost one
MAX_GROWTH = 20
MAX_BYTES = 50 * 2**30
MIN_COUNTED_BYTES = 512  # of a zip's or tar's file: many empty ones fill a disk as well
MAX_TAR_HEADER_BYTES = 2**20
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_NOT_READ = (".7z", ".rar", ".iso", ".zst")
_STAMPS = ".stamps"
_CHUNK_BYTES = 2**20


class _RefusedError(Exception):
    """An archive that is not unpacked; says why, and how to mend it."""


class _TarInfo(tarfile.TarInfo):
    """A header of a tar archive; of those that tarfile reads into memory whole, such as long names, none is long."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_TarInfo":
        """Returns the header in a block of bytes; raises _RefusedError for a long one."""
        header = super().frombuf(buf, encoding, errors)
        if header.type not in tarfile.REGULAR_TYPES and header.size > MAX_TAR_HEADER_BYTES:
            raise _RefusedError(f"has a header of {header.size} bytes: unpack it yourself if it is to be trusted")
        return header


class _Budget:
    """Counts what one outermost archive unpacks to."""

    def __init__(self, archive_bytes: int) -> None:
        self._left, self._limit = MAX_GROWTH * archive_bytes, f"{MAX_GROWTH} times its size"
        if self._left > MAX_BYTES:
            self._left, self._limit = MAX_BYTES, f"{MAX_BYTES // 2**30} GiB"

    def take(self, num_bytes: int) -> None:
        """Takes some bytes away; raises _RefusedError once nothing is left."""
        self._left -= num_bytes
        if self._left < 0:
            raise _RefusedError(f"unpacks to more than {self._limit}: unpack it yourself if it is to be trusted")


def unpack(folder: Path, target: Path, leave_out: Sequence[Path]) -> list[tuple[str, str]]:
    """Unpacks all archives of a tree, each into `target/<its path relative to the folder>/`.

    One that was unpacked before and has its size and time of then is not unpacked again; what came from archives that
    are gone is deleted.

    Args:
        folder: the tree.
        target: made if there is an archive; may lie inside of `folder`.
        leave_out: folders inside that are not searched.

    Returns:
        The archives that are not read, relative to the folder, and why; one inside of another by both paths.

    Raises:
        OSError: a full disk.
    """
    archives = [file for file in scan.list_files(folder, (*leave_out, target))]
    archives = [file for file in archives if file.size >= 0 and _is_archive(Path(file.path))]
    stamps = target / _STAMPS
    present = {f"{archive.path}.json" for archive in archives}
    for stamp in sorted(stamps.rglob("*.json")):
        name = str(stamp.relative_to(stamps))
        if name not in present:
            shutil.rmtree(target / name.removesuffix(".json"), ignore_errors=True)
            stamp.unlink()
    unread = []
    for archive in track("unpacking archives", archives, len(archives)):
        unread += _unpack_outermost(folder, target, archive)
    return unread


def _unpack_outermost(folder: Path, target: Path, archive: scan.ListedFile) -> list[tuple[str, str]]:
    place, stamp = target / archive.path, target / _STAMPS / f"{archive.path}.json"
    state = [archive.size, archive.mtime_ns]
    if stamp.exists():
        before = files.read_json(stamp)
        if before["state"] == state:
            return [(name, reason) for name, reason in before["unread"]]
        stamp.unlink()
    # Another state of the archive, or what a killed run left, half of it under a hidden name.
    for left in (place, *place.parent.glob(f".{glob.escape(place.name)}.*")):
        shutil.rmtree(left, ignore_errors=True)
    unread = _unpack(folder / archive.path, archive.path, place, _Budget(archive.size), 0)
    if place.exists():  # one that is not is tried again: what hindered may be gone
        stamp.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(stamp, {"state": state, "unread": unread})
    return unread


def _unpack(archive: Path, name: str, place: Path, budget: _Budget, depth: int) -> list[tuple[str, str]]:
    """Unpacks an archive into the folder `place`, which may be its own path, then those inside."""
    if depth > MAX_DEPTH:
        return [(name, f"lies in archives more than {MAX_DEPTH} deep: unpack the outermost one yourself")]
    try:
        with files.new_folder(place) as partial:
            _extract(archive, partial, budget)
            if place == archive:
                archive.unlink()
    except Exception as error:  # of many kinds: each format and codec has its own
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = str(error) if isinstance(error, _RefusedError) else f"broken: {type(error).__name__}: {error}"
        return [(name, " ".join(reason.split())[:300])]
    inner = sorted(path for path in place.rglob("*") if path.is_file() and _is_archive(path))
    return [
        row for path in inner for row in _unpack(path, f"{name}/{path.relative_to(place)}", path, budget, depth + 1)
    ]


def _is_archive(path: Path) -> bool:
    name = path.name.lower()
    if name.startswith(".") or name.endswith(".nii.gz"):
        return False
    return name.endswith((".zip", *_TAR, ".gz", *_NOT_READ))


def _extract(archive: Path, place: Path, budget: _Budget) -> None:
    name = archive.name.lower()
    if name.endswith(_NOT_READ):
        raise _RefusedError(f"{archive.suffix} is not read: unpack it yourself")
    if name.endswith(".zip"):
        _extract_zip(archive, place, budget)
    elif name.endswith(_TAR):
        _extract_tar(archive, place, budget)
    else:
        with gzip.open(archive) as source:
            _copy(source, place / _check_path(archive.stem), budget)


def _extract_zip(archive: Path, place: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(archive) as source:
        for member in source.infolist():
            path = place / _check_path(member.filename)
            if member.flag_bits & 1:
                raise _RefusedError("encrypted: unpack it yourself with its password")
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _RefusedError("holds a link or a device: unpack it yourself if it is to be trusted")
            if member.filename.endswith(("/", "\\")):
                path.mkdir(parents=True, exist_ok=True)
            else:
                budget.take(MIN_COUNTED_BYTES)
                with source.open(member) as stream:
                    _copy(stream, path, budget)


def _extract_tar(archive: Path, place: Path, budget: _Budget) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise _RefusedError("tar archives need Python 3.11.4 or later: update it, or unpack the archive yourself")
    with tarfile.open(archive, tarinfo=_TarInfo) as source:
        for member in source:
            _check_path(member.name)
            if not (member.isfile() or member.isdir()):
                raise _RefusedError("holds a link or a device: unpack it yourself if it is to be trusted")
            budget.take(max(member.size, MIN_COUNTED_BYTES))
            source.extract(member, place, filter="data")
        # tarfile takes whatever is no header for the end; there, two blocks of zeros stand, of which it has read one.
        if source.fileobj is None or source.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise _RefusedError("broken: cut short, or damaged in the middle: copy it anew")


def _check_path(name: str) -> Path:
    """Returns the path of an archive's member, backslashes as Windows writes them being separators.

    Raises:
        _RefusedError: it is absolute or leads upwards.
    """
    path = name.replace("\\", "/")
    if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in path.split("/") or "\0" in path:
        raise _RefusedError("holds a path that leads out of it: unpack it yourself if it is to be trusted")
    return Path(path)


def _copy(source: IO[bytes] | gzip.GzipFile, path: Path, budget: _Budget) -> None:
    """Writes a file as long as the budget lasts, whatever size a header claims."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        while chunk := source.read(_CHUNK_BYTES):
            budget.take(len(chunk))
            stream.write(chunk)
