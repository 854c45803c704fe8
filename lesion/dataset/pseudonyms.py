"""Pseudonyms: keyed, so that nobody without the key can test a guess, and stable, so that a second run agrees.

Key and table stay in a private folder with the patients' data, readable by its owner alone.
"""

import contextlib
import csv
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import filelock

from lesion import files
from lesion.dicom.read import RejectedFile
from lesion.dicom.scan import FilesError
from lesion.errors import UserError

FOLDER = "lesion_private"  # inside the DICOM tree, unless the user names another
KEY_FILE, TABLE_FILE, REJECTS_FILE = "pseudonym_key.hex", "pseudonyms.csv", "rejects.csv"
TEXT_FILE = "qc_text.png"  # slices with text, before and after


class Row(NamedTuple):
    """A row of the table: `original` is a PatientID, SOPInstanceUID:frame or reader, by `kind`."""

    pseudonym: str
    kind: str
    original: str


def read_key(private: Path) -> bytes | None:
    """Returns the 32-byte key of a private folder, or None if there is none yet.

    Raises:
        UserError: the key file does not hold 64 hexadecimal digits.
    """
    path = private / KEY_FILE
    if not path.exists():
        return None
    try:
        key = bytes.fromhex(path.read_text().strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise UserError(
            f"{path} does not hold 64 hexadecimal digits: restore it, or delete it (all pseudonyms change then)"
        )
    return key


def check_writable(folder: Path, flag: str = "--private") -> None:
    """Checks that the private folder, or that of another flag, can be made and written, before any work is done.

    Raises:
        UserError: it cannot.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise _not_writable(folder, flag)


def make_key(private: Path) -> bytes:
    """Returns the key of a private folder, made and kept there if there is none; two processes get the same.

    Raises:
        UserError: the folder cannot be written.
    """
    with _locked(private):
        if (key := read_key(private)) is None:
            key = secrets.token_bytes(32)
            with private_file(private / KEY_FILE) as stream:
                stream.write(key.hex() + "\n")
        return key


def pseudonym(key: bytes, kind: str, original: str) -> str:
    """Returns the HMAC-SHA256 of `original`, cut to 64 bits, behind the first letter of `kind` ("patient", "slice")."""
    digest = hmac.new(key, f"{kind}\0{original}".encode(), hashlib.sha256).hexdigest()
    return f"{kind[0]}{digest[:16]}"


def pseudonymize(key: bytes, kind: str, originals: Iterable[str]) -> dict[str, str]:
    """Returns {original: pseudonym}; see `pseudonym`."""
    return {original: pseudonym(key, kind, original) for original in originals}


def read_table(private: Path) -> list[Row]:
    """Returns the rows of a private folder's table; none if there is no table."""
    path = private / TABLE_FILE
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return [Row(*row[:3]) for row in list(csv.reader(stream))[1:]]


def save(private: Path, table: Iterable[Row], rejected: Iterable[RejectedFile]) -> None:
    """Adds rows to the table, and writes rejects.csv (file, reason); both are readable by their owner alone.

    Raises:
        UserError: the folder cannot be written.
    """
    with _locked(private):
        with private_file(private / TABLE_FILE) as stream:
            csv.writer(stream).writerows([Row._fields, *sorted({*read_table(private), *table})])
        with private_file(private / REJECTS_FILE) as stream:
            rows = [(file.file, f"{file.kind}: {file.reason}") for file in sorted(rejected)]
            csv.writer(stream).writerows([("file", "reason"), *rows])


@contextlib.contextmanager
def keeping_rejects(private: Path) -> Iterator[None]:
    """Writes rejects.csv for a `FilesError`, and names that in its message instead of the files."""
    try:
        yield
    except FilesError as error:
        save(private, (), error.files)
        raise UserError(f"{error}; {private / REJECTS_FILE} names it") from error


def _not_writable(folder: Path, flag: str = "--private") -> UserError:
    return UserError(f"cannot write to {folder}: name another folder with {flag}=DIR")


@contextlib.contextmanager
def _locked(private: Path) -> Iterator[None]:
    """Makes the private folder, and keeps other processes from writing key and table meanwhile."""
    try:
        private.mkdir(parents=True, exist_ok=True, mode=0o700)
        with filelock.FileLock(private / ".lock", mode=0o600):
            yield
    except PermissionError as error:
        raise _not_writable(private) from error


@contextlib.contextmanager
def private_file(path: Path, binary: bool = False) -> Iterator[IO[Any]]:
    """Yields a stream of text or bytes to a file only its owner may read; it takes its place when all is written."""
    with files.replacing(path) as partial:
        descriptor = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        # A file's name need not be UTF-8: what cannot be written comes out as \xNN.
        text = {} if binary else {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
        with open(descriptor, "wb" if binary else "w", **text) as stream:  # type: ignore[call-overload]
            yield stream
