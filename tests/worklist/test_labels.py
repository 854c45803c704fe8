"""labels.csv: what is said leaves with who said it and when, comes in again, and names nobody."""

import example_round
import pytest

from lesion import files
from lesion.classes import PAPER
from lesion.errors import UserError
from lesion.worklist import CANNOT_TELL, journal, labels, round_file
from lesion.worklist.journal import PAGE, Entry
from lesion.worklist.labels import Label

PATIENT_OF = dict(zip(example_round.IDS, ["PA"] * 3 + ["PB"] * 2, strict=True))


def test_answers_leave_and_come_in_as_they_were_given(tmp_path):
    round_ = example_round.write(tmp_path)
    say = [Entry("a", 0, "s3", "glioma", PAGE, reader="reader_1", seconds=2.25), Entry("b", 0, "s0", "glioma", PAGE)]
    journal.add(tmp_path / "annotate", lambda state: say)
    labels.write(tmp_path)
    rows = files.read_csv(tmp_path / labels.FILE)
    assert ",".join(rows[0]) == "patient,slice,label,reader,time,seconds,round,source"
    assert [(r["patient"], r["slice"], r["seconds"], r["round"], r["source"]) for r in rows] == [
        ("PB", "s3", "2.25", "0", "page"),
        ("PA", "s0", "", "0", "page"),
    ]
    read = labels.read(tmp_path / labels.FILE, PATIENT_OF, PAPER)
    at = rows[0]["time"]
    assert read == [Label("PB", "s3", "glioma", "reader_1", at, 2.25), Label("PA", "s0", "glioma", "", at)]
    labels.write_table(tmp_path / "annotate" / labels.GIVEN, read)
    assert labels.read_given(tmp_path) == read
    other = [Entry(f"c{i}", 0, slice_, CANNOT_TELL, PAGE) for i, slice_ in enumerate(["s1", "s2", "s3", "s4"])]
    journal.add(tmp_path / "annotate", lambda state: other)
    assert round_file.close(tmp_path, round_)
    (tmp_path / "annotate" / journal.FILE).unlink()  # what is closed stays
    said = labels.said(tmp_path, PATIENT_OF)
    assert said == {slice_: "glioma" if slice_ == "s0" else CANNOT_TELL for slice_ in example_round.IDS}
    assert labels.said(tmp_path, PATIENT_OF, lambda round_: False) == {"s3": "glioma", "s0": "glioma"}


def test_names_stay_out_and_what_is_not_here_is_left_out(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text(
        "slice;label;reader;time\ns0;Glioma;reader_1;2026-01-02T03:04:05\ns1;cannot_tell;Dr. Roentgen;yesterday\n"
        "s2;;reader_1;\nelsewhere;glioma;reader_1;\ns3;not_usable;Roentgen, W.;\n"
    )
    read = labels.read(path, PATIENT_OF, PAPER)
    assert [(row.slice, row.label, row.reader, row.time) for row in read] == [
        ("s0", "glioma", "reader_1", "2026-01-02T03:04:05"),
        ("s1", "cannot_tell", "reader_2", ""),
        ("s3", "not_usable", "reader_3", ""),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no table"),
        ("slice,label\nelsewhere,glioma\n", "none of its 1 slices is in this dataset"),
        ("slice,label\ns0,tumour\n", "row 2: label 'tumour' is none of encephalitis, glioma, cannot_tell, not_usable"),
        ("slice\ns0\n", "has no column 'label'"),
    ],
)
def test_wrong_table_is_one_line(text, message, tmp_path):
    path = tmp_path / "other.csv"
    if text:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        labels.read(path, PATIENT_OF, PAPER)
