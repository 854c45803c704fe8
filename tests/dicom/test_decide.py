import math
from pathlib import Path

import pytest

from lesion.dicom.decide import count_faces_left_out, count_several_visits, decide, shows_face
from lesion.dicom.read import Attributes, Frame, Instance
from lesion.dicom.rules import Rules
from lesion.dicom.scan import Scan
from lesion.dicom.series import find_series
from lesion.dicom.tables import UserTables

AXIAL, SAGITTAL, CORONAL = (1.0, 0, 0, 0, 1, 0), (0, 1.0, 0, 0, 0, -1), (1.0, 0, 0, 0, 0, -1)
FLAIR = {"description": "Ax T2 FLAIR", "echo_time_ms": 120, "repetition_time_ms": 9000, "inversion_time_ms": 2400}
T2 = {"description": "Ax T2", "echo_time_ms": 100, "repetition_time_ms": 4000}
T1 = {"description": "Ax T1", "echo_time_ms": 9, "repetition_time_ms": 500}
RULES = Rules()


def instances(uid, height=0.0, patient="P", study="1", date="20200101", plane=AXIAL, at=math.nan, agent_at=math.nan,
              spacing=(0.5, 0.5), slices=3, shape=(512, 512), **attributes):  # fmt: skip
    """A series of single-frame instances, `at` seconds of the day."""
    frame = Frame(1, Attributes(**attributes), plane, spacing, None, (1.0, 0.0), height)
    made = Instance("", patient, uid, "", shape, False, False, False, (), study, date, 1, at, agent_at)
    for number in range(slices):
        sop_uid = f"{uid}.{number}"
        frames = (frame._replace(position_mm=height + 5 * number),)
        yield made._replace(file=f"{patient}/{sop_uid}", sop_uid=sop_uid, frames=frames)


def decided(*series, visits="first", only="", rules=RULES, **user):
    """{first series UID: (sequence, used, reason)}."""
    tables = UserTables({}, user.get("slices"), user.get("series", {}), {})
    scanned = Scan([instance for one_series in series for instance in one_series], [], [], {})
    found = find_series(Path(), scanned, rules)
    return {s.uids[0]: (s.sequence, s.used, s.reason) for s in decide(found, tables, rules, visits, only)}


def used(*series, **options):
    return {uid: sequence for uid, (sequence, is_used, _) in decided(*series, **options).items() if is_used}


@pytest.mark.parametrize(
    ("slices", "step_mm", "spacing", "shown"),
    [(160, 1, 1.0, True), (3, 40, 1.0, False), (20, 5, 0.5, False), (40, 1, 1.0, False), (160, 1, 3.0, False)],
)
def test_series_of_which_a_face_can_be_rendered_are_told_and_left_out(slices, step_mm, spacing, shown):
    series = list(instances("a", spacing=(spacing,) * 2, slices=slices, **FLAIR))
    series = [i._replace(frames=(i.frames[0]._replace(position_mm=step_mm * n),)) for n, i in enumerate(series)]
    found, none = find_series(Path(), Scan(series, [], [], {}), RULES), UserTables({}, None, {}, {})
    (told,), (judged,) = decide(found, none, RULES), decide(found, none, RULES, faces=False)
    assert told.used and shows_face(told) == shown == (not judged.used) == count_faces_left_out([judged])
    assert ("--nofaces" in judged.reason) == shown
    few = UserTables({}, {(f"a.{n}", None): 2 for n in range(3)}, {}, {})  # no face, whatever else was scanned
    assert all(series.used for series in decide(found, few, RULES, faces=False))


