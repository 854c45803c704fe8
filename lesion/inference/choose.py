"""Which slices a Grad-CAM sheet shows: by a rule, so that nobody picks the ones that please."""

from collections.abc import Iterable
from typing import NamedTuple

WRONG, UNSURE, RIGHT = "wrong", "least sure", "right"
EACH = 4


class Prediction(NamedTuple):
    """A row of predictions.csv: `label` 0 encephalitis or 1 glioma, `probability` of glioma."""

    fold: int
    patient: str
    slice: str
    label: int
    probability: float


class Chosen(NamedTuple):
    """A slice to be shown, and why: `right`, `wrong` or `least sure`."""

    why: str
    prediction: Prediction


def choose(predictions: Iterable[Prediction], each: int = EACH) -> list[Chosen]:
    """Chooses for either class the slices most confidently wrong, those least sure, and those most confidently right.

    A patient is shown once at most. Wrong ones are chosen first, as they are rarest, then the least sure, then the
    right; of slices equally sure, that of the lower pseudonym.

    Args:
        predictions: of all slices with a label.
        each: at most so many of a class and reason.

    Returns:
        Sorted by class, then right, wrong, least sure, then in the order chosen.
    """
    rows = list(predictions)
    seen: set[str] = set()
    found: dict[tuple[int, str], list[Chosen]] = {}
    for why in (WRONG, UNSURE, RIGHT):
        for label in (0, 1):
            fitting = [r for r in rows if r.label == label and (why == UNSURE or is_right(r) == (why == RIGHT))]
            found[label, why] = []
            for row in sorted(fitting, key=lambda row: _rank(row, why)):
                if row.patient not in seen and len(found[label, why]) < each:
                    seen.add(row.patient)
                    found[label, why].append(Chosen(why, row))
    return [choice for label in (0, 1) for why in (RIGHT, WRONG, UNSURE) for choice in found[label, why]]


def is_right(row: Prediction) -> bool:
    """Returns whether a slice is called what it is; as everywhere, glioma above one half."""
    return (row.probability > 0.5) == (row.label == 1)


def _rank(row: Prediction, why: str) -> tuple[float, str, str]:
    sure = abs(row.probability - 0.5)
    return sure if why == UNSURE else -sure, row.patient, row.slice
