"""Reads the user's tables beside the DICOM tree: patients.csv, slices.csv, series.csv, readers.csv.

Each is read as text with its first line as header, as spreadsheet programs write them: commas, semicolons or tabs;
UTF-8, UTF-16, or what `text.candidates` makes of it. What is wrong with one is a `UserError` that names the row and
repeats no cell: where columns were mixed up any cell may name a patient.
"""

import codecs
import collections
import csv
import io
import itertools
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Context, Decimal
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from lesion.classes import PAPER, Classes
from lesion.dicom import SEQUENCES, UNLABELED, text
from lesion.errors import UserError

PATIENTS, SLICES, SERIES, READERS = "patients.csv", "slices.csv", "series.csv", "readers.csv"
SIMULATED = "simulated reader"  # so begins, in readers.csv, the name of one that a phantom made
SKIP = "skip"  # in series.csv: leave this series out
FOLD, GROUP = "fold", "group"  # in patients.csv: how the patients are dealt

_FLOAT = re.compile(r"(\d+)[.,]0+")  # 1001.0
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?[eE]\+?\d+")  # 1.23457E+12
_AS_TEXT = "format the column as text, fill the ids in again and save as CSV"
# What a column is called that tells who somebody is: a word between separators, or anywhere in other scripts.
_PERSONAL = re.compile(
    r"patient|(?:.*[\W\d_])?(?:names?|surname|(?:first|last|fore|given|family|middle|full|patient)name|initials|person"
    r"|birth|birthday|dob|born|(?:birth|study|scan|exam|visit)?date|datetime|address|street|city|zip|zipcode|postcode"
    r"|phone|telephone|tel|mobile|fax|email|mail|mrn|ssn|nhs|accession|insurance|passport|doctor|physician|radiologist"
    r"|reader|vorname|nachname|geburt|geburtsdatum|datum|adresse|telefon|arzt|nom|pr[eé]nom|naissance|fecha|nombre"
    r"|apellidos?|nacimiento|nascita|cognome|nome)(?:[\W\d_].*)?"
    r"|.*(?:姓名|名字|氏名|出生|生日|生年月日|日期|地址|住所|电话|電話|手机|身份证|住院号|门诊号|医保"
    r"|이름|성명|생년월일|주소|전화|фамилия|имя|рожд|дата|адрес|телефон).*"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"  # or month
_FULL_DATE = re.compile(
    r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"  # 19610203
    rf"|(?:19|20)\d\d\s*[-./年]\s*{_DAY}\s*[-./月]\s*{_DAY}(?:\D.*)?"
    rf"|{_DAY}\s*[-./]\s*{_DAY}\s*[-./]\s*(?:\d{{4}}|\d\d)(?:[ T,].*)?"
    r"|\d{1,2}\.?[- ]?[^\W\d_]{3,9}\.?[-, ]*(?:19|20)\d\d(?:\D.*)?"  # 3 May 1961
    r"|[^\W\d_]{3,9}\.? \d{1,2}(?:st|nd|rd|th)?,? (?:19|20)\d\d(?:\D.*)?"
)


class UserTables(NamedTuple):
    """What the user's tables say; rows are numbered as a spreadsheet shows them.

    Attributes:
        labels: PatientID to label, -1 where the cell is empty.
        slices: the chosen slices, (SOPInstanceUID, frame or None for all frames) to row; None without the file.
        series: SeriesInstanceUID to (sequence or "skip", row); empty without the file.
        readers: what doctors said of patients, (reader, PatientID) to (label, row); empty without the file.
        patients: PatientID to the cells of further columns of patients.csv, {column: cell}; see `FOLD` and `GROUP`.
        patient_rows: PatientID to the row of patients.csv.
    """

    labels: dict[str, int]
    slices: dict[tuple[str, int | None], int] | None
    series: dict[str, tuple[str, int]]
    readers: dict[tuple[str, str], tuple[int, int]]
    patients: Mapping[str, dict[str, str]] = MappingProxyType({})
    patient_rows: Mapping[str, int] = MappingProxyType({})

    def chooses(self, sop_uid: str, frame: int) -> bool:
        """Returns whether slices.csv takes this frame; without the file every frame is taken."""
        return self.slices is None or (sop_uid, frame) in self.slices or (sop_uid, None) in self.slices


def read_tables(folder: Path, classes: Classes = PAPER) -> UserTables:
    """Reads all tables of a DICOM tree.

    Raises:
        UserError: the folder is missing or empty, or a table is wrong.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the DICOM tree with --input=DIR")
    if not any(folder.iterdir()):
        raise UserError(f"{folder} is empty: put the DICOM tree and {PATIENTS} there")
    labels, patients, patient_rows = read_patients(folder, classes)
    slices, series, readers = read_slices(folder), read_series(folder), read_readers(folder, classes)
    return UserTables(labels, slices, series, readers, patients, patient_rows)


def read_patients(
    folder: Path, classes: Classes = PAPER
) -> tuple[dict[str, int], dict[str, dict[str, str]], dict[str, int]]:
    """Reads patients.csv.

    Returns:
        By PatientID: label, -1 for a row with an empty label; the cells of further columns; the row.

    Raises:
        UserError: no file, wrong columns, a column that tells who somebody is, a label that is neither class, one
            patient with two labels or two values of a column, a fold that is no number or lacks, a group in two folds.
    """
    path = folder / PATIENTS
    if not path.exists():
        raise UserError(f"no {PATIENTS} in {folder}: write one, columns patient_id,label ({' or '.join(classes)})")
    label_words = {**classes.by_word, "": UNLABELED}
    further = [name for name in _read(path)[0] if name not in ("", "patient_id", "label")]
    labels: dict[str, int] = {}
    patients: dict[str, dict[str, str]] = {}
    row_of: dict[str, int] = {}
    for row, (patient_id, word, *cells) in rows(path, ("patient_id", "label"), optional=further, filled=1):
        if word.lower() not in label_words:
            raise UserError(
                f"{path} row {row}: the label is neither {' nor '.join(classes)}: correct or empty it, "
                "or name your two classes with --classes"
            )
        told = label_words[word.lower()], dict(zip(further, cells, strict=True))
        if (labels.setdefault(patient_id, told[0]), patients.setdefault(patient_id, told[1])) != told:
            what = "label" if labels[patient_id] != told[0] else "value in another column"
            hint = "keep one of the rows"
            if _ROUNDED.fullmatch(patient_id):
                hint = f"a spreadsheet has rounded the ids: {_AS_TEXT}"
            raise UserError(f"{path} row {row}: this patient has another {what} further up: {hint}")
        row_of.setdefault(patient_id, row)
    for column in further:
        _check_not_personal(path, column, {patient_id: cells[column] for patient_id, cells in patients.items()})
    filled = [column for column in further if any(cells[column] for cells in patients.values())]
    patients = {patient_id: {column: cells[column] for column in filled} for patient_id, cells in patients.items()}
    if FOLD in filled:
        _read_folds(path, labels, patients, row_of)
    return labels, patients, row_of


def _check_not_personal(path: Path, column: str, cells: Mapping[str, str]) -> None:
    """Raises a UserError if a column looks as if it told who somebody is: all columns go into the dataset."""
    values = [(patient_id, cell) for patient_id, cell in cells.items() if cell]
    what = ""
    if _PERSONAL.fullmatch(column):
        what = "looks like a person's name, date, address or number (rename it if it is none)"
    elif any(_FULL_DATE.fullmatch(cell) for _, cell in values):
        what = "holds full dates"
    elif values and all(cell == patient_id for patient_id, cell in values):
        what = "repeats the patient_ids"
    if what:
        raise UserError(f"{path}: column {column!r} {what}: delete it, for all columns go into the dataset")


def _read_folds(
    path: Path, labels: Mapping[str, int], patients: Mapping[str, dict[str, str]], row_of: Mapping[str, int]
) -> None:
    """Checks the folds and writes each as a whole number: a spreadsheet makes 1.0 of them where a cell is empty."""
    fold_of_group: dict[str, str] = {}
    for patient_id, cells in patients.items():
        where = f"{path} row {row_of[patient_id]}"
        match = re.fullmatch(r"([0-9]{1,4})(?:[.,]0+)?", cells[FOLD])
        if cells[FOLD] and not match:
            raise UserError(f"{where}: fold is not a whole number from 0: correct or empty it")
        if not match:
            if labels[patient_id] != UNLABELED:
                raise UserError(f"{where}: fold is empty, and the patient has a label: fill in a number from 0")
            continue
        cells[FOLD] = str(int(match[1]))
        group = cells.get(GROUP)
        if group and fold_of_group.setdefault(group, cells[FOLD]) != cells[FOLD]:
            raise UserError(f"{where}: this patient's group has another fold further up: give a group one fold")


def read_slices(folder: Path) -> dict[tuple[str, int | None], int] | None:
    """Reads slices.csv: (SOPInstanceUID, frame or None for all frames) to row; None without the file.

    Raises:
        UserError: wrong columns, an empty UID, a frame that is no number from 1, or no row at all.
    """
    path = folder / SLICES
    if not path.exists():
        return None
    chosen: dict[tuple[str, int | None], int] = {}
    for row, (sop_uid, frame) in rows(path, ("sop_instance_uid",), optional=("frame",), filled=1):
        if frame and not re.fullmatch(r"0*[1-9]\d{0,8}", frame):
            raise UserError(f"{path} row {row}: frame is not a whole number from 1: correct or empty it")
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
            raise UserError(f"{path} row {row}: the sequence is unknown: write one of {words}, or {SKIP}")
        if sequences.get(series_uid, (sequence,))[0] != sequence:
            raise UserError(f"{path} row {row}: this series has another sequence further up: keep one of the rows")
        sequences[series_uid] = (sequence, row)
    return sequences


def read_readers(folder: Path, classes: Classes = PAPER) -> dict[tuple[str, str], tuple[int, int]]:
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
    label_words = {**classes.by_word, "": UNLABELED}
    for row, (patient_id, reader, word) in rows(path, ("patient_id", "reader", "label"), filled=2):
        if word.lower() not in label_words:
            raise UserError(f"{path} row {row}: the label is neither {' nor '.join(classes)}: correct or empty it")
        if (reader, patient_id) in answers:
            raise UserError(f"{path} row {row}: this reader answered for this patient further up: keep one of the rows")
        answers[reader, patient_id] = (label_words[word.lower()], row)
    answers = {key: (label, row) for key, (label, row) in answers.items() if label != UNLABELED}
    if not answers:
        raise UserError(f"{path} holds no answer of a reader: fill in labels, or delete the file")
    return answers


def match_patients(folder: Path, user: UserTables, present: Mapping[str, Iterable[str]], hint: str = "") -> UserTables:
    """Finds the PatientID that each patient_id of patients.csv and readers.csv means; returns the tables under these.

    Ids are compared in Unicode's composed form. 1001.0 means 1001, if there is no 1001.0.

    Args:
        folder: of the tables, for messages.
        user: the tables as they were read.
        present: the PatientIDs of the images, each with further readings of it, where its encoding is a guess.
        hint: one more way to mend an id that is not there, if there is one.

    Raises:
        UserError: an id is not there or fits several PatientIDs, a spreadsheet has rounded it, or two ids of a table
            mean one patient and differ.
    """
    index = _Index(present)
    labels: dict[str, int] = {}
    patients: dict[str, dict[str, str]] = {}
    row_of: dict[str, int] = {}
    for given, label in user.labels.items():
        found = index.find(given)
        row, cells = user.patient_rows.get(given, 0), user.patients.get(given, {})
        if len(found) != 1:
            all_found = [index.find(other) for other in user.labels]
            taken = {ids[0] for ids in all_found if len(ids) == 1}
            count = len(all_found) - sum(len(ids) == 1 for ids in all_found)
            why = index.explain(given, taken) + (
                f", or {hint}" if hint and not found and not index.knows(given) else ""
            )
            raise UserError(f"{folder / PATIENTS} row {row}: {why} ({count} such)")
        if (labels.setdefault(found[0], label), patients.setdefault(found[0], cells)) != (label, cells):
            why = f"the patient of row {row_of[found[0]]} again, and told otherwise: keep one of the rows"
            raise UserError(f"{folder / PATIENTS} row {row}: {why}")
        row_of.setdefault(found[0], row)
    readers: dict[tuple[str, str], tuple[int, int]] = {}
    for (reader, given), answer in user.readers.items():
        found = index.find(given)
        if len(found) != 1:
            raise UserError(f"{folder / READERS} row {answer[1]}: {index.explain(given)}")
        if (reader, found[0]) in readers:
            why = "this reader answered for this patient further up: keep one of the rows"
            raise UserError(f"{folder / READERS} row {answer[1]}: {why}")
        readers[reader, found[0]] = answer
    return user._replace(labels=labels, readers=readers, patients=patients, patient_rows=row_of)


class _Index:
    """The PatientIDs of the images, by what may stand for them in a table."""

    def __init__(self, present: Mapping[str, Iterable[str]]):
        self._first: dict[str, set[str]] = collections.defaultdict(set)
        self._further: dict[str, set[str]] = collections.defaultdict(set)
        for patient_id, others in present.items():
            self._first[_composed(patient_id)].add(patient_id)
            for other in others:
                self._further[_composed(other)].add(patient_id)

    def find(self, given: str) -> list[str]:
        """Returns the PatientIDs that `given` may mean: none, the one, or several."""
        match = _FLOAT.fullmatch(given)
        for text_ in (given, match[1]) if match else (given,):
            for ids in (self._first, self._further):
                if found := ids.get(_composed(text_)):
                    return [given] if given in found else sorted(found)
        return []

    def knows(self, given: str) -> bool:
        """Returns whether it is clear what happened to an id that is not there."""
        return bool(_ROUNDED.fullmatch(given) or _FLOAT.fullmatch(given) or self._without_zeros(given))

    def explain(self, given: str, taken: Collection[str] = ()) -> str:
        """Says why an id was not found and how to mend it; `taken` are the PatientIDs that other rows name."""
        if len(found := self.find(given)) > 1:
            return f"{len(found)} PatientIDs are written so, each in another way: make them one in the images"
        why = "no MR image has this PatientID: "
        if _ROUNDED.fullmatch(given):
            fitting = sorted(patient_id for patient_id in self._first if _rounds_to(patient_id, given))
            fitting = [patient_id for patient_id in fitting if patient_id not in taken]
            return f"{why}a spreadsheet has rounded the id; PatientIDs that fit: {len(fitting)}: {_AS_TEXT}"
        if match := _FLOAT.fullmatch(given):
            zeros = " and took leading zeros away" if self._without_zeros(match[1]) else ""
            return f"{why}a spreadsheet has made a number of it, with .0{zeros}: {_AS_TEXT}"
        if self._without_zeros(given):
            return f"{why}leading zeros were lost: {_AS_TEXT}"
        return f"{why}correct the patient_id or delete the row"

    def _without_zeros(self, given: str) -> list[str]:
        return [other for other in self._first if other.lstrip("0") == _composed(given).lstrip("0")]


def _composed(text_: str) -> str:
    return unicodedata.normalize("NFC", text_.strip())


def _rounds_to(patient_id: str, given: str) -> bool:
    """Returns whether a number of all digits, `patient_id`, is `given` when it is rounded to as many digits."""
    if not (patient_id.isascii() and patient_id.isdecimal()):
        return False
    rounded = Decimal(given.replace(",", "."))
    context = Context(prec=len(rounded.as_tuple().digits), rounding="ROUND_HALF_UP")
    return context.create_decimal(patient_id) == rounded


def rows(
    path: Path, columns: tuple[str, ...], optional: Sequence[str] = (), filled: int = 0
) -> Iterator[tuple[int, list[str]]]:
    """Yields (row number as a spreadsheet shows it, the cells of `columns`, stripped) of a table, without blank rows.

    Args:
        path: of the table.
        columns: columns that must be there, in the order wanted.
        optional: further columns, whose cells are "" where they are not there.
        filled: so many of `columns`, the first ones, may have no empty cell.

    Raises:
        UserError: no text, a column that is missing, an empty cell, an open quotation mark, more cells than columns.
    """
    header, cells_of_rows = _read(path)
    for column in columns:
        if column not in header:
            raise UserError(f"{path} has no column {column!r} in its first line: it needs {','.join(columns)}")
    for column in (*columns, *optional):
        if header.count(column) > 1:
            raise UserError(f"{path} has two columns {column!r} in its first line: keep one")
    indices = [header.index(column) if column in header else None for column in (*columns, *optional)]
    for row, cells in cells_of_rows:
        if len(cells) > len(header):
            raise UserError(f"{path} row {row}: {len(cells)} cells, {len(header)} columns: quote cells with commas")
        wanted_cells = ["" if i is None or i >= len(cells) else cells[i] for i in indices]
        for column, cell in zip(columns[:filled], wanted_cells, strict=False):
            if not cell:
                raise UserError(f"{path} row {row}: {column} is empty: fill it in or delete the row")
        yield row, wanted_cells


def _read(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Returns the header of a table, in small letters, and its rows that are not blank, numbered from 2.

    Excel's line `sep=;` above the header is no row. Empty cells at a row's end are left out.
    """
    content = _text(path)
    delimiter = ""
    if match := re.match(r'"?sep=(.)"?[,;\t]*(?:\r\n|\r|\n)', content, re.IGNORECASE):
        delimiter, content = match[1], content[match.end() :]
    delimiter = delimiter or max(",;\t", key=content.partition("\n")[0].partition("\r")[0].count)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)

    def cells_of_rows() -> Iterator[tuple[int, list[str]]]:
        for row in itertools.count(1):
            try:
                cells = [_composed(re.sub(r"[\r\n]+", " ", cell)) for cell in next(reader)]
            except StopIteration:
                return
            except csv.Error as error:
                raise UserError(f"{path} row {row}: {error}: is a quotation mark not closed?") from error
            while cells and not cells[-1]:
                cells.pop()
            if cells or row == 1:
                yield row, cells

    table = cells_of_rows()
    return [cell.lower() for cell in next(table, (1, []))[1]], table


def _text(path: Path) -> str:
    """Returns what a table holds, in the first encoding that it is text in.

    Raises:
        UserError: it is text in none.
    """
    raw = path.read_bytes()
    is_utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        readings = [raw.decode("utf-16" if is_utf16 else "utf-8-sig")]
    except UnicodeDecodeError:
        readings = [] if is_utf16 else text.candidates(raw)
    for reading in readings:
        if not re.search("[\x00-\x08\x0e-\x1f\x7f-\x9f]", reading):
            return reading
    tried = "UTF-8, UTF-16, GB18030, Shift-JIS, EUC-KR, Windows-1251 or Windows-1252"
    raise UserError(f"{path} is no text in {tried}: save it as CSV in UTF-8")