WITH_AGENT = {**T1, "agent": "Gadovist"}
VISITS = {  # of a visit's T1 series: (their attributes, the UIDs of those with agent)
    "a lone one with its field filled": ({"a": WITH_AGENT}, "a"),
    "two alike in order": ({"a": {**WITH_AGENT, "at": 100}, "b": {**WITH_AGENT, "at": 900}}, "b"),
    "two alike, nobody knows": ({"a": WITH_AGENT, "b": WITH_AGENT}, ""),
    "one field is filled": ({"a": T1, "b": WITH_AGENT}, "b"),
    "by the injection": (
        {"a": {**WITH_AGENT, "at": 100, "agent_at": 500}, "b": {**WITH_AGENT, "at": 900, "agent_at": 500}},
        "b",
    ),
    "past midnight": ({"a": {**WITH_AGENT, "at": 86000}, "b": {**WITH_AGENT, "at": 600}}, ""),
    "before one called pre": (
        {"a": {**WITH_AGENT, "at": 10}, "b": {**WITH_AGENT, "at": 20, "description": "Ax T1 pre"}},
        "",
    ),
    "after one called post": (
        {"a": {**WITH_AGENT, "at": 30}, "b": {**WITH_AGENT, "at": 20, "description": "Ax T1 post"}},
        "ab",
    ),
    "before one called post, nobody knows": (
        {"a": {**WITH_AGENT, "at": 10}, "b": {**WITH_AGENT, "at": 20, "description": "T1 post"}},
        "b",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VISITS)
def test_a_silent_name_is_decided_by_the_other_series_of_the_visit(name):
    visit, with_agent = VISITS[name]
    assert used(*(instances(uid, **fields) for uid, fields in visit.items())) == dict.fromkeys(with_agent, "ce_t1wi")
    # Another visit, and another patient, say nothing.
    others = [instances(f"{uid}9", **{**fields, "patient": "Q"}) for uid, fields in visit.items()]
    both = used(*(instances(uid, **fields) for uid, fields in visit.items()), *others)
    assert set(both) == set(with_agent) | {f"{uid}9" for uid in with_agent}


def test_planes_spacings_and_echoes():
    answers = decided(
        instances("axial", **T2),
        instances("sagittal", plane=SAGITTAL, **FLAIR),
        instances("unknown", plane=(), **FLAIR),
        instances("no spacing", spacing=None, **FLAIR),
        instances("icon", shape=(16, 64), **FLAIR),
        instances("early", **{**T2, "echo_time_ms": 15}),
        *(instances("map", **{**T2, "echo_time_ms": echo}) for echo in (60, 80, 100)),
    )
    assert [uid for uid, (_, is_used, _) in answers.items() if is_used] == ["axial", "unknown"]
    assert answers["sagittal"][0] == "flair" and "sagittal" in answers["sagittal"][2]
    assert "16 × 64 pixels" in answers["icon"][2]
    assert "PixelSpacing" in answers["no spacing"][2] and "3 echoes" in answers["map"][2]
    assert used(instances("s", plane=SAGITTAL, **FLAIR), slices={("s.0", None): 2}) == {"s": "flair"}


def test_planning_scans_and_series_in_time_do_not_enter_whatever_they_are_called():
    repeated = [instances("time", **{**WITH_AGENT, "description": "Ax T1 vibe"}) for _ in range(3)]
    planes = [instances("planes", plane=plane, **T2) for plane in (AXIAL, SAGITTAL, CORONAL)]
    twice = [instances("again", **FLAIR) for _ in range(2)]
    answers = decided(*repeated, *planes, *twice)
    assert {uid: is_used for uid, (_, is_used, _) in answers.items()} == {"time": False, "planes": False, "again": True}
    assert "9 slices at 3 heights" in answers["time"][2] and "three planes" in answers["planes"][2]
    two_names = [instances("one", **T2), *(instances("one", plane=p, **FLAIR) for p in (SAGITTAL, CORONAL))]
    assert "three planes" not in decided(*two_names)["one"][2]  # series to which an anonymiser gave one UID


def test_both_echoes_of_a_series_are_rows_and_the_late_one_is_t2():
    scanned = [*instances("d", **{**T2, "echo_time_ms": 15}), *instances("d", **T2)]
    found = find_series(Path(), Scan(scanned, [], [], {}), RULES)
    assert [(s.uids, s.attributes.echo_time_ms, s.verdict.sequence) for s in found] == [
        (("d",), 15, "none"),
        (("d",), 100, "t2wi"),
    ]


REFORMAT = ("DERIVED", "SECONDARY", "REFORMATTED")


def test_a_reformat_counts_once_and_only_where_nothing_axial_was_acquired():
    source = instances("source", plane=SAGITTAL, **FLAIR)
    twice = [instances(f"reformat{i}", image_type=REFORMAT, **FLAIR) for i in range(2)]
    assert used(source, *twice) == {"reformat0": "flair"}
    twice = [instances(f"reformat{i}", image_type=REFORMAT, **FLAIR) for i in range(2)]
    assert used(instances("acquired", **FLAIR), *twice) == {"acquired": "flair"}


def test_of_a_series_with_and_without_distortion_correction_one_counts():
    pair = [instances("nd", image_type=("ORIGINAL", "PRIMARY", "M", "ND"), **{**T2, "description": "t2_tra_ND"})]
    pair += [instances("dis", image_type=("ORIGINAL", "PRIMARY", "M", "DIS2D"), **{**T2, "description": "t2_tra"})]
    assert used(*pair) == {"dis": "t2wi"}


def test_the_first_complete_visit_is_taken():
    first = [instances("a", date="20200101", study="1", **FLAIR)]
    second = [instances(f"b{i}", date="20200301", study="2", **fields) for i, fields in enumerate((FLAIR, T2))]
    third = [instances(f"c{i}", date="20200401", study="3", **fields) for i, fields in enumerate((FLAIR, T2))]
    made = [list(series) for series in (*first, *second, *third)]
    assert used(*made) == {"b0": "flair", "b1": "t2wi"}
    assert set(used(*made, visits="all")) == {"a", "b0", "b1", "c0", "c1"}
    for visits, several in (("first", 0), ("all", 1)):
        found = find_series(Path(), Scan([i for series in made for i in series], [], [], {}), RULES)
        assert count_several_visits(decide(found, UserTables({}, None, {}, {}), RULES, visits)) == several
    assert "another visit" in decided(*made)["a"][2]
    assert used(*made, only="flair") == {"a": "flair"}  # who asks for one sequence misses no other


def test_slices_that_have_a_series_uid_each_are_one_series():
    slices = [series for i in range(4) for series in instances(f"u{i}", height=5.0 * i, slices=1, **T2)]
    (found,) = find_series(Path(), Scan(slices, [], [], {}), RULES)
    assert found.uids == ("u0", "u1", "u2", "u3") and found.num_frames() == 4 and "4 slices" in found.notes[0]
    twice = [series for i in range(4) for series in instances(f"u{i}", height=5.0 * (i % 2), slices=1, **T2)]
    assert len(find_series(Path(), Scan(twice, [], [], {}), RULES)) == 4  # two series, and nobody knows which is which


def test_series_csv_goes_before_the_rules():
    table = {"a": ("t2wi", 2), "b": ("skip", 3)}
    answers = decided(instances("a", plane=SAGITTAL, **T1), instances("b", **FLAIR), series=table)
    assert answers == {"a": ("t2wi", True, "series.csv row 2"), "b": ("", False, "series.csv row 3")}


def test_patients_who_share_series_are_kept_apart():
    shared = [instances("s", patient=patient, **T2) for patient in "PQ"]
    found = find_series(Path(), Scan([i for series in shared for i in series], [], [], {}), RULES)
    assert [(s.patient_id, s.num_frames(), s.shares_uids) for s in found] == [("P", 3, True), ("Q", 3, True)]
