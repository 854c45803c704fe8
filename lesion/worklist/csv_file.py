"""A round as a table to fill in elsewhere: worklist.csv, and how a filled-in one differs from the journal."""

import hashlib
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lesion import files
from lesion.classes import Classes
from lesion.dicom import tables
from lesion.errors import UserError
from lesion.worklist import SKIP
from lesion.worklist.journal import PAGE, Entry, JournalState

FILE = "worklist.csv"
HEADER = ("number", "slice", "patient", "picture", "label")


class Row(NamedTuple):
    """A row of a worklist: its line number in the file, the slice's id, and the label, "" if it is not filled in."""

    line: int
    slice: str
    label: str


def write(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Writes a worklist with empty labels; rows are (slice id, patient's pseudonym, file name of the picture)."""
    files.write_csv(path, HEADER, ((number, *row, "") for number, row in enumerate(rows, 1)))


def read(path: Path, queried: Iterable[str], classes: Classes) -> list[Row]:
    """Reads a worklist, one row per slice; columns may be added, rows reordered or left out.

    Args:
        path: table with commas, semicolons or tabs, as spreadsheets write them.
        queried: ids of the round's slices.
        classes: the classes that answers name.

    Raises:
        UserError: if a label is no answer, or a slice was not queried or has two different answers.
    """
    known, by_slice = set(queried), dict[str, Row]()
    words = {word.lower(): word for word in ("", *classes, SKIP)}
    for line, (slice_, label) in tables.rows(path, ("slice", "label")):
        place = f"{path} row {line}"
        if slice_ not in known:
            raise UserError(f"{place}: slice {slice_!r} is not queried in this round: delete the row")
        if label.lower() not in words:
            raise UserError(f"{place}: label {label!r} is none of {', '.join((*classes, SKIP))}: correct or empty it")
        row = Row(line, slice_, words[label.lower()])
        earlier = by_slice.get(slice_)
        if earlier and earlier.label and row.label and earlier.label != row.label:
            other = f"row {earlier.line} says {earlier.label} of the same slice"
            raise UserError(f"{place}: {row.label}, but {other}: keep one")
        if row.label or not earlier:
            by_slice[slice_] = row
    return list(by_slice.values())


def source_id(path: Path) -> str:
    """Returns a worklist's name in the journal; answers from a worklist may be changed by the same file only."""
    return f"worklist {hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"


def diff(path: Path, rows: Iterable[Row], number: int, state: JournalState) -> list[Entry]:
    """Returns the entries that the journal lacks; an emptied cell takes back an answer of the same file.

    Args:
        path: path of the worklist.
        rows: rows from `read`.
        number: number of the round.
        state: state of the journal.

    Raises:
        UserError: if the page, or another worklist, gave another answer to a slice.
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
