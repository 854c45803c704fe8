"""labels.csv, the labels of a run as a table: written for other tools and the next study, and read from them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from lesion import files
from lesion.classes import Classes
from lesion.errors import UserError
from lesion.worklist import FOLDER, answers, journal, round_file
from lesion.worklist.csv_file import answer_rows
from lesion.worklist.journal import Entry
from lesion.worklist.round_file import Round

FILE = "labels.csv"
GIVEN = "given.csv"
GIVEN_SOURCE = "given"


class Label(NamedTuple):
    """A row of labels.csv; the fields are its columns.

    Attributes:
        patient: pseudonym of the patient.
        slice: pseudonymous id of the slice.
        label: name of a class, `cannot_tell` or `not_usable`.
        reader: pseudonym of who said so, `reader_1`; "" if unknown.
        time: when, UTC, ISO 8601; "" if unknown.
        seconds: time that the answer took; None if unknown.
        round: number of the round, from 0 as in rounds.csv; "" before the first.
        source: `page`, `worklist` and which one, or `given` if it came from another labels.csv.
    """

    patient: str
    slice: str
    label: str
    reader: str = ""
    time: str = ""
    seconds: float | None = None
    round: int | str = ""
    source: str = GIVEN_SOURCE


def write(workdir: Path) -> None:
    """Writes RUN/labels.csv: what the run was given, then all answers that count, as they came."""
    rows = read_given(workdir)
    for round_, entry in _entries(workdir):
        patient = next(round_.patients[item.patient] for item in round_.items if item.slice == entry.slice)
        made = entry.reader, entry.at, entry.seconds, round_.fit, entry.source
        rows.append(Label(patient, entry.slice, entry.label, *made))
    write_table(workdir / FILE, rows)


def said(
    workdir: Path, patient_of: Mapping[str, str], is_asked: Callable[[Round], bool] = lambda round_: True
) -> dict[str, str]:
    """Returns what was said last of each slice, {slice: label}, in the rounds for which `is_asked` and before them all.

    Args:
        workdir: folder of the run.
        patient_of: {slice: patient} of the dataset.
        is_asked: (round) -> whether its answers count.
    """
    found = [answers.Answer(row.slice, row.label) for row in read_given(workdir)]
    found += [answers.Answer(e.slice, e.label, round_.again) for round_, e in _entries(workdir) if is_asked(round_)]
    return answers.current(found, patient_of)


def _entries(workdir: Path) -> Iterator[tuple[Round, Entry]]:
    """Yields all answers that count, as they came; a closed round keeps its own whatever becomes of the journal."""
    state = journal.read(workdir / FOLDER)
    for round_ in map(round_file.read, round_file.folders(workdir)):
        closed = round_file.closed_entries(workdir, round_.number)
        yield from ((round_, e) for e in (round_file.entries(round_, state) if closed is None else closed))


def write_table(path: Path, rows: Iterable[Label]) -> None:
    """Writes a table of labels."""
    files.write_csv(path, Label._fields, rows)


def read_given(workdir: Path) -> list[Label]:
    """Returns the labels that a run was given at its start."""
    path = workdir / FOLDER / GIVEN
    if not path.exists():
        return []
    rows = (row | {"seconds": float(row["seconds"]) if row["seconds"] else None} for row in files.read_csv(path))
    return [Label(**row) for row in rows]  # type: ignore[arg-type]  # the columns are its fields


def read(path: Path, patient_of: Mapping[str, str], classes: Classes) -> list[Label]:
    """Reads labels that another run, or another tool, wrote: columns slice,label and perhaps reader,time,seconds.

    Rows without a label, and of slices that are not known here, are left out.

    Args:
        path: table with commas, semicolons or tabs, as spreadsheets write them.
        patient_of: {slice: patient} of the dataset.
        classes: the classes that labels name.

    Raises:
        UserError: if the file is missing, a label is no answer, or all slices are of another dataset.
    """
    if not path.is_file():
        raise UserError(f"there is no table {path}: name the labels.csv of another run")
    found = [row for row in answer_rows(path, classes) if row.label]
    if found and not any(row.slice in patient_of for row in found):
        raise UserError(f"{path}: none of its {len(found)} slices is in this dataset: name the labels of this cohort")
    return [
        Label(patient_of[row.slice], row.slice, row.label, row.reader, row.time, row.seconds)
        for row in found
        if row.slice in patient_of
    ]
