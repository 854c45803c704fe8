"""Pseudonyms: keyed, so that nobody without the key can test a guess, and stable, so that a second run agrees."""

import csv
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from lesion.errors import UserError

FOLDER = "lesion_private"  # inside the DICOM tree, unless the user names another
KEY_FILE, TABLE_FILE, REJECTS_FILE = "pseudonym_key.hex", "pseudonyms.csv", "rejects.csv"


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
    """HMAC-SHA256 of `original`, cut to 64 bits, behind the first letter of `kind` ("patient", "slice")."""
    digest = hmac.new(key, f"{kind}\0{original}".encode(), hashlib.sha256).hexdigest()
    return f"{kind[0]}{digest[:16]}"


def read_table(private: Path) -> list[tuple[str, str, str]]:
    """The rows (pseudonym, kind, original) of a private folder's table; empty if there is none."""
    path = private / TABLE_FILE
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return [(row[0], row[1], row[2]) for row in list(csv.reader(stream))[1:]]


def save(private: Path, key: bytes, table: Iterable[tuple[str, str, str]], rejects: Iterable[tuple[str, str]]) -> None:
    """Writes key, table (pseudonym, kind, original) and rejects (file, reason); owner-readable only.

    The key is written first and only if missing: a table without its key would be worthless.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        private.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (private / KEY_FILE).exists():
            _replace(private / KEY_FILE, lambda stream: stream.write(key.hex() + "\n"))
        _replace(private / TABLE_FILE, lambda s: csv.writer(s).writerows([("pseudonym", "kind", "original"), *table]))
        _replace(private / REJECTS_FILE, lambda s: csv.writer(s).writerows([("file", "reason"), *rejects]))
    except PermissionError as error:
        raise UserError(f"cannot write to {private}: name another folder with --private=DIR") from error


def _replace(path: Path, write: Callable[[TextIO], object]) -> None:
    """Writes beside the target and renames, so that the target is whole at any time."""
    partial = path.with_name(path.name + ".partial")
    try:
        descriptor = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        # A file's name need not be UTF-8: what cannot be written comes out as \xNN.
        with open(descriptor, "w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
            write(stream)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
