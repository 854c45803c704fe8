"""A round as a table to fill in elsewhere: worklist.csv, and how a filled-in one differs from the journal."""

import hashlib
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lesion import files
from lesion.dataset import LABELS
from lesion.dicom import tables
from lesion.errors import UserError
from lesion.worklist import SKIP
from lesion.worklist.journal import PAGE, Entry, JournalState

FILE = "worklist.csv"
HEADER = ("number", "slice", "patient", "picture", "label")
ANSWERS = (*LABELS, SKIP)


class Row(NamedTuple):
    """A row of a worklist: its line in the file, the slice's id, the label, "" where that is not filled in."""

    line: int
    slice: str
    label: str


def write(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Writes a worklist with empty labels from rows of (slice, patient, file name of the picture)."""
    files.write_csv(path, HEADER, ((number, *row, "") for number, row in enumerate(rows, 1)))


def read(path: Path, queried: Iterable[str]) -> list[Row]:
    """Reads a worklist, one row a slice; columns may be added, rows reordered or left out.

    Args:
        path: of a table with commas, semicolons or tabs, as spreadsheets write them.
        queried: ids of the round's slices.

    Raises:
        UserError: if a label is no answer, a slice was not queried, or has two different answers.
    """
    known, found = set(queried), dict[str, Row]()
    for line, (slice_, label) in tables.rows(path, ("slice", "label")):
        place, row = f"{path} row {line}", Row(line, slice_, label.lower())
        if slice_ not in known:
            raise UserError(f"{place}: slice {slice_!r} is not asked for in this round: delete the row")
        if row.label not in ("", *ANSWERS):
            raise UserError(f"{place}: label {label!r} is none of {', '.join(ANSWERS)}: correct or empty it")
        before = found.get(slice_)
        if before and before.label and row.label and before.label != row.label:
            other = f"row {before.line} says {before.label} of the same slice"
            raise UserError(f"{place}: {row.label}, but {other}: keep one")
        if row.label or not before:
            found[slice_] = row
    return list(found.values())


def source_id(path: Path) -> str:
    """Returns the journal's name for a worklist: only the same file, changed, may change its answers."""
    return f"worklist {hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"


def diff(path: Path, rows: Iterable[Row], number: int, state: JournalState) -> list[Entry]:
    """Returns the entries that the journal lacks; an emptied cell takes back an answer of the same file.

    Args:
        path: of the worklist.
        rows: from `read`.
        number: of the round.
        state: of the journal.

    Raises:
        UserError: if the page, or another worklist, has another answer to a slice.
    """
    source, new = source_id(path), []
    for row in rows:
        entry = state.answer(number, row.slice)
        if entry and entry.source == source and not row.label:
            new.append(Entry(uuid.uuid4().hex, number, row.slice, "", source, undoes=entry.id))
        if not row.label or (entry and entry.label == row.label):
            continue
        if entry and entry.source != source:
            other = "the page" if entry.source == PAGE else "another worklist"
            raise UserError(
                f"{path} row {row.line}: {row.label}, but {other} says {entry.label}: "
                "correct the row, or change the answer where it was given"
            )
        new.append(Entry(uuid.uuid4().hex, number, row.slice, row.label, source))
    return new
