"""The journal: every answer on a line of its own, appended and synced to the disk before it is acknowledged.

A line is one JSON object. The last answer to a slice that no later line takes back is the one that counts. Several
processes may write: each reads and appends under the same lock.
"""

import contextlib
import datetime
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from lesion.errors import UserError

FILE = "journal.jsonl"
PAGE = "page"
LOCK_SECONDS = 30


class Entry(NamedTuple):
    """A line of the journal; the fields are the keys of its JSON object.

    Attributes:
        id: unique id; an entry that is sent twice counts once.
        round: number of the round, from 0.
        slice: pseudonymous id of the slice.
        label: name of a class, `cannot_tell` or `not_usable`; "" for an undo.
        source: `page`, or the name of a worklist, see `csv_file.source_id`.
        undoes: id of the entry that this one takes back, or "".
        at: time of writing, UTC, ISO 8601.
        reader: pseudonym of who answered, `reader_1`; "" if unknown.
        seconds: time from the picture's appearance to the answer; None if unknown.
    """

    id: str
    round: int
    slice: str
    label: str
    source: str
    undoes: str = ""
    at: str = ""
    reader: str = ""
    seconds: float | None = None


class JournalState(NamedTuple):
    """The entries of a journal, and the answers that they leave.

    Attributes:
        entries: all entries by id, in the order of the file.
        answers: the answers to each (round, slice) that were not taken back; the last one counts.
    """

    entries: dict[str, Entry]
    answers: dict[tuple[int, str], list[Entry]]

    def answer(self, round_: int, slice_: str) -> Entry | None:
        """Returns the answer that counts for a slice, None if there is none."""
        answers = self.answers.get((round_, slice_))
        return answers[-1] if answers else None

    def last_page_answer(self, round_: int) -> Entry | None:
        """Returns the newest answer of a round that counts and came from the page: an undo takes this one back."""
        given = (e for e in reversed(self.entries.values()) if e.round == round_ and e.source == PAGE)
        return next((entry for entry in given if self.answer(round_, entry.slice) == entry), None)


def replay(entries: Iterable[Entry]) -> JournalState:
    """Returns the state that entries, in the order of the file, lead to."""
    by_id = {entry.id: entry for entry in entries}
    answers: dict[tuple[int, str], list[Entry]] = {}
    for entry in by_id.values():
        of_slice = answers.setdefault((entry.round, entry.slice), [])
        if not entry.undoes:
            of_slice.append(entry)
        elif of_slice and of_slice[-1].id == entry.undoes:
            of_slice.pop()
    return JournalState(by_id, answers)


def read(folder: Path) -> JournalState:
    """Reads the journal in `folder`; ignores blank lines and an incomplete last one.

    Raises:
        UserError: if a line is damaged; names the line.
    """
    path = folder / FILE
    data = path.read_bytes() if path.exists() else b""
    entries = []
    for number, line in enumerate(data[: _complete_length(data)].splitlines(), 1):
        if not line.strip():  # an editor's
            continue
        entry = _parse(line)
        if entry is None:
            raise UserError(f"{path} line {number} is damaged: restore the file from a copy")
        entries.append(entry)
    return replay(entries)


def _parse(line: bytes) -> Entry | None:
    try:
        return Entry(**json.loads(line))
    except (ValueError, TypeError):
        return None


def _complete_length(data: bytes) -> int:
    """Returns the number of bytes before an incomplete last line, as a killed process leaves it.

    A last line that lacks only its line break is complete: an editor may have removed that.
    """
    end = data.rfind(b"\n") + 1
    return len(data) if _parse(data[end:]) else end


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[JournalState]:
    """Yields the journal's state; no other process writes until the block ends.

    Raises:
        UserError: if another process holds the lock for more than `LOCK_SECONDS`.
    """
    try:
        with FileLock(folder / f".{FILE}.lock", timeout=LOCK_SECONDS):
            yield read(folder)
    except Timeout as error:
        raise UserError(f"{folder / FILE} has been locked for {LOCK_SECONDS} s: does another process hang?") from error


def add(folder: Path, decide: Callable[[JournalState], Iterable[Entry]]) -> JournalState:
    """Appends the entries that `decide` returns, all or none; no other process writes between the two.

    Args:
        folder: folder of the journal.
        decide: (state of the journal) -> new entries; if it raises, nothing is written.

    Returns:
        The new state, which is on the disk.

    Raises:
        OSError: if the disk is full; the journal is as before.
    """
    with locked(folder) as state:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        lines = [json.dumps(entry._replace(at=now)._asdict()) + "\n" for entry in decide(state)]
        if lines:
            _append(folder / FILE, "".join(lines).encode())
        return read(folder)


def _append(path: Path, data: bytes) -> None:
    """Appends `data` after the last complete line and syncs it to the disk, or leaves the file as it was."""
    before = path.read_bytes() if path.exists() else b""
    end = _complete_length(before)
    rest = memoryview(data if before[:end].endswith(b"\n") or not end else b"\n" + data)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)  # what the umask leaves
    try:
        os.ftruncate(handle, end)
        try:
            while rest:  # unbuffered: nothing that did not fit is written later, when the file is closed
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, end)
            raise
    finally:
        os.close(handle)
    if not before:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Syncs the names of a folder's files: otherwise a power cut may lose the name of a new one."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
