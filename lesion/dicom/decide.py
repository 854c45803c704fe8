"""Decides what becomes of each series: its sequence, whether it is used, and why.

The rules judge a header alone. Here the other series of the visit are heard: whether a T1 whose name says nothing was
scanned after the injection, whether a reformat's source is used already, which visit of a patient is taken.
"""

import collections
import math
from collections.abc import Callable, Iterable, Sequence

from lesion.dicom import SEQUENCES
from lesion.dicom.read import is_axial
from lesion.dicom.rules import NONE, T1, Rules
from lesion.dicom.series import Member, Series
from lesion.dicom.tables import SKIP, UserTables

VISITS = ("first", "all")
MIN_PIXELS = 32  # a side; less is an icon
MAX_VISIT_S = 12 * 3600  # between its series
NOT_LISTED = "not listed in slices.csv"
FACE = "isotropic 3D: a face can be rendered from it (--nofaces)"
FACE_STEP_MM, FACE_HEIGHT_MM = 2.0, 60.0  # slices at most so far apart, over so much of a head at least; a guess
OTHER_SEQUENCE = "not the sequence that is asked for"
_CORRECTED, _UNCORRECTED = {"DIS2D", "DIS3D"}, {"ND"}  # Siemens: with and without distortion correction


def decide(
    found: Sequence[Series],
    user: UserTables,
    rules: Rules,
    visits: str = "first",
    only: str = "",
    faces: bool = True,
) -> list[Series]:
    """Returns the series with `sequence`, `used`, `reason` and `notes` set, in the same order.

    Args:
        found: all series of a folder.
        user: its tables; series.csv goes before the rules, and a user who lists series or slices has chosen planes too.
        rules: the rules that judged the series.
        visits: "first": of each patient the first of the visits with the most sequences; "all": every visit.
        only: the sequence that is asked for; empty for all.
        faces: whether series are used of whose chosen slices a face can be rendered.
    """
    assert visits in VISITS, visits
    judged = _in_groups(found, _visit, lambda visit: [_named(series, visit, user, rules) for series in visit])
    judged = [_choose_slices(_asked_for(series, only), user) for series in judged]
    if not faces:
        judged = [s._replace(used=False, reason=f"{FACE}; {s.reason}") if shows_face(s) else s for s in judged]
    judged = _in_groups(judged, lambda series: (*_visit(series), series.sequence), _count_once)
    return judged if visits == "all" else _in_groups(judged, lambda series: series.patient_id, _take_a_visit)


def _in_groups(
    found: Sequence[Series], key: Callable[[Series], object], change: Callable[[list[Series]], list[Series]]
) -> list[Series]:
    """Changes the series of one key together; the order stays."""
    groups: dict[object, list[int]] = collections.defaultdict(list)
    for index, series in enumerate(found):
        groups[key(series)].append(index)
    result = list(found)
    for indices in groups.values():
        for index, series in zip(indices, change([found[index] for index in indices]), strict=True):
            result[index] = series
    return result


def _visit(series: Series) -> tuple[str, str]:
    return series.patient_id, series.visit


def _named(series: Series, visit: list[Series], user: UserTables, rules: Rules) -> Series:
    """Names the sequence of a series, and says whether it could be used."""
    listed = [user.series[uid] for uid in series.uids if uid in user.series]
    if listed:
        word, row = listed[0]
        sequence = "" if word == SKIP else word
        reason = f"series.csv row {row}" if row else "named by images.csv, or by its file"
        return _usable(series._replace(sequence=sequence, used=bool(sequence), reason=reason))
    verdict = series.verdict
    because = f"{verdict.because} (rule {verdict.rule})" if verdict.rule else verdict.because
    if verdict.sequence == NONE:
        return series._replace(reason=because)
    if verdict.sequence == T1:
        with_agent, why, note = _agent(series, [other for other in visit if other.verdict.sequence == T1], visit)
        because = f"{because}; {why}"
        series = series._replace(notes=(*series.notes, note) if note else series.notes)
        sequence = NONE if with_agent is None else rules.with_agent if with_agent else rules.without_agent
    else:
        sequence = verdict.sequence
    if sequence not in SEQUENCES:
        return series._replace(reason=because)
    series = series._replace(sequence=sequence, used=True, reason=because)
    if not is_axial(series.plane) and user.slices is None:
        return series._replace(used=False, reason=f"sagittal or coronal; {because}")
    if len(series.plane) != 6:
        series = series._replace(notes=(*series.notes, "taken for axial: its header tells no plane"))
    return _usable(series)


def _usable(series: Series) -> Series:
    if series.used and min(series.shape) < MIN_PIXELS:
        rows, columns = series.shape
        return series._replace(used=False, reason=f"too small a picture to tell a head: {rows} × {columns} pixels")
    if series.used and series.spacing is None:
        reason = "PixelSpacing is missing, impossible, or contradicts the field of view"
        return series._replace(used=False, reason=reason)
    return series


