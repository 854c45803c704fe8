import pytest

from lesion.benchmarks import intake
from lesion.dicom import folder, scan


@pytest.mark.slow
def test_a_made_up_visit_is_read_as_its_series_are_called(tmp_path):
    tree = intake.make_tree(tmp_path / "tree", 105, 32)
    user = folder.tables_of_new_patients(tree)
    found = folder.find(tree, tmp_path / "private", scan.list_files(tree, ()), user, folder.Options())
    sequences = [series.sequence for series in found.series]
    assert sequences == ["flair", "ce_t1wi", "t2wi", "", "", "flair"]
    assert [series.num_frames() for series in found.series] == [20, 20, 20, 20, 20, 5]
    assert [series.used for series in found.series] == [True, True, True, False, False, True]


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "cell"), [("json", "12"), ("no_such_package", "not installed")])
def test_every_contender_has_its_turn_and_its_row(peer, cell, monkeypatch):
    # Another process would not know the patches: turns are taken in this one.
    monkeypatch.setattr(intake, "_take", lambda turn: intake._measure(turn.build, turn.tree))
    monkeypatch.setattr(intake, "_peer", lambda source, target: lambda: None)
    monkeypatch.setattr(intake, "PEER", peer)
    monkeypatch.setattr(intake, "SERIES", intake.SERIES[:2])
    monkeypatch.setattr(intake, "SLICES", 3)
    monkeypatch.setattr(intake, "NUM_COMPARED", 12)
    monkeypatch.setattr(intake, "SIZE", 64)
    rows = intake.run([6, 12], 1)
    assert [row[:2] for row in rows[1:]] == [
        ["headers and decisions", "12"],
        ["prepare", "12"],
        [peer, cell],
        ["survey", "6"],
        ["survey", "12"],
    ]
    assert all(float(row[2]) >= 0 and float(row[4]) > 0 for row in rows[1:] if row[2])
    assert {len(row) for row in rows} == {5}
