"""What the answers of a doctor come to: one label a slice, and none that contradict each other in a patient."""

import collections
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lesion.worklist import CONTRADICTION, NO_CLASS, NOT_USABLE

SETTLED_BY = ("ask", "last", "majority")


class Answer(NamedTuple):
    """An answer: slice's id, what was said, and why it was asked again, see `round_file.Round`."""

    slice: str
    label: str
    again: str = ""


def current(answers: Iterable[Answer], patient_of: Mapping[str, str]) -> dict[str, str]:
    """Returns what was said of each slice at last, {slice: label}, the latest answer last.

    An answer to a contradiction counts for all slices of the patient that were said to have a class, unless it is only
    that this slice cannot be used.

    Args:
        answers: in the order in which they were given.
        patient_of: {slice: patient}, at least of the slices that were answered.
    """
    said: dict[str, str] = {}
    for answer in answers:
        said.pop(answer.slice, None)
        if answer.again == CONTRADICTION and answer.label != NOT_USABLE:
            of_patient = [other for other in said if patient_of[other] == patient_of[answer.slice]]
            said |= {other: answer.label for other in of_patient if said[other] not in NO_CLASS}
        said[answer.slice] = answer.label
    return said


def contradictions(said: Mapping[str, str], patient_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns the patients of whom both classes were said, with the slices that have one, the latest answer last."""
    with_class = collections.defaultdict[str, list[str]](list)
    for slice_, label in said.items():
        if label not in NO_CLASS:
            with_class[patient_of[slice_]].append(slice_)
    return {patient: slices for patient, slices in with_class.items() if len({said[s] for s in slices}) > 1}


def settle(said: Mapping[str, str], patient_of: Mapping[str, str], by: str) -> dict[str, str]:
    """Returns {slice: label} in which each patient has one class at most: a disease is the patient's.

    Args:
        said: from `current`.
        patient_of: {slice: patient}, at least of the slices that were answered.
        by: `majority`: the class of more slices, of equally many the later one; `last`, or `ask`, whose question was
            answered by then: the class said last.
    """
    assert by in SETTLED_BY, by
    settled = dict(said)
    for slices in contradictions(said, patient_of).values():
        count = collections.Counter(said[slice_] for slice_ in slices)
        winner = said[slices[-1]]
        if by == "majority" and max(count.values()) > count[winner]:
            winner = count.most_common(1)[0][0]
        settled |= dict.fromkeys(slices, winner)
    return settled
