"""Chooses the slices of a Grad-CAM sheet by a rule, so that nobody picks the ones that please."""

from collections.abc import Iterable
from typing import NamedTuple

WRONG, UNSURE, RIGHT = "wrong", "least sure", "right"
EACH = 4  # slices of a class and reason


class Prediction(NamedTuple):
    """A row of predictions.csv: `label` 0 encephalitis or 1 glioma, `probability` of glioma."""

    fold: int
    patient: str
    slice: str
    label: int
    probability: float


class Chosen(NamedTuple):
    """A slice to show, and the reason: `right`, `wrong` or `least sure`."""

    why: str
    prediction: Prediction


def choose(predictions: Iterable[Prediction], each: int = EACH) -> list[Chosen]:
    """Chooses for either class the slices most confidently wrong, those least sure, and those most confidently right.

    A patient is shown once at most. Wrong slices are chosen first, as they are rarest, then the least sure, then the
    right ones; of slices equally sure, that of the lower pseudonym.

    Args:
        predictions: predictions for all slices with a label.
        each: most slices of a class and reason.

    Returns:
        The choices by class, then right, wrong, least sure, then in the order chosen.
    """
    rows = list(predictions)
    seen: set[str] = set()
    chosen: dict[tuple[int, str], list[Chosen]] = {}
    for why in (WRONG, UNSURE, RIGHT):
        for label in (0, 1):
            fitting = [r for r in rows if r.label == label and (why == UNSURE or is_right(r) == (why == RIGHT))]
            chosen[label, why] = []
            for row in sorted(fitting, key=lambda row: _rank(row, why)):
                if row.patient not in seen and len(chosen[label, why]) < each:
                    seen.add(row.patient)
                    chosen[label, why].append(Chosen(why, row))
    return [choice for label in (0, 1) for why in (RIGHT, WRONG, UNSURE) for choice in chosen[label, why]]


def is_right(row: Prediction) -> bool:
    """Returns whether the predicted class is the label; as everywhere, glioma is predicted above one half."""
    return (row.probability > 0.5) == (row.label == 1)


def _rank(row: Prediction, why: str) -> tuple[float, str, str]:
    sure = abs(row.probability - 0.5)
    return sure if why == UNSURE else -sure, row.patient, row.slice
