"""The cohort (Table 1, Fig. 1): numbers of slices and patients, and pictures of slices."""

from collections.abc import Mapping
from typing import Any

from lesion.classes import Classes
from lesion.report import paper, tables, words
from lesion.report.records import Folder
from lesion.report.tables import Table

_UNITS = ("slices", "patients")


def _tables(sequences: Mapping[str, Any], classes: Classes) -> list[Table]:
    """Returns our Table 1, slices and patients by sequence and class, and the paper's, slices alone, of its classes."""
    order = [s for s in paper.TITLES if s in sequences] + [s for s in sequences if s not in paper.TITLES]
    counts = {(s, c): sequences[s].get(c, {}) for s in order for c in (*classes, "unlabeled")}
    shown = [*classes, *["unlabeled"] * any(counts[s, "unlabeled"].get("slices") for s in order)]
    ours = [
        {"Sequence": paper.sequence_title(s)}
        | {(c, unit): counts[s, c].get(unit, words.MISSING) for c in shown for unit in _UNITS}
        for s in order
    ]
    table = Table("table-1", "Table 1, this cohort", ours)
    if not classes.are_of_paper:
        return [table]
    headings = {c: f"{c} ({number} patients)" for c, number in paper.PATIENTS.items()}
    theirs = [
        {"Sequence": paper.sequence_title(s)} | {headings[c]: number for c, number in paper.SLICES[s].items()}
        for s in order
        if s in paper.SLICES
    ]
    caption = "Table 1 of the paper: slices"
    return [table, Table("table-1-published", caption, theirs, published=tables.PUBLISHED)]


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that cohort.html.j2 prints, or None if there are none."""
    sequences, pictures = folder.cohort.get("sequences"), folder.pictures
    if not (sequences or pictures):
        return None
    return {
        "tables": _tables(sequences, folder.classes) if sequences else [],
        "counts": folder.cohort,
        "pictures": [(caption, pictures[name]) for name, caption in paper.COHORT_PICTURES.items() if name in pictures],
    }
