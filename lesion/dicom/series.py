"""Gathers the frames of a scanned folder into series: the rows of series_found.csv, and what is rendered together."""

import collections
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lesion.dicom.read import Attributes, Instance, plane_name
from lesion.dicom.rules import NONE, Agent, Rules, Verdict
from lesion.dicom.scan import Scan

MAX_ECHOES = 2  # of one series; with more it was scanned for a map
MAX_TIMES = 2  # of a slice in one series; the same twice may be one that was sent again


class Member(NamedTuple):
    """An instance of a series, the numbers of its frames in the series, and those of them that are chosen."""

    instance: Instance
    frames: tuple[int, ...]
    chosen: tuple[int, ...] = ()


class Series(NamedTuple):
    """Frames of one series that share plane, spacing, matrix and verdict: what is windowed and cropped together.

    A series with two echoes, or of several planes, is several of these.

    Attributes:
        folder: the scanned folder.
        patient_id: whose series it is.
        visit: the study's date, or its UID where it has no date.
        study_uid: StudyInstanceUID.
        study_date: YYYYMMDD, or empty.
        uids: SeriesInstanceUID; several where a scanner gave every slice one of its own.
        shape: rows and columns.
        plane: direction cosines, see `lesion.dicom.read.Frame`.
        spacing: row and column spacing, mm; None where it is not known.
        attributes: of its first frame.
        verdict: what the rules say.
        agent: what its header says of an agent.
        acquired_s: time of day of the first acquisition, seconds, or NaN.
        agent_s: time of day of the injection, seconds, or NaN.
        members: the instances, by file.
        duplicates: further files of an instance, by SOPInstanceUID, for where its pixels cannot be decoded.
        shares_uids: whether other patients have instances of the same SOPInstanceUID.
        sequence: a key of `SEQUENCES`, or empty.
        used: whether its slices go into the dataset.
        reason: why it is what it is, or why it is not used.
        notes: what was doubtful or put right.
    """

    folder: str
    patient_id: str
    visit: str
    study_uid: str
    study_date: str
    uids: tuple[str, ...]
    shape: tuple[int, int]
    plane: tuple[float, ...]
    spacing: tuple[float, float] | None
    attributes: Attributes
    verdict: Verdict
    agent: Agent
    acquired_s: float
    agent_s: float
    members: tuple[Member, ...]
    duplicates: dict[str, list[Instance]]
    shares_uids: bool = False
    sequence: str = ""
    used: bool = False
    reason: str = ""
    notes: tuple[str, ...] = ()

    def positions_mm(self) -> list[float]:
        """Returns where its slices lie along their normal, mm, sorted; NaN where the header is silent."""
        frames = (member.instance.frames[number - 1] for member in self.members for number in member.frames)
        return sorted(round(frame.position_mm, 1) for frame in frames)

    def num_frames(self) -> int:
        """Returns the number of its slices."""
        return sum(len(member.frames) for member in self.members)

    def may_hold_text(self) -> bool:
        """Returns whether text may be burned into a chosen slice, see `lesion.dicom.read.Instance`."""
        return any(member.instance.may_hold_text for member in self.members if member.chosen)

    def has_chosen(self) -> bool:
        """Returns whether any of its slices is chosen."""
        return any(member.chosen for member in self.members)


def find_series(folder: Path, scanned: Scan, rules: Rules) -> list[Series]:
    """Returns the series of a scanned folder, by patient, visit, acquisition and UID; nothing is decided yet."""
    groups: dict[tuple, list[Member]] = collections.defaultdict(list)
    for instance in scanned.instances:
        frames: dict[tuple, list[int]] = collections.defaultdict(list)
        for frame in instance.frames:
            verdict, echo_ms = rules.classify(frame.attributes), frame.attributes.echo_time_ms
            agent = rules.find_agent(frame.attributes)
            echo_ms = None if echo_ms is None else round(echo_ms)
            frames[frame.plane, frame.spacing, verdict, agent, echo_ms].append(frame.number)
        owner = instance.patient_id, instance.study_uid, instance.series_uid, instance.shape
        for key, numbers in frames.items():
            groups[*owner, *key].append(Member(instance, tuple(numbers)))
    shared = scanned.shared_uids()
    found = [_series(folder, members, scanned, rules, shared) for members in groups.values()]
    return sorted(_without_stacks_of_other_kinds(_merged(found)), key=_order)


