"""Tables of answers, and worklist.csv, a round as a table to fill in elsewhere: how it differs from the journal."""

import datetime
import hashlib
import itertools
import math
import os
import re
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lesion import files
from lesion.classes import Classes
from lesion.dicom import tables
from lesion.errors import UserError
from lesion.worklist import NO_CLASS, UNDO
from lesion.worklist.journal import PAGE, Entry, JournalState

FILE = "worklist.csv"
HEADER = ("number", "slice", "patient", "picture", "label")
READER = re.compile(r"reader_\d{1,4}")


class AnswerRow(NamedTuple):
    """A row of a table of answers: its line in the file, and fields of `labels.Label`; label is "" if empty."""

    line: int
    slice: str
    label: str
    reader: str
    time: str
    seconds: float | None


def answer_rows(path: Path, classes: Classes, *further: str) -> list[AnswerRow]:
    """Reads the rows of a table of answers; readers that have a name get the number of their first row.

    Args:
        path: table with columns slice,label and perhaps reader,time,seconds.
        classes: the classes that labels name.
        *further: other words that the column label may hold.

    Raises:
        UserError: if a label is none of these words, or seconds are no number.
    """
    words = {word.lower(): word for word in ("", *classes, *NO_CLASS, *further)}
    read_rows = list(tables.rows(path, ("slice", "label"), optional=("reader", "time", "seconds")))
    readers = _pseudonyms(reader for _, (_, _, reader, _, _) in read_rows)
    rows = []
    for line, (slice_, label, reader, time, seconds) in read_rows:
        place = f"{path} row {line}"
        if label.lower() not in words:
            known = ", ".join((*classes, *NO_CLASS, *further))
            raise UserError(f"{place}: label {label!r} is none of {known}: correct or empty it")
        try:
            taken = float(seconds) if seconds else None
            if taken is not None and not 0 <= taken < math.inf:
                raise ValueError
        except ValueError as error:
            raise UserError(f"{place}: seconds is not a number from 0: correct or empty it") from error
        rows.append(AnswerRow(line, slice_, words[label.lower()], readers[reader], _time(time), taken))
    return rows


def _pseudonyms(readers: Iterable[str]) -> dict[str, str]:
    """Returns {reader: reader_N}: a name, which is not to leave the table, gets a number in the order of the table."""
    names = [reader for reader in dict.fromkeys(readers) if reader]
    free = (f"reader_{number}" for number in range(1, len(names) + 2 + len(names)))
    unused = [name for name in free if name not in names]
    others = [name for name in names if not READER.fullmatch(name)]
    return {"": ""} | {name: name for name in names} | dict(zip(others, unused, strict=False))


def _time(text: str) -> str:
    """Returns a time in ISO 8601; "" for anything else, which might be more than a time."""
    try:
        return datetime.datetime.fromisoformat(text).isoformat(timespec="seconds") if text else ""
    except ValueError:
        return ""


def write(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Writes a worklist with empty labels; rows are (slice id, patient's pseudonym, file name of the picture)."""
    files.write_csv(path, HEADER, ((number, *row, "") for number, row in enumerate(rows, 1)))


def read(path: Path, queried: Iterable[str], classes: Classes) -> list[AnswerRow]:
    """Reads a worklist, one row per slice; columns may be added, rows reordered or left out.

    Args:
        path: table with commas, semicolons or tabs, as spreadsheets write them.
        queried: ids of the round's slices.
        classes: the classes that answers name.

    Raises:
        UserError: if a label is no answer, or a slice was not queried or has two different answers.
    """
    known, by_slice = set(queried), dict[str, AnswerRow]()
    for row in answer_rows(path, classes, UNDO):
        place = f"{path} row {row.line}"
        if row.slice not in known:
            raise UserError(f"{place}: slice {row.slice!r} is not queried in this round: delete the row")
        earlier = by_slice.get(row.slice)
        if earlier and earlier.label and row.label and earlier.label != row.label:
            other = f"row {earlier.line} says {earlier.label} of the same slice"
            raise UserError(f"{place}: {row.label}, but {other}: keep one")
        if row.label or not earlier:
            by_slice[row.slice] = row
    return list(by_slice.values())


def source_id(workdir: Path, path: Path) -> str:
    """Returns a worklist's name in the journal; answers from a worklist may be changed by the same file only.

    The name is of the path as seen from the run's folder, which may be moved or copied with the worklists in it.
    """
    place = os.path.relpath(path.resolve(), workdir.resolve())
    return f"worklist {hashlib.sha256(place.encode()).hexdigest()[:12]}"


class Difference(NamedTuple):
    """What a worklist has that the journal lacks, and how many cells are empty where the same file gave an answer."""

    entries: list[Entry]
    num_emptied: int


def diff(workdir: Path, path: Path, rows: Iterable[AnswerRow], number: int, state: JournalState) -> Difference:
    """Returns what the journal lacks; `undo` takes back an answer of the same file, an emptied cell changes nothing.

    Args:
        workdir: folder of the run.
        path: path of the worklist.
        rows: rows from `read`.
        number: number of the round.
        state: state of the journal.

    Raises:
        UserError: if the page, or another worklist, gave another answer to a slice.
    """
    source, new, num_emptied = source_id(workdir, path), list[Entry](), 0
    for row in rows:
        given = state.answers.get((number, row.slice), [])
        entry = given[-1] if given else None
        num_emptied += not row.label and entry is not None and entry.source == source
        if row.label in ("", entry.label if entry else UNDO):
            continue
        if entry and entry.source != source:
            other = "the page" if entry.source == PAGE else "another worklist"
            raise UserError(
                f"{path} row {row.line}: {row.label}, but {other} says {entry.label}: "
                "correct the row, or change the answer where it was given"
            )
        if row.label == UNDO:  # all that the file ever said of the slice: read again, it finds nothing to do
            own = itertools.takewhile(lambda answer: answer.source == source, reversed(given))
            new += [Entry(uuid.uuid4().hex, number, row.slice, "", source, undoes=answer.id) for answer in own]
        else:
            made = Entry(uuid.uuid4().hex, number, row.slice, row.label, source)
            new.append(made._replace(reader=row.reader, seconds=row.seconds))
    return Difference(new, num_emptied)
