"""The tables of the section on comparisons, from what `comparison.section` found."""

from collections.abc import Sequence
from typing import Any

from lesion.report import paper, scored
from lesion.report.tables import Cell, Column, Table, text

_BOTH = "Patients of both"


def _title(sequence: str) -> str:
    return paper.TITLES.get(sequence, sequence)


def _both(num_patients: int, num_left_out: int) -> Cell:
    return Cell(str(num_patients), f"({num_left_out} left out)" if num_left_out else "")


def models(sequence: str, reference: str, rows: Sequence[dict[str, Any]]) -> Table | None:
    """Each model minus the reference; None without a row."""
    headings = (_BOTH, "AUC, patients", "p, DeLong", "AUC, slices", "Accuracy, points", "Right alone", "p, McNemar")
    body = [
        (
            text(row["model"]),
            _both(row["num_patients"], row["num_left_out"]),
            Cell(*row["cells"]["auc"]),
            text(row["cells"]["p"]["auc"]),
            Cell(*row["cells"]["slice_auc"]),
            Cell(*row["cells"]["accuracy"]),
            text(f"{row['mcnemar'].first_only} : {row['mcnemar'].second_only}"),
            text(row["cells"]["p"]["accuracy"]),
        )
        for row in rows
    ]
    columns = (Column("Model", words=True), *map(Column, headings))
    caption = f"{_title(sequence)}: each model minus {reference}; small print: 95 % interval"
    return Table(scored.identifier("comparison", sequence), caption, columns, body) if body else None


def readers(sequence: str, rows: Sequence[dict[str, Any]], *, simulated: bool) -> Table | None:
    """Each reader's scores; None without a row."""
    headings = ("Patients", "Sensitivity, %", "Specificity, %", "Accuracy, %", "F1, glioma, %")
    body = [
        (
            text(f"{row['short']} {row['name']}"),
            text(row["scores"]["num_patients"]),
            *(Cell(*pair) for pair in row["cells"].values()),
        )
        for row in rows
    ]
    columns = (Column("Reader", words=True), *map(Column, headings))
    caption = f"{_title(sequence)}: readers{', SIMULATED' if simulated else ''}; small print: 95 % interval"
    return Table(scored.identifier("readers", sequence), caption, columns, body) if body else None


def duels(sequence: str, rows: Sequence[dict[str, Any]]) -> Table | None:
    """Each model minus each reader; None without a row."""
    headings = (_BOTH, "Sensitivity", "Specificity", "Accuracy", "Right alone, model : reader", "p, McNemar")
    body = []
    for row in rows:
        found, cells = row["result"], row["cells"]
        shares = (Cell(*cells[name]) for name in ("sensitivity", "specificity", "accuracy"))
        alone = f"{found['mcnemar'].first_only} : {found['mcnemar'].second_only}"
        both = _both(found["num_patients"], found["num_left_out"])
        body.append((text(row["model"]), text(row["reader"]), both, *shares, text(alone), text(cells["p"])))
    columns = (Column("Model", words=True), Column("Reader", words=True), *map(Column, headings))
    caption = f"{_title(sequence)}: model minus reader, on the patients that both judged; in points"
    return Table(scored.identifier("models-readers", sequence), caption, columns, body) if body else None
