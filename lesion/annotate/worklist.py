"""A round as a table to fill in elsewhere: worklist.csv, and its way into the journal, all of it or nothing."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lesion.annotate import SKIP, journal
from lesion.annotate.journal import PAGE, WORKLIST, Entry, Held
from lesion.data import LABELS, tables
from lesion.errors import UserError

FILE = "worklist.csv"
HEADER = ("number", "slice", "patient", "picture", "label")
ANSWERS = (*LABELS, SKIP)


class Row(NamedTuple):
    """An answer in a worklist, and where it stands."""

    line: int
    slice: str
    label: str


def write(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Writes a worklist to fill in: (slice, patient, picture's file name) each, numbered, the label left empty."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((number, *row, "") for number, row in enumerate(rows, 1))


def read(path: Path, asked: Iterable[str]) -> list[Row]:
    """The rows with an answer; columns may be added, rows reordered or left out.

    Args:
        path: commas, semicolons or tabs, as spreadsheets write them.
        asked: ids of the round's slices.

    Raises:
        UserError: a word that is no answer, an id that was not asked for, a slice answered twice differently.
    """
    known, first = set(asked), dict[str, Row]()
    for line, (slice_, word) in tables.rows(path, ("slice", "label")):
        where = f"{path} row {line}"
        if slice_ not in known:
            raise UserError(f"{where}: slice {slice_!r} is not asked for in this round: delete the row")
        if not word:
            continue
        if word.lower() not in ANSWERS:
            raise UserError(f"{where}: label {word!r} is none of {', '.join(ANSWERS)}: correct or empty it")
        row = Row(line, slice_, word.lower())
        before = first.setdefault(slice_, row)
        if before.label != row.label:
            raise UserError(
                f"{where}: {row.label}, but row {before.line} says {before.label} of the same slice: keep one"
            )
    return list(first.values())


def take(folder: Path, path: Path, index: int, asked: Iterable[str]) -> int:
    """Journals the answers of a worklist that are not in the journal yet.

    Args:
        folder: of the journal.
        path: of the worklist.
        index: of the round.
        asked: ids of its slices.

    Returns:
        How many were new, or changed since they came from a worklist before.

    Raises:
        UserError: see `read`; or the page says otherwise of a slice. Nothing is journalled.
    """
    rows, new = read(path, asked), list[Entry]()

    def decide(held: Held) -> list[Entry]:
        for row in rows:
            entry = held.answer(index, row.slice)
            if entry and entry.label != row.label and entry.source == PAGE:
                raise UserError(
                    f"{path} row {row.line}: {row.label}, but the page was told {entry.label}: "
                    "correct the row, or change the answer on the page"
                )
            if not entry or entry.label != row.label:
                new.append(Entry(journal.new_id(), index, row.slice, row.label, WORKLIST))
        return new

    journal.add(folder, decide)
    return len(new)
