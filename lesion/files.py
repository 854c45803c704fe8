"""Files and folders written atomically, by one process at a time; CSV tables, JSON and hashes of files."""

import contextlib
import csv
import datetime
import hashlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lesion.errors import InUseError

LOCK = ".lock"  # in a folder that is held, see `locked`
SETTLE_S = 0.5  # until a lock is refused: by then its holder has told its name, or it was a dying process's


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; it replaces `path` at the end, or is removed if the body fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty, hidden folder beside `path`; it becomes `path` at the end, or is removed if the body fails.

    `path` may be an empty folder already. Missing parents are made. The folder gets the permissions that the user's
    umask and a parent's setgid bit imply. Only one process at a time may make `path`, see `locked`: the hidden folder
    has the same name each time, so that the next call removes what a killed process left.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.is_dir():
            path.rmdir()
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def lock_file(path: Path) -> Path:
    """Returns the path of the lock of a file or folder, a hidden file beside it."""
    return path.with_name(f".{path.name}.lock")


@contextlib.contextmanager
def locked(path: Path, *, inside: bool = False, wait: bool = False) -> Iterator[None]:
    """Keeps other processes that lock the same file or folder away from it until the block ends.

    A process that ends, however it does, holds its lock no longer. The lock file tells who holds it; it is removed at
    the end, and so are folders made for it that are still empty.

    Args:
        path: the file or folder that is to be written; need not exist.
        inside: whether the lock file lies in the folder `path`, whose parent may be read-only, instead of beside it.
        wait: whether to wait for another process that holds the lock.

    Raises:
        InUseError: if another process holds the lock, without `wait`.
        OSError: if the lock file cannot be written, or the file system has no locks.
    """
    path = path.resolve()
    file = path / LOCK if inside else lock_file(path)
    made = [folder for folder in file.parents if not folder.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, on_acquired=_write_holder)
    try:
        lock.acquire(timeout=SETTLE_S)
    except Timeout as error:
        holder = _read_holder(file)
        if not wait:
            raise InUseError(f"{path} is in use by {holder}: wait until that ends, or name another folder") from error
        print(f"waiting for {holder}, which writes {path}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # who waits for the old file notices that it has gone, and makes a new one
        lock.release()
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _write_holder(descriptor: int) -> None:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)


def _read_holder(file: Path) -> str:
    """Returns the process that holds a lock, in words; it may not have written the file yet, or removed it already."""
    try:
        return file.read_text(encoding="utf-8").strip() or "another process"
    except OSError:
        return "another process"


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Returns the value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV table; floats get nine significant digits, enough to restore float32."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{v:.9g}" if isinstance(v, float) else v for v in row] for row in rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV table, each as {column name: text}."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sha256(path: Path | str) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
