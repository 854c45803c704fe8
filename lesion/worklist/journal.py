"""Every answer, a line each: appended, synced to the disk, and only then acknowledged.

A line is one JSON object. What holds of a slice is the last answer that no later line takes back. Several processes may
write: each looks and appends under one lock.
"""

import contextlib
import datetime
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from lesion.errors import UserError

FILE = "journal.jsonl"
PAGE = "page"
LOCK_SECONDS = 30


class Entry(NamedTuple):
    """A line.

    Attributes:
        id: of the answer, unique; sent twice it counts once.
        round: from 0.
        slice: its pseudonymous id.
        label: `encephalitis`, `glioma` or `skip`; "" of an undo.
        source: `page`, or which worklist.
        undoes: id of the entry that this one takes back, or "".
        at: UTC, ISO 8601.
    """

    id: str
    round: int
    slice: str
    label: str
    source: str
    undoes: str = ""
    at: str = ""


class Held(NamedTuple):
    """What holds now.

    Attributes:
        entries: by id, in order.
        standing: the answers of each (round, slice) that were not taken back, the one that holds last.
    """

    entries: dict[str, Entry]
    standing: dict[tuple[int, str], list[Entry]]

    def answer(self, round_: int, slice_: str) -> Entry | None:
        """What holds of a slice."""
        answers = self.standing.get((round_, slice_))
        return answers[-1] if answers else None

    def last(self, round_: int) -> Entry | None:
        """The newest answer given on the page that holds in a round: what an undo takes back."""
        holding = {answers[-1].id for answers in self.standing.values() if answers}
        mine = (e for e in reversed(self.entries.values()) if e.round == round_ and e.source == PAGE)
        return next((entry for entry in mine if entry.id in holding), None)


def read(folder: Path) -> Held:
    """What the journal in `folder` says; a last line that was not written to its end does not count.

    Raises:
        UserError: if a line is damaged; names it.
    """
    path = folder / FILE
    data = path.read_bytes() if path.exists() else b""
    lines = data[: _whole(data)].splitlines()
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines, 1):
        entry = _parse(line)
        if entry is None:
            raise UserError(f"{path} line {number} is damaged: restore the file from a copy")
        entries[entry.id] = entry
    standing: dict[tuple[int, str], list[Entry]] = {}
    for entry in entries.values():
        answers = standing.setdefault((entry.round, entry.slice), [])
        if not entry.undoes:
            answers.append(entry)
        elif answers and answers[-1].id == entry.undoes:
            answers.pop()
    return Held(entries, standing)


def _parse(line: bytes) -> Entry | None:
    try:
        return Entry(**json.loads(line))
    except (ValueError, TypeError):
        return None


def _whole(data: bytes) -> int:
    """Bytes without what a killed process left of a last line; an editor may have taken only its end away."""
    end = data.rfind(b"\n") + 1
    return len(data) if _parse(data[end:]) else end


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Held]:
    """What holds; inside, nobody else writes.

    Raises:
        UserError: if somebody else holds the lock and does not let go.
    """
    try:
        with FileLock(folder / f".{FILE}.lock", timeout=LOCK_SECONDS):
            yield read(folder)
    except Timeout as error:
        raise UserError(f"{folder / FILE} has been locked for {LOCK_SECONDS} s: does another process hang?") from error


def add(folder: Path, decide: Callable[[Held], Iterable[Entry]]) -> Held:
    """Appends what `decide` makes of what holds, as a whole: nobody else writes between the two.

    Args:
        folder: of the journal.
        decide: raises to refuse; then nothing is written.

    Returns:
        What holds afterwards; it is on the disk.

    Raises:
        OSError: a full disk; the journal is as before.
    """
    with locked(folder) as held:
        lines = [json.dumps(entry._replace(at=_now())._asdict()) + "\n" for entry in decide(held)]
        if lines:
            _append(folder / FILE, "".join(lines).encode())
        return read(folder)


def _append(path: Path, data: bytes) -> None:
    before = path.read_bytes() if path.exists() else b""
    end = _whole(before)
    rest = memoryview(data if before[:end].endswith(b"\n") or not end else b"\n" + data)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.ftruncate(handle, end)
        try:
            while rest:  # unbuffered: what does not fit must not follow when the file is closed
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
    """Otherwise a new file's name may be lost with the power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def new_id() -> str:
    """Of an answer that has none."""
    return uuid.uuid4().hex


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