def _order(series: Series) -> tuple:
    acquired_s = math.inf if math.isnan(series.acquired_s) else series.acquired_s
    echo_ms = series.attributes.echo_time_ms or 0.0
    return series.patient_id, series.visit, acquired_s, series.uids, echo_ms, series.plane, series.shape


def _series(folder: Path, members: Sequence[Member], scanned: Scan, rules: Rules, shared: set[str]) -> Series:
    instance = members[0].instance
    frame = instance.frames[members[0].frames[0] - 1]
    times = [member.instance.acquired_s for member in members if not math.isnan(member.instance.acquired_s)]
    keys = {uid: (instance.patient_id, uid) for uid in (member.instance.sop_uid for member in members)}
    return Series(
        folder=str(folder),
        patient_id=instance.patient_id,
        visit=instance.study_date or instance.study_uid,
        study_uid=instance.study_uid,
        study_date=instance.study_date,
        uids=tuple(sorted({member.instance.series_uid for member in members})),
        shape=instance.shape,
        plane=frame.plane,
        spacing=frame.spacing,
        attributes=frame.attributes,
        verdict=rules.classify(frame.attributes),
        agent=rules.find_agent(frame.attributes),
        acquired_s=min(times, default=math.nan),
        agent_s=instance.agent_s,
        members=tuple(members),
        duplicates={uid: scanned.duplicates[key] for uid, key in keys.items() if key in scanned.duplicates},
        shares_uids=not shared.isdisjoint(keys),
        notes=(frame.repaired,) if frame.repaired else (),
    )


def _merged(found: Iterable[Series]) -> list[Series]:
    """Joins series of one slice each that differ in nothing but UID and height: some scanners number slices so."""
    alike: dict[tuple, list[Series]] = collections.defaultdict(list)
    result = []
    for series in found:
        if series.num_frames() == 1:
            key = series.patient_id, series.visit, series.shape, series.plane, series.spacing, series.attributes
            alike[key].append(series)
        else:
            result.append(series)
    for group in alike.values():
        heights = [series.positions_mm()[0] for series in group]
        if len(group) == 1 or len(set(heights)) < len(group) or any(map(math.isnan, heights)):
            result += group
            continue
        result.append(
            group[0]._replace(
                uids=tuple(sorted(uid for series in group for uid in series.uids)),
                members=tuple(member for series in group for member in series.members),
                duplicates={uid: files for series in group for uid, files in series.duplicates.items()},
                acquired_s=min((s.acquired_s for s in group if not math.isnan(s.acquired_s)), default=math.nan),
                notes=(*group[0].notes, f"{len(group)} slices with a series UID each, taken for one series"),
            )
        )
    return result


def _without_stacks_of_other_kinds(found: Sequence[Series]) -> list[Series]:
    """Turns down series that are no stack of slices at one time, whatever they are called.

    More than two echoes were scanned for a map of T2, all three planes for planning, and the same slices again and
    again follow the agent, from before it came. An anonymiser may give several series one UID: the name is heeded.
    """
    echoes, planes = collections.defaultdict(set), collections.defaultdict(set)
    for series in found:
        echoes[_name(series)].add(series.attributes.echo_time_ms)
        planes[_name(series)].add(plane_name(series.plane))
    result = []
    for series in found:
        heights = series.positions_mm()
        if (num_echoes := len(echoes[_name(series)])) > MAX_ECHOES:
            verdict = Verdict(NONE, "many echoes", f"one of {num_echoes} echoes, scanned for a map")
        elif series.verdict.sequence != NONE and planes[_name(series)] >= {"axial", "sagittal", "coronal"}:
            verdict = Verdict(NONE, "three planes", "slices in all three planes, a planning scan")
        elif series.verdict.sequence != NONE and len(heights) > MAX_TIMES * len(set(heights)) > MAX_TIMES:
            because = f"{len(heights)} slices at {len(set(heights))} heights, a series in time"
            verdict = Verdict(NONE, "repeated slices", because)
        else:
            verdict = series.verdict
        result.append(series._replace(verdict=verdict))
    return result


def _name(series: Series) -> tuple:
    return series.patient_id, series.uids, series.attributes.description
