"""worklist.csv: what comes out as a table comes back as answers, and what is wrong in it is named by its row."""

import csv

import example_round
import pytest

from lesion.errors import UserError
from lesion.worklist import csv_file, journal, round_file
from lesion.worklist.journal import PAGE, Entry


@pytest.fixture
def this(tmp_path):
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


def answers(workdir, this):
    return round_file.answers(this, journal.read(workdir / "annotate"))


@pytest.fixture
def listed(this, tmp_path):
    return round_file.folder_of(tmp_path, 0) / csv_file.FILE


def test_it_names_the_slices_in_the_order_of_reading(this, listed):
    with open(listed, newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == csv_file.HEADER
    assert [row["slice"] for row in rows] == example_round.IDS
    assert [row["patient"] for row in rows] == ["PA"] * 3 + ["PB"] * 2
    assert not any(row["label"] for row in rows)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_filled_in_parts_in_any_order_it_comes_back_once(delimiter, this, listed, tmp_path):
    half = fill(listed, ["Glioma", "skip", ""], delimiter=delimiter, change=lambda rows: rows[::-1][2:])
    assert "2 new answers; 3 of 5" in round_file.take(tmp_path, this, half)
    assert answers(tmp_path, this) == {"s0": "glioma", "s1": "skip"}
    assert "0 new answers" in round_file.take(tmp_path, this, half)
    whole = fill(listed, example_round.LABELS)  # what came from a worklist may be corrected in it
    assert "4 new answers; all are answered" in round_file.take(tmp_path, this, whole)
    assert tuple(answers(tmp_path, this).values()) == example_round.LABELS


WRONG = {
    "a word": (["glioma", "tumour"], None, r"row 3: label 'tumour' is none of encephalitis, glioma, skip"),
    "a number": (["1"], None, r"row 2: label '1' is none"),
    "an unknown id": (["glioma"], lambda rows: [*rows, {"slice": "s9", "label": "glioma"}], r"row 7: slice 's9'"),
    "two answers": (
        ["glioma"],
        lambda rows: [*rows, {"slice": "s0", "label": "encephalitis"}],
        r"row 7: encephalitis, but row 2 says glioma of the same slice",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_by_row_and_nothing_is_taken(case, this, listed, tmp_path):
    labels, change, message = WRONG[case]
    path = fill(listed, labels, change=change or (lambda rows: rows))
    with pytest.raises(UserError, match=message):
        round_file.take(tmp_path, this, path)
    assert not (tmp_path / "annotate" / journal.FILE).exists()


def test_the_page_and_a_worklist_that_say_different_things_are_not_mixed(this, listed, tmp_path):
    said = Entry("e0", 0, "s1", "glioma", PAGE)
    journal.add(tmp_path / "annotate", lambda held: [said])
    with pytest.raises(UserError, match=r"row 3: encephalitis, but the page was told glioma"):
        round_file.take(tmp_path, this, fill(listed, example_round.LABELS))
    assert answers(tmp_path, this) == {"s1": "glioma"}
    agreed = ["glioma", "glioma", *example_round.LABELS[2:]]
    round_file.take(tmp_path, this, fill(listed, agreed))
    assert len(answers(tmp_path, this)) == 5


def test_two_worklists_do_not_overwrite_each_other_and_one_may_correct_itself(this, listed, tmp_path):
    filled = fill(listed, ["glioma", "skip"])
    other = filled.rename(filled.with_name("other.csv"))
    round_file.take(tmp_path, this, other)
    with pytest.raises(UserError, match=r"row 2: encephalitis, but another worklist said glioma"):
        round_file.take(tmp_path, this, fill(listed, ["encephalitis"]))
    assert "0 new answers" in round_file.take(tmp_path, this, fill(listed, ["glioma"]))
    assert "0 new answers" in round_file.take(tmp_path, this, fill(listed, [""]))  # it never said so first
    assert answers(tmp_path, this) == {"s0": "glioma", "s1": "skip"}
    fill(listed, ["encephalitis", ""]).rename(other)
    assert "2 new answers; 4 of 5" in round_file.take(tmp_path, this, other)
    assert answers(tmp_path, this) == {"s0": "encephalitis"}  # an emptied cell takes back


def test_a_closed_round_takes_nothing_new(this, listed, tmp_path):
    path = fill(listed, example_round.LABELS)
    round_file.take(tmp_path, this, path)
    round_file.close(tmp_path, this)
    assert "0 new answers" in round_file.take(tmp_path, this, path)
    with pytest.raises(UserError, match="round 1 is closed"):
        round_file.take(tmp_path, this, fill(listed, ["skip", *example_round.LABELS[1:]]))


def test_without_a_round_or_with_a_damaged_one_it_is_one_line(this, tmp_path):
    with pytest.raises(UserError, match=r"begin with launch\.active"):
        round_file.newest(tmp_path / "elsewhere")
    (round_file.folder_of(tmp_path, 0) / round_file.FILE).write_text("{}")
    (tmp_path / "annotate/round_001.zip").touch()  # sent to somebody: no round
    with pytest.raises(UserError, match="is damaged: remove"):
        round_file.newest(tmp_path)
