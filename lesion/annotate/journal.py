"""Every answer, a line each: appended, synced to the disk, and only then acknowledged.

A line is one JSON object. What holds of a slice is the last answer that no later line takes back. Several processes may
write: each looks and appends under one lock.
"""

import datetime
import json
import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from lesion.errors import UserError

FILE = "journal.jsonl"
PAGE, WORKLIST = "page", "worklist"
LOCK_SECONDS = 30


class Entry(NamedTuple):
    """A line.

    Attributes:
        id: of the answer, unique; sent twice it counts once.
        round: from 0.
        slice: its pseudonymous id.
        label: `encephalitis`, `glioma` or `skip`; "" of an undo.
        source: `page` or `worklist`.
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
    """What the journal in `folder` says; a last line without an end was never acknowledged and does not count.

    Raises:
        UserError: if a line is damaged; names it.
    """
    path = folder / FILE
    entries: dict[str, Entry] = {}
    data = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            entry = Entry(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path} line {number} is damaged: restore the file from a copy, or remove the line"
            ) from error
        entries[entry.id] = entry
    standing: dict[tuple[int, str], list[Entry]] = {}
    for entry in entries.values():
        answers = standing.setdefault((entry.round, entry.slice), [])
        if not entry.undoes:
            answers.append(entry)
        elif answers and answers[-1].id == entry.undoes:
            answers.pop()
    return Held(entries, standing)


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
    path = folder / FILE
    with FileLock(path.with_suffix(".lock"), timeout=LOCK_SECONDS):
        held = read(folder)
        lines = [json.dumps(entry._replace(at=_now())._asdict()) + "\n" for entry in decide(held)]
        if lines:
            _append(path, "".join(lines).encode())
        return read(folder)


def _append(path: Path, data: bytes) -> None:
    new = not path.exists()
    with open(path, "ab+") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)  # a line that a killed process left unfinished
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, whole)
            raise
    if new:
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
