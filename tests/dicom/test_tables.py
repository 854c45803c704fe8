import contextlib
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion.dicom import tables
from lesion.errors import UserError

ROWS = "patient_id,label,site\n病例1,glioma,Zürich\nÉ2,0,\n,,\n3,,\n"
TEXTS = {  # as programs write it: bytes of the same table
    "UTF-8": ROWS.encode(),
    "BOM": ROWS.encode("utf-8-sig"),
    "UTF-16 of Excel": ROWS.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
    "UTF-16 BE": b"\xfe\xff" + ROWS.encode("utf-16-be"),
    "semicolons": ROWS.replace(",", ";").encode(),
    "sep=;": ("sep=;\r\n" + ROWS.replace(",", ";").replace("\n", "\r\n")).encode("utf-8-sig"),
    "sep=, filled up": ("sep=,,,\n" + ROWS).encode(),
    "empty columns and rows": ROWS.replace("\n", ",,,\n").encode() + b",,,,\n" * 5,
    "of an old Mac": ROWS.replace("\n", "\r").encode(),
    "NFD": unicodedata.normalize("NFD", ROWS).encode(),
}


def write(folder, content, name=tables.PATIENTS):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.mark.parametrize("name", TEXTS)
def test_tables_go_in_as_programs_write_them(tmp_path, name):
    user = tables.read_tables(write(tmp_path, TEXTS[name]))
    assert user.labels == {"病例1": 1, "É2": 0, "3": -1}
    assert [cells["site"] for cells in user.patients.values()] == ["Zürich", "", ""]
    assert user.patient_rows == {"病例1": 2, "É2": 3, "3": 5}


@pytest.mark.parametrize(("codec", "patient_id"), [("cp1252", "Müller-3"), ("gb18030", "病例1"), ("cp932", "症例1")])
def test_a_national_code_page_goes_in(tmp_path, codec, patient_id):
    content = f"patient_id;label\r\n{patient_id};glioma\r\n".encode(codec)
    assert tables.read_patients(write(tmp_path, content))[0] == {patient_id: 1}


def test_further_columns_are_kept_and_empty_ones_not(tmp_path):
    write(tmp_path, "fold,Site,patient_id,label,group,vendor,age\n1.0,A,1,glioma,g,,61\n0,B,2,0,,,\n,,3,,g,,1\n")
    _, patients, _ = tables.read_patients(tmp_path)
    assert patients["1"] == {"fold": "1", "site": "A", "group": "g", "age": "61"}
    assert patients["3"] == {"fold": "", "site": "", "group": "g", "age": "1"}


