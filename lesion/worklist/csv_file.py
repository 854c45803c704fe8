"""A round as a table to fill in elsewhere: worklist.csv, and what it says that is new."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lesion import files
from lesion.dataset import LABELS
from lesion.dicom import tables
from lesion.errors import UserError
from lesion.worklist import SKIP, journal
from lesion.worklist.journal import PAGE, Entry, Held

FILE = "worklist.csv"
HEADER = ("number", "slice", "patient", "picture", "label")
ANSWERS = (*LABELS, SKIP)


class Row(NamedTuple):
    """An answer in a worklist, "" where there is none, and where it stands."""

    line: int
    slice: str
    label: str


def write(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Writes a worklist to fill in: (slice, patient, picture's file name) each, numbered, the label left empty."""
    files.write_csv(path, HEADER, ((number, *row, "") for number, row in enumerate(rows, 1)))


def read(path: Path, asked: Iterable[str]) -> list[Row]:
    """The rows, one a slice; columns may be added, rows reordered or left out.

    Args:
        path: commas, semicolons or tabs, as spreadsheets write them.
        asked: ids of the round's slices.

    Raises:
        UserError: a word that is no answer, an id that was not asked for, a slice answered twice differently.
    """
    known, found = set(asked), dict[str, Row]()
    for line, (slice_, word) in tables.rows(path, ("slice", "label")):
        where, row = f"{path} row {line}", Row(line, slice_, word.lower())
        if slice_ not in known:
            raise UserError(f"{where}: slice {slice_!r} is not asked for in this round: delete the row")
        if row.label not in ("", *ANSWERS):
            raise UserError(f"{where}: label {word!r} is none of {', '.join(ANSWERS)}: correct or empty it")
        before = found.get(slice_)
        if before and before.label and row.label and before.label != row.label:
            other = f"row {before.line} says {before.label} of the same slice"
            raise UserError(f"{where}: {row.label}, but {other}: keep one")
        if row.label or not before:
            found[slice_] = row
    return list(found.values())


def source(path: Path) -> str:
    """Which worklist: the same file, changed, may change what it said."""
    return f"worklist {hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"


def news(path: Path, rows: Iterable[Row], source: str, number: int, held: Held) -> list[Entry]:
    """What the rows say that the journal does not; an emptied cell takes back what the same file said.

    Args:
        path: of the worklist, to be named.
        rows: of `read`.
        source: of `source`.
        number: of the round.
        held: the journal.

    Raises:
        UserError: if the page, or another worklist, says otherwise.
    """
    new = []
    for row in rows:
        entry = held.answer(number, row.slice)
        if entry and entry.source == source and not row.label:
            new.append(Entry(journal.new_id(), number, row.slice, "", source, undoes=entry.id))
        if not row.label or (entry and entry.label == row.label):
            continue
        if entry and entry.source != source:
            who = "the page was told" if entry.source == PAGE else "another worklist said"
            raise UserError(
                f"{path} row {row.line}: {row.label}, but {who} {entry.label}: "
                "correct the row, or change the answer where it was given"
            )
        new.append(Entry(journal.new_id(), number, row.slice, row.label, source))
    return new
