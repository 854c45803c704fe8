"""Reads the user's tables beside the DICOM tree: patients.csv, slices.csv, series.csv, readers.csv.

Each is read as text with its first line as header; commas, semicolons or tabs, with or without a byte-order mark, as
spreadsheet programs write them. What is wrong with one is a `UserError` that names the row.
"""

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lesion.dicom import LABELS, SEQUENCES, UNLABELED
from lesion.errors import UserError

PATIENTS, SLICES, SERIES, READERS = "patients.csv", "slices.csv", "series.csv", "readers.csv"
SIMULATED = "simulated reader"  # so begins, in readers.csv, the name of one that a phantom made
SKIP = "skip"  # in series.csv: leave this series out
_LABEL_WORDS = {**LABELS, **{str(number): number for number in LABELS.values()}, "": UNLABELED}


class UserTables(NamedTuple):
    """What the user's tables say; rows are numbered as a spreadsheet shows them.

    Attributes:
        labels: PatientID to label, -1 where the cell is empty.
        slices: the chosen slices, (SOPInstanceUID, frame or None for all frames) to row; None without the file.
        series: SeriesInstanceUID to (sequence or "skip", row); empty without the file.
        readers: what doctors said of patients, (reader, PatientID) to (label, row); empty without the file.
    """

    labels: dict[str, int]
    slices: dict[tuple[str, int | None], int] | None
    series: dict[str, tuple[str, int]]
    readers: dict[tuple[str, str], tuple[int, int]]

    def chooses(self, sop_uid: str, frame: int) -> bool:
        """Returns whether slices.csv takes this frame; without the file every frame is taken."""
        return self.slices is None or (sop_uid, frame) in self.slices or (sop_uid, None) in self.slices


