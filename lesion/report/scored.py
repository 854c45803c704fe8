"""What the sections on calibration and comparison are made of: scored runs with a name."""

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

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
