"""worklist.csv: a filled-in table comes back as answers, and each mistake in it is named by its row."""

import csv

import example_round
import pytest

from lesion.errors import UserError
from lesion.worklist import csv_file, journal, round_file
from lesion.worklist.journal import PAGE, Entry


@pytest.fixture
def round_(tmp_path):
    return example_round.write(tmp_path)


def fill(path, labels, *, delimiter=",", change=lambda rows: rows):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row, label in zip(rows, labels, strict=False):
        row["label"] = label
    filled = path.with_name("filled.csv")
    with open(filled, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, [*rows[0], "remark"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(change(rows))
    return filled


def answers(workdir, round_):
    return round_file.answers(round_, journal.read(workdir / "annotate"))


@pytest.fixture
def worklist(round_, tmp_path):
    return round_file.folder_of(tmp_path, 0) / csv_file.FILE


def test_slices_are_named_in_the_order_of_reading(round_, worklist):
    with open(worklist, newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == csv_file.HEADER
    assert [row["slice"] for row in rows] == example_round.IDS
    assert [row["patient"] for row in rows] == ["PA"] * 3 + ["PB"] * 2
    assert not any(row["label"] for row in rows)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_partly_filled_and_reordered_worklists_are_imported_once(delimiter, round_, worklist, tmp_path):
    half = fill(worklist, ["Glioma", "cannot_tell", ""], delimiter=delimiter, change=lambda rows: rows[::-1][2:])
    assert "2 new answers; 3 of 5" in round_file.import_worklist(tmp_path, round_, half)
    assert answers(tmp_path, round_) == {"s0": "glioma", "s1": "cannot_tell"}
    assert "0 new answers" in round_file.import_worklist(tmp_path, round_, half)
    whole = fill(worklist, example_round.LABELS)  # a worklist's answers may be corrected in it
    assert "4 new answers; all are answered" in round_file.import_worklist(tmp_path, round_, whole)
    assert tuple(answers(tmp_path, round_).values()) == example_round.LABELS


MISTAKES = {
    "a word": (["glioma", "tumour"], None, r"row 3: label 'tumour' is none of encephalitis, glioma, cannot_tell"),
    "a number": (["1"], None, r"row 2: label '1' is none"),
    "an unknown id": (["glioma"], lambda rows: [*rows, {"slice": "s9", "label": "glioma"}], r"row 7: slice 's9'"),
    "two answers": (
        ["glioma"],
        lambda rows: [*rows, {"slice": "s0", "label": "encephalitis"}],
        r"row 7: encephalitis, but row 2 says glioma of the same slice",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_is_named_by_row_and_nothing_is_imported(case, round_, worklist, tmp_path):
    labels, change, message = MISTAKES[case]
    path = fill(worklist, labels, change=change or (lambda rows: rows))
    with pytest.raises(UserError, match=message):
        round_file.import_worklist(tmp_path, round_, path)
    assert not (tmp_path / "annotate" / journal.FILE).exists()


def test_worklist_that_contradicts_the_page_is_refused(round_, worklist, tmp_path):
    given = Entry("e0", 0, "s1", "glioma", PAGE)
    journal.add(tmp_path / "annotate", lambda state: [given])
    with pytest.raises(UserError, match=r"row 3: encephalitis, but the page says glioma"):
        round_file.import_worklist(tmp_path, round_, fill(worklist, example_round.LABELS))
    assert answers(tmp_path, round_) == {"s1": "glioma"}
    agreed = ["glioma", "glioma", *example_round.LABELS[2:]]
    round_file.import_worklist(tmp_path, round_, fill(worklist, agreed))
    assert len(answers(tmp_path, round_)) == 5


def test_worklist_corrects_its_own_answers_but_not_another_worklists(round_, worklist, tmp_path):
    filled = fill(worklist, ["glioma", "cannot_tell"])
    other = filled.rename(filled.with_name("other.csv"))
    round_file.import_worklist(tmp_path, round_, other)
    with pytest.raises(UserError, match=r"row 2: encephalitis, but another worklist says glioma"):
        round_file.import_worklist(tmp_path, round_, fill(worklist, ["encephalitis"]))
    assert "0 new answers" in round_file.import_worklist(tmp_path, round_, fill(worklist, ["glioma"]))
    assert "0 new answers" in round_file.import_worklist(
        tmp_path, round_, fill(worklist, [""])
    )  # the answer came from another file
    assert answers(tmp_path, round_) == {"s0": "glioma", "s1": "cannot_tell"}
    fill(worklist, ["encephalitis", ""]).rename(other)
    told = round_file.import_worklist(tmp_path, round_, other)
    assert "1 new answers; 1 emptied cells change nothing: the word undo there takes the answer back; 3 of 5" in told
    assert answers(tmp_path, round_) == {"s0": "encephalitis", "s1": "cannot_tell"}
    for back in ("1 taken back", "0 new answers; 4 of 5"):  # read again, it finds nothing to do
        fill(worklist, ["encephalitis", "undo", "undo"]).rename(other)
        assert back in round_file.import_worklist(tmp_path, round_, other)
        assert answers(tmp_path, round_) == {"s0": "encephalitis"}
    fill(worklist, ["undo"]).rename(other)  # it said two things of it, one after the other
    assert "2 taken back; 5 of 5" in round_file.import_worklist(tmp_path, round_, other)


def test_who_answered_and_how_long_it_took_come_along_but_no_name(round_, worklist, tmp_path):
    columns = "slice,label,reader,seconds\ns0,glioma,Dr. Roentgen,12.5\ns1,glioma,reader_1,\ns2,not_usable,,0\n"
    filled = tmp_path / "other_tool.csv"
    filled.write_text(columns)
    round_file.import_worklist(tmp_path, round_, filled)
    state = journal.read(tmp_path / "annotate")
    given = [(entry.reader, entry.seconds) for entry in round_file.entries(round_, state)]
    assert given == [("reader_2", 12.5), ("reader_1", None), ("", 0.0)]
    assert "Roentgen" not in (tmp_path / "annotate" / journal.FILE).read_text()
    for seconds in ("soon", "-1", "nan", "inf"):
        filled.write_text(f"slice,label,seconds\ns3,glioma,{seconds}\n")
        with pytest.raises(UserError, match="row 2: seconds is not a number from 0"):
            round_file.import_worklist(tmp_path, round_, filled)


def test_a_run_that_was_moved_knows_its_own_worklist(tmp_path):
    old, new = tmp_path / "run", tmp_path / "elsewhere" / "a run #1"
    example_round.write(old)
    path = round_file.folder_of(old, 0) / csv_file.FILE
    round_file.import_worklist(old, round_file.newest(old), fill(path, example_round.LABELS))
    new.parent.mkdir()
    old.rename(new)
    moved = round_file.newest(new)
    corrected = fill(round_file.folder_of(new, 0) / csv_file.FILE, ["encephalitis", "", *example_round.LABELS[2:]])
    told = round_file.import_worklist(new, moved, corrected)
    assert "1 new answers; 1 emptied cells change nothing" in told and answers(new, moved)["s0"] == "encephalitis"


def test_closed_round_takes_nothing_new(round_, worklist, tmp_path):
    path = fill(worklist, example_round.LABELS)
    round_file.import_worklist(tmp_path, round_, path)
    round_file.close(tmp_path, round_)
    assert "0 new answers" in round_file.import_worklist(tmp_path, round_, path)
    with pytest.raises(UserError, match="round 1 is closed"):
        round_file.import_worklist(tmp_path, round_, fill(worklist, ["cannot_tell", *example_round.LABELS[1:]]))