BAD = {  # fault: (patients.csv, words of the message)
    "PatientName": ("patient_id,label,PatientName\n1,0,x\n", "column 'patientname' looks like a person's"),
    "surname": ("patient_id,label,Sur name\n1,0,x\n", "'sur name' looks like"),
    "birth": ("patient_id,label,year of birth\n1,0,\n", "'year of birth' looks like"),
    "DOB": ("patient_id,label,DOB\n1,0,x\n", "'dob' looks like"),
    "mrn_2": ("patient_id,label,mrn_2\n1,0,x\n", "'mrn_2' looks like"),
    "姓名": ("patient_id,label,患者姓名\n1,0,x\n", "'患者姓名' looks like"),
    "a date": ("patient_id,label,seen\n1,0,\n2,0,2019-08-17 10:00\n", "'seen' holds full dates: delete it"),
    "a date of DICOM": ("patient_id,label,seen\n1,0,19610203\n", "holds full dates"),
    "a German date": ("patient_id,label,seen\n1,0,3.2.61\n", "holds full dates"),
    "a date in words": ("patient_id,label,seen\n1,0,3 May 1961\n", "holds full dates"),
    "ids again": ("patient_id,label,number\n1,0,1\n2,0,2\n", "'number' repeats the patient_ids"),
    "a fold of words": ("patient_id,label,fold\n1,0,a\n", "row 2: fold is not a whole number"),
    "fold -1": ("patient_id,label,fold\n1,0,-1\n", "row 2: fold is not"),
    "no fold": ("patient_id,label,fold\n1,0,0\n2,1,\n", "row 3: fold is empty"),
    "a group apart": ("patient_id,label,fold,group\n1,0,0,Li\n2,1,1,Li\n", "row 3: this patient's group has another"),
    "two sites": ("patient_id,label,site\n1,0,A\n1,0,B\n", "row 3: this patient has another value"),
    "two labels": ("patient_id,label\n1,0\n1,1\n", "row 3: this patient has another label further up: keep"),
    "two labels, rounded": ("patient_id,label\n1.2E+12,0\n1.2E+12,1\n", "row 3: .* a spreadsheet has rounded"),
    "no column": ("sep=;\nid;label\n1;0\n", "no column 'patient_id' .* needs patient_id,label$"),
    "a column twice": ("patient_id,label,age,Age\n1,0,1,2\n", "two columns 'age'"),
    "too many cells": ("patient_id,label\n1,0,,\n1,0,x\n", "row 3: 3 cells, 2 columns"),
    "a digit too many": ("patient_id,label,fold\n1,0,12345\n", "fold is not"),
    "a workbook": (b"PK\x03\x04\x14\0\x06\0", "is no text in UTF-8"),
    "half of UTF-16": (b"\xff\xfea", "is no text in UTF-8"),
    "nothing": ("", "no column 'patient_id'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_table_is_one_line(tmp_path, name):
    content, words = BAD[name]
    with pytest.raises(UserError, match=words) as error:
        tables.read_patients(write(tmp_path, content))
    assert "\n" not in str(error.value)
    assert "Li" not in str(error.value).removeprefix(str(tmp_path))


@pytest.mark.parametrize(
    "column", ["age", "sex", "vendor", "site", "field_strength", "patient_age", "candidate", "update"]
)
def test_columns_for_subgroups_are_no_names(tmp_path, column):
    values = "1.5", "19.0.12", "1961", "12345678"
    rows = "".join(f"P{i},0,{value}\n" for i, value in enumerate(values))
    _, patients, _ = tables.read_patients(write(tmp_path, f"patient_id,label,{column}\n{rows}"))
    assert [cells[column] for cells in patients.values()] == list(values)


PRESENT = ["1001", "002", "E\u0301", "1234567890001", "1234567890002", "9876543210987", "²¡Àý1"]
MEANT = {"1001": "1001", "1001.0": "1001", "1001,00": "1001", "É": "E\u0301", "病例1": "²¡Àý1"}


def matched(folder, given, present=PRESENT, **kwargs):
    write(folder, f"patient_id,label,site\n{given},glioma,A\n")
    write(folder, f"patient_id,reader,label\n{given},Li,glioma\n", tables.READERS)
    readings = {patient_id: ["病例1"] if patient_id == "²¡Àý1" else [] for patient_id in present}
    return tables.match_patients(folder, tables.read_tables(folder), readings, **kwargs)


@pytest.mark.parametrize("given_id", MEANT)
def test_an_id_is_found(tmp_path, given_id):
    quoted = f'"{given_id}"'
    user = matched(tmp_path, quoted)
    want = MEANT[given_id]
    assert (user.labels, user.patients) == ({want: 1}, {want: {"site": "A"}})
    assert (user.readers, user.patient_rows) == ({("Li", want): (1, 2)}, {want: 2})


LOST = {  # patient_id: words of the message
    "9.87654E+12": "row 2: .* a spreadsheet has rounded the id; PatientIDs that fit: 1: .*text",
    "1.23457E+12": "PatientIDs that fit: 2",
    "7E+5": "PatientIDs that fit: 0",
    "1002.0": r"with \.0: ",
    "2.0": r"with \.0 and took leading zeros away",
    "2": "leading zeros were lost",
    "X": r"correct the patient_id or delete the row, or mend IM1 \(1 such\)",
}


@pytest.mark.parametrize("given_id", LOST)
def test_an_id_that_is_lost_is_told_why(tmp_path, given_id):
    with pytest.raises(UserError, match=LOST[given_id]) as error:
        matched(tmp_path, given_id, hint="mend IM1")
    assert "\n" not in str(error.value)
    assert ("mend IM1" in str(error.value)) == (given_id == "X")
    assert not any(patient_id in str(error.value) for patient_id in (given_id, "9876543210987") if len(patient_id) > 3)
    (tmp_path / tables.PATIENTS).write_text("patient_id,label\n1001,glioma\n")
    with pytest.raises(UserError, match=r"readers.csv row 2: no MR image has this PatientID"):
        tables.match_patients(tmp_path, tables.read_tables(tmp_path), dict.fromkeys(PRESENT, ()))


def test_a_rounded_id_is_the_one_that_no_other_row_names(tmp_path):
    write(tmp_path, "patient_id,label\n1234567890001,glioma\n1.23457E+12,0\n7,0\n")
    with pytest.raises(UserError, match=r"row 3: .*; PatientIDs that fit: 1: .* \(2 such\)"):
        tables.match_patients(tmp_path, tables.read_tables(tmp_path), dict.fromkeys(PRESENT, ()))


def test_two_ids_of_one_patient_must_agree(tmp_path):
    write(tmp_path, "patient_id,label\n1001,glioma\n1001.0,glioma\n1001.00,0\n")
    with pytest.raises(UserError, match=r"row 4: the patient of row 2 again, and told otherwise"):
        tables.match_patients(tmp_path, tables.read_tables(tmp_path), {"1001": ()})
    with pytest.raises(UserError, match="2 PatientIDs are written so"):
        matched(tmp_path, "É", ["E\u0301", "\u00c9 "])


def cells():
    letters = st.characters(codec="utf-8", exclude_categories=["C", "Z", "Mn"], exclude_characters='.,;\t"=')
    return st.text(letters, min_size=1, max_size=8).map(lambda cell: unicodedata.normalize("NFC", cell))


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(cells(), cells().map("x{}".format), min_size=1),
    st.sampled_from(",;\t"),
    st.sampled_from(["utf-8-sig", "utf-16"]),
)
def test_what_is_written_is_read(tmp_path_factory, sites, delimiter, encoding):
    lines = [["patient_id", "label", "site"], *([patient_id, "glioma", site] for patient_id, site in sites.items())]
    folder = tmp_path_factory.mktemp("table")
    write(folder, "\n".join(map(delimiter.join, lines)).encode(encoding))
    _, patients, row_of = tables.read_patients(folder)
    assert {patient_id: kept["site"] for patient_id, kept in patients.items()} == sites
    assert list(row_of.values()) == list(range(2, 2 + len(sites)))


@settings(max_examples=60, deadline=None)
@given(st.binary())
def test_any_bytes_are_read_or_refused(tmp_path_factory, raw):
    folder = write(tmp_path_factory.mktemp("table"), b"patient_id,label\n" + raw)
    with contextlib.suppress(UserError):
        tables.read_patients(folder)
