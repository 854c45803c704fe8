"""What the sections on calibration and comparison are made of: scored runs with a name, and readers' calls."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from lesion.report import paper


class Scored(Protocol):
    """Any record of cross-validated predictions; see `read.Transfer` for the columns.

    `model` is the title that tables and figures print.
    """

    @property
    def model(self) -> str:
        """What it is called."""

    @property
    def sequence(self) -> str:
        """flair, ce_t1wi, t2wi or another name; only runs of one are compared."""

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json."""

    @property
    def patient(self) -> np.ndarray:
        """str [N]."""

    @property
    def label(self) -> np.ndarray:
        """int64 [N] in {0, 1}."""

    @property
    def probability(self) -> np.ndarray:
        """float64 [N] of glioma."""


class Reader(NamedTuple):
    """What one reader said.

    Attributes:
        name: the pseudonym, as printed.
        patient: str [P], pseudonyms.
        call: int64 [P] in {0, 1}.
    """

    name: str
    patient: np.ndarray
    call: np.ndarray


Run = TypeVar("Run", bound=Scored)


def columns(run: Scored) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(label, probability, patient), as `lesion.metrics` takes them."""
    return run.label, run.probability, run.patient


def by_sequence(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each sequence in their order, sequences in the paper's order."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.sequence, []).append(run)
    known = list(paper.TITLES)
    return dict(sorted(found.items(), key=lambda item: known.index(item[0]) if item[0] in known else len(known)))


def identifier(*words: object) -> str:
    """An id for a figure: letters, digits and hyphens, a letter first."""
    text = "-".join(map(str, words))
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)


def verdicts(said: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Groups (verdict, name) by verdict, in the order in which they come up; the verdict begins a sentence."""
    found: dict[str, list[str]] = {}
    for verdict, name in said:
        found.setdefault(verdict[:1].upper() + verdict[1:], []).append(name)
    return list(found.items())


def readers(rows: Sequence[dict[str, str]]) -> list[Reader]:
    """Readers from the rows of readers.csv (patient,reader,label), in the order of their names.

    Raises:
        ValueError: a label that is neither 0 nor 1, or a reader with two calls for one patient.
    """
    result = []
    for name in sorted({row["reader"] for row in rows}, key=lambda name: (len(name), name)):
        own = {row["patient"]: int(row["label"]) for row in rows if row["reader"] == name}
        if len(own) < sum(row["reader"] == name for row in rows):
            raise ValueError(f"readers.csv has two answers of {name} for one patient")
        if not set(own.values()) <= {0, 1}:
            raise ValueError("readers.csv has a label that is neither 0 nor 1")
        result.append(Reader(name.replace("_", " "), np.array(list(own)), np.array(list(own.values()))))
    return result
