"""The user's tables beside the DICOM tree: patients.csv, slices.csv, series.csv, readers.csv.

Each is read as text with its first line as header; commas, semicolons or tabs, with or without a byte-order mark, as
spreadsheet programs write them. What is wrong with one is a `UserError` that names the row.
"""

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path

from lesion.dicom import LABELS, SEQUENCES, UNLABELED
from lesion.errors import UserError

PATIENTS, SLICES, SERIES, READERS = "patients.csv", "slices.csv", "series.csv", "readers.csv"
SIMULATED = "simulated reader"  # so begins, in readers.csv, the name of one that a phantom made
SKIP = "skip"  # in series.csv: leave this series out
_LABEL_WORDS = {**LABELS, **{str(number): number for number in LABELS.values()}, "": UNLABELED}


def read_patients(folder: Path) -> dict[str, int]:
    """Labels by patient id, -1 for a row with an empty label; patients of the tree that are not listed are -1 too.

    Raises:
        UserError: no file, wrong columns, a label that is neither class, one patient with two labels, no label at
            all, or one class only.
    """
    path = folder / PATIENTS
    if not path.exists():
        raise UserError(f"no {PATIENTS} in {folder}: write one, columns patient_id,label (encephalitis or glioma)")
    labels: dict[str, int] = {}
    for row, (patient, word) in rows(path, ("patient_id", "label")):
        if not patient:
            raise UserError(f"{path} row {row}: patient_id is empty: fill it in or delete the row")
        if word.lower() not in _LABEL_WORDS:
            raise UserError(f"{path} row {row}: label {word!r} is neither encephalitis nor glioma: correct or empty it")
        label = _LABEL_WORDS[word.lower()]
        if labels.setdefault(patient, label) != label:
            raise UserError(f"{path} row {row}: this patient has another label further up: keep one of the rows")
    missing = [name for name, number in LABELS.items() if number not in labels.values()]
    if len(missing) == len(LABELS):
        raise UserError(f"{path} gives no patient a label: fill in encephalitis or glioma for some of both")
    if missing:
        raise UserError(f"{path} has no patient with label {missing[0]}: two classes are needed to tell them apart")
    return labels


def read_slices(folder: Path) -> dict[tuple[str, int | None], int] | None:
    """The chosen slices as (SOPInstanceUID, frame or None for all frames) with their rows; None without the file.

    Raises:
        UserError: wrong columns, an empty UID, a frame that is no number from 1, or no row at all.
    """
    path = folder / SLICES
    if not path.exists():
        return None
    chosen: dict[tuple[str, int | None], int] = {}
    for row, (uid, frame) in rows(path, ("sop_instance_uid",), optional="frame"):
        if not uid:
            raise UserError(f"{path} row {row}: sop_instance_uid is empty: fill it in or delete the row")
        if frame and not (frame.isdecimal() and int(frame) >= 1):
            raise UserError(f"{path} row {row}: frame {frame!r} is not a whole number from 1: correct or empty it")
        chosen[uid, int(frame) if frame else None] = row
    if not chosen:
        raise UserError(f"{path} lists no slice: add rows, or delete the file to take every slice")
    return chosen


def read_series(folder: Path) -> dict[str, tuple[str, int]]:
    """The user's own word on series: SeriesInstanceUID to (sequence or "skip", row); empty without the file.

    Raises:
        UserError: wrong columns, or an unknown sequence.
    """
    path = folder / SERIES
    if not path.exists():
        return {}
    told: dict[str, tuple[str, int]] = {}
    for row, (uid, name) in rows(path, ("series_instance_uid", "sequence")):
        if name.lower() not in (*SEQUENCES, SKIP):
            words = ", ".join(SEQUENCES)
            raise UserError(f"{path} row {row}: sequence {name!r} is unknown: write one of {words}, or {SKIP}")
        if told.get(uid, (name.lower(),))[0] != name.lower():
            raise UserError(f"{path} row {row}: this series has another sequence further up: keep one of the rows")
        told[uid] = (name.lower(), row)
    return told


def read_readers(folder: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """What doctors said of patients: (reader, patient id) to (label, row), in the file's order; empty without the file.

    A row with an empty label, a patient that a reader did not judge, is left out.

    Raises:
        UserError: wrong columns, an empty patient or reader, a label that is neither class, or two answers of a reader
            for one patient. No message holds a reader's name.
    """
    path = folder / READERS
    if not path.exists():
        return {}
    said: dict[tuple[str, str], tuple[int, int]] = {}
    for row, (patient, reader, word) in rows(path, ("patient_id", "reader", "label")):
        for column, cell in (("patient_id", patient), ("reader", reader)):
            if not cell:
                raise UserError(f"{path} row {row}: {column} is empty: fill it in or delete the row")
        if word.lower() not in _LABEL_WORDS:  # not repeated: where columns were mixed up it is a name
            raise UserError(f"{path} row {row}: the label is neither encephalitis nor glioma: correct or empty it")
        if (reader, patient) in said:
            raise UserError(f"{path} row {row}: this reader answered for this patient further up: keep one of the rows")
        said[reader, patient] = (_LABEL_WORDS[word.lower()], row)
    said = {key: answer for key, answer in said.items() if answer[0] != UNLABELED}
    if not said:
        raise UserError(f"{path} holds no answer of a reader: fill in labels, or delete the file")
    return said


def rows(path: Path, columns: tuple[str, ...], optional: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yields (row number as a spreadsheet shows it, the wanted cells, stripped) of a table, blank rows left out.

    Raises:
        UserError: not UTF-8, a column that is missing, an open quotation mark, more cells than columns.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: save it as CSV in UTF-8") from error
    first = lines[0] if lines else ""
    delimiter = max(",;\t", key=first.count)
    header = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter), [])]
    absent = [name for name in columns if name not in header]
    if absent:
        raise UserError(f"{path} has no column {absent[0]!r} in its first line: it needs {','.join(columns)}")
    twice = [name for name in columns if header.count(name) > 1]
    if twice:
        raise UserError(f"{path} has two columns {twice[0]!r} in its first line: keep one")
    wanted = [*columns, optional] if optional else list(columns)
    places = [header.index(name) if name in header else None for name in wanted]
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
        yield row, ["" if i is None or i >= len(cells) else cells[i].strip() for i in places]