def _agent(series: Series, t1s: list[Series], visit: list[Series]) -> tuple[bool | None, str, str]:
    """Tells whether a T1 was scanned after the injection: True, False or None (undecided), why, and what is doubtful.

    Its name goes first, then the times of acquisition and injection, then the other T1 series of the visit, and the
    agent field last: scanners keep it filled for a whole visit, before the injection too.
    """
    by_name, by_field = series.agent
    if by_name is not None:
        return by_name, f"its name says {'with' if by_name else 'without'} agent", ""
    if not by_field:
        return False, "neither its name nor its agent field tells an agent", ""
    times = [time for time in (series.agent_s, *(other.acquired_s for other in visit)) if not math.isnan(time)]
    if times and max(times) - min(times) > MAX_VISIT_S:
        return None, "undecided: the visit's times of day are far apart, as when it goes past midnight", ""
    if not math.isnan(series.agent_s - series.acquired_s):
        after = series.acquired_s >= series.agent_s
        return after, f"acquired {'after' if after else 'before'} the injection by its times", ""
    others = [other for other in t1s if other is not series]
    if any(other.agent.by_name is False and other.acquired_s > series.acquired_s for other in others):
        return False, "acquired before a T1 that is called without agent", ""
    if any(other.agent.by_name is True and other.acquired_s < series.acquired_s for other in others):
        return True, "acquired after a T1 that is called with agent", ""
    silent = [other for other in others if other.agent.by_name is None and other.plane == series.plane]
    if any(other.agent.by_field is False for other in silent):
        return True, "its agent field is filled, that of another T1 is not", ""
    if silent:
        times = [other.acquired_s for other in silent]
        if any(math.isnan(time - series.acquired_s) for time in times):
            return None, "undecided: T1 series of the same name, none of which tells before or after the agent", ""
        first = all(series.acquired_s < time for time in times)
        why = f"the {'first' if first else 'later'} of {len(silent) + 1} alike"
        return not first, why, "with or without agent by the order of acquisition"
    if others and all(other.agent.by_field for other in visit):
        return None, "undecided: the agent field is filled for the whole visit, which has other T1 series", ""
    return True, "its agent field is filled", "by the agent field alone"


def _asked_for(series: Series, only: str) -> Series:
    """Leaves out a series of another sequence than the one that is asked for, if one is."""
    return series._replace(used=False, reason=OTHER_SEQUENCE) if only and series.sequence not in ("", only) else series


def _choose_slices(series: Series, user: UserTables) -> Series:
    """Marks the slices that the user's slices.csv chooses, all where there is none."""
    if not series.used:
        return series
    members = tuple(
        Member(instance, frames, tuple(n for n in frames if user.chooses(instance.sop_uid, n)))
        for instance, frames, _ in series.members
    )
    series = series._replace(members=members)
    return series if series.has_chosen() else series._replace(used=False, reason=NOT_LISTED)


def _count_once(alike: list[Series]) -> list[Series]:
    """Leaves out, of the series of one sequence in one visit, what shows the same slices again."""
    acquired = any(series.used and not series.verdict.reformat for series in alike)
    taken = [series for series in alike if series.used and not (acquired and series.verdict.reformat)]
    reformat = next((series for series in taken if series.verdict.reformat), None)

    def left_out(series: Series) -> str:
        if series.verdict.reformat and acquired:
            return "a reformat; an acquired series of this sequence is used"
        if series.verdict.reformat and series is not reformat:
            return "a reformat; another is used"
        if _values(series) & _UNCORRECTED and any(_is_corrected(other, series) for other in taken):
            return "the same without distortion correction; the corrected one is used"
        return ""

    reasons = [left_out(series) if series.used else "" for series in alike]
    return [
        series._replace(used=False, reason=reason) if reason else series
        for series, reason in zip(alike, reasons, strict=True)
    ]


def _values(series: Series) -> set[str]:
    return {value.upper() for value in series.attributes.image_type}


def _is_corrected(other: Series, series: Series) -> bool:
    """Returns whether `other` is the same series with distortion correction."""
    described = series.attributes.description.lower().removesuffix("_nd")
    return bool(_values(other) & _CORRECTED) and (
        other.attributes.description.lower().startswith(described) and other.positions_mm() == series.positions_mm()
    )


def _take_a_visit(patient: list[Series]) -> list[Series]:
    """Leaves out all visits of a patient but the first of those with the most sequences; pictures tell no visit."""
    sequences: dict[str, set[str]] = collections.defaultdict(set)
    for series in patient:
        if series.used and series.visit:
            sequences[series.visit].add(series.sequence)
    if len(sequences) < 2:
        return patient
    taken = min(sequences, key=lambda visit: (-len(sequences[visit]), visit))
    return [
        series._replace(used=False, reason=f"another visit of the patient is used; {series.reason}")
        if series.used and series.visit not in ("", taken)
        else series
        for series in patient
    ]


def shows_face(series: Series) -> bool:
    """Returns whether a used series is isotropic 3D: of its chosen slices the surface of a head can be rendered."""
    if not series.used or series.spacing is None:
        return False
    heights = {
        round(member.instance.frames[number - 1].position_mm, 1)
        for member in series.members
        for number in member.chosen
    }
    height_mm = max(heights) - min(heights)  # NaN, which is no height, where the header is silent
    step_mm = height_mm / max(1, len(heights) - 1)
    return height_mm >= FACE_HEIGHT_MM and max(step_mm, *series.spacing) <= FACE_STEP_MM


def count_several_visits(judged: Iterable[Series]) -> int:
    """Returns how many patients have used series of several visits."""
    visits = {(series.patient_id, series.visit) for series in judged if series.used}
    return sum(count > 1 for count in collections.Counter(patient_id for patient_id, _ in visits).values())


def count_faces_left_out(judged: Iterable[Series]) -> int:
    """Returns how many series are not used because a face can be rendered from them."""
    return sum(series.reason.startswith(FACE) for series in judged)


def count_visits_left_out(judged: Iterable[Series]) -> int:
    """Returns how many patients have a visit that is not used for another."""
    return len({series.patient_id for series in judged if series.reason.startswith("another visit of")})