def read_tables(folder: Path) -> UserTables:
    """Reads all tables of a DICOM tree.

    Raises:
        UserError: the folder is missing or empty, or a table is wrong.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the DICOM tree with --input=DIR")
    if not any(folder.iterdir()):
        raise UserError(f"{folder} is empty: put the DICOM tree and {PATIENTS} there")
    return UserTables(read_patients(folder), read_slices(folder), read_series(folder), read_readers(folder))


def read_patients(folder: Path) -> dict[str, int]:
    """Reads patients.csv: PatientID to label, -1 for a row with an empty label.

    Raises:
        UserError: no file, wrong columns, a label that is neither class, one patient with two labels, no label at
            all, or one class only.
    """
    path = folder / PATIENTS
    if not path.exists():
        raise UserError(f"no {PATIENTS} in {folder}: write one, columns patient_id,label (encephalitis or glioma)")
    labels: dict[str, int] = {}
    for row, (patient_id, word) in rows(path, ("patient_id", "label"), filled=1):
        if word.lower() not in _LABEL_WORDS:
            raise UserError(f"{path} row {row}: label {word!r} is neither encephalitis nor glioma: correct or empty it")
        label = _LABEL_WORDS[word.lower()]
        if labels.setdefault(patient_id, label) != label:
            raise UserError(f"{path} row {row}: this patient has another label further up: keep one of the rows")
    missing = [name for name, label in LABELS.items() if label not in labels.values()]
    if len(missing) == len(LABELS):
        raise UserError(f"{path} gives no patient a label: fill in encephalitis or glioma for some of both")
    if missing:
        raise UserError(f"{path} has no patient with label {missing[0]}: two classes are needed to tell them apart")
    return labels


def read_slices(folder: Path) -> dict[tuple[str, int | None], int] | None:
    """Reads slices.csv: (SOPInstanceUID, frame or None for all frames) to row; None without the file.

    Raises:
        UserError: wrong columns, an empty UID, a frame that is no number from 1, or no row at all.
    """
    path = folder / SLICES
    if not path.exists():
        return None
    chosen: dict[tuple[str, int | None], int] = {}
    for row, (sop_uid, frame) in rows(path, ("sop_instance_uid",), optional="frame", filled=1):
        if frame and not (frame.isdecimal() and int(frame) >= 1):
            raise UserError(f"{path} row {row}: frame {frame!r} is not a whole number from 1: correct or empty it")
        chosen[sop_uid, int(frame) if frame else None] = row
    if not chosen:
        raise UserError(f"{path} lists no slice: add rows, or delete the file to take every slice")
    return chosen


def read_series(folder: Path) -> dict[str, tuple[str, int]]:
    """Reads series.csv, which goes before the headers: SeriesInstanceUID to (sequence or "skip", row).

    Raises:
        UserError: wrong columns, or an unknown sequence.
    """
    path = folder / SERIES
    if not path.exists():
        return {}
    sequences: dict[str, tuple[str, int]] = {}
    for row, (series_uid, name) in rows(path, ("series_instance_uid", "sequence")):
        sequence = name.lower()
        if sequence not in (*SEQUENCES, SKIP):
            words = ", ".join(SEQUENCES)
            raise UserError(f"{path} row {row}: sequence {name!r} is unknown: write one of {words}, or {SKIP}")
        if sequences.get(series_uid, (sequence,))[0] != sequence:
            raise UserError(f"{path} row {row}: this series has another sequence further up: keep one of the rows")
        sequences[series_uid] = (sequence, row)
    return sequences


def read_readers(folder: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """Reads readers.csv, what doctors said of patients: (reader, PatientID) to (label, row), in the file's order.

    A row with an empty label, a patient that a reader did not judge, is left out.

    Raises:
        UserError: wrong columns, an empty patient or reader, a label that is neither class, or two answers of a reader
            for one patient. No message holds a reader's name.
    """
    path = folder / READERS
    if not path.exists():
        return {}
    answers: dict[tuple[str, str], tuple[int, int]] = {}
    for row, (patient_id, reader, word) in rows(path, ("patient_id", "reader", "label"), filled=2):
        if word.lower() not in _LABEL_WORDS:  # not repeated: where columns were mixed up it is a name
            raise UserError(f"{path} row {row}: the label is neither encephalitis nor glioma: correct or empty it")
        if (reader, patient_id) in answers:
            raise UserError(f"{path} row {row}: this reader answered for this patient further up: keep one of the rows")
        answers[reader, patient_id] = (_LABEL_WORDS[word.lower()], row)
    answers = {key: (label, row) for key, (label, row) in answers.items() if label != UNLABELED}
    if not answers:
        raise UserError(f"{path} holds no answer of a reader: fill in labels, or delete the file")
    return answers


def rows(
    path: Path, columns: tuple[str, ...], optional: str | None = None, filled: int = 0
) -> Iterator[tuple[int, list[str]]]:
    """Yields (row number as a spreadsheet shows it, the cells of `columns`, stripped) of a table, without blank rows.

    Args:
        path: of the table.
        columns: columns that must be there, in the order wanted.
        optional: one more column, whose cells are "" where it is not there.
        filled: so many of `columns`, the first ones, may have no empty cell.

    Raises:
        UserError: not UTF-8, a column that is missing, an empty cell, an open quotation mark, more cells than columns.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: save it as CSV in UTF-8") from error
    first = lines[0] if lines else ""
    delimiter = max(",;\t", key=first.count)
    header = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter), [])]
    for column in columns:
        if column not in header:
            raise UserError(f"{path} has no column {column!r} in its first line: it needs {','.join(columns)}")
    for column in columns:
        if header.count(column) > 1:
            raise UserError(f"{path} has two columns {column!r} in its first line: keep one")
    wanted = [*columns, optional] if optional else list(columns)
    indices = [header.index(column) if column in header else None for column in wanted]
    reader = csv.reader(lines[1:], delimiter=delimiter, strict=True)
    for row in itertools.count(2):
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{path} row {row}: {error}: is a quotation mark not closed?") from error
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header):
            raise UserError(f"{path} row {row}: {len(cells)} cells, {len(header)} columns: quote cells with commas")
        wanted_cells = ["" if i is None or i >= len(cells) else cells[i].strip() for i in indices]
        for column, cell in zip(columns[:filled], wanted_cells, strict=False):
            if not cell:
                raise UserError(f"{path} row {row}: {column} is empty: fill it in or delete the row")
        yield row, wanted_cells
