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
from typing import NamedTuple, TextIO

from lesion import files
from lesion.dicom.read import RejectedFile
from lesion.errors import UserError

FOLDER = "lesion_private"  # inside the DICOM tree, unless the user names another
KEY_FILE, TABLE_FILE, REJECTS_FILE = "pseudonym_key.hex", "pseudonyms.csv", "rejects.csv"


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


def new_key() -> bytes:
    """Returns 32 fresh random bytes."""
    return secrets.token_bytes(32)


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


def save(private: Path, key: bytes, table: Iterable[Row], rejected: Iterable[RejectedFile]) -> None:
    """Writes key, table and rejects.csv (file, reason), readable by their owner alone.

    The key is written first and only if missing: a table without its key would be worthless.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        private.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (private / KEY_FILE).exists():
            with _private_file(private / KEY_FILE) as stream:
                stream.write(key.hex() + "\n")
        with _private_file(private / TABLE_FILE) as stream:
            csv.writer(stream).writerows([Row._fields, *sorted(table)])
        with _private_file(private / REJECTS_FILE) as stream:
            rows = [(file.file, f"{file.kind}: {file.reason}") for file in sorted(rejected)]
            csv.writer(stream).writerows([("file", "reason"), *rows])
    except PermissionError as error:
        raise UserError(f"cannot write to {private}: name another folder with --private=DIR") from error


@contextlib.contextmanager
def _private_file(path: Path) -> Iterator[TextIO]:
    """Yields a stream to a file that only its owner may read; it takes its place when all is written."""
    with files.replacing(path) as partial:
        descriptor = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        # A file's name need not be UTF-8: what cannot be written comes out as \xNN.
        with open(descriptor, "w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
            yield stream
