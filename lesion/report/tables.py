"""A table as data: the page, the file beside it and a paper's LaTeX are written from the same cells."""

import base64
import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from lesion.report import words


class Cell(NamedTuple):
    """What stands in one place.

    Attributes:
        text: as printed.
        small: beside it in small print, e.g. its interval.
        raw: (value, low, high) in full, for the file; () takes what is printed.
        span: columns that it fills.
        look: "", "strong", "failed".
    """

    text: str
    small: str = ""
    raw: tuple[float, ...] = ()
    span: int = 1
    look: str = ""


class Column(NamedTuple):
    """A heading: `group` is written above neighbours that share it; `words` stand left, numbers right."""

    title: str
    group: str = ""
    words: bool = False


class Table(NamedTuple):
    """A table.

    Attributes:
        name: unique in the page, letters, digits and hyphens: its file's name.
        caption: above it.
        columns: the first heads the rows.
        rows: each as wide as the columns.
        published: whether these are the paper's numbers, of other data.
        notes: below it.
        tag: what stands behind the caption of published numbers.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[tuple[Cell, ...]]
    published: bool = False
    notes: tuple[str, ...] = ()
    tag: str = "PUBLISHED, OTHER DATA"

    def groups(self) -> list[tuple[str, int]]:
        """(title, columns) of the upper heading, [] where there is none."""
        result: list[tuple[str, int]] = []
        for column in self.columns:
            if result and result[-1][0] == column.group:
                result[-1] = column.group, result[-1][1] + 1
            else:
                result.append((column.group, 1))
        return result if any(title for title, _ in result) else []


def score(name: str, entry: dict[str, float]) -> Cell:
    """A score of `metrics.evaluate` with its interval."""
    value, low, high = triple(entry)
    return Cell(words.number(name, value), words.interval(name, low, high), (value, low, high))


def triple(entry: dict[str, float]) -> tuple[float, float, float]:
    """(value, low, high) of a score."""
    return entry["value"], entry["low"], entry["high"]


def change(name: str, ends: Iterable[float]) -> Cell:
    """A difference with its interval."""
    value, low, high = (float(x) for x in ends)
    small = f"{words.signed(name, low)} to {words.signed(name, high)}" if math.isfinite(low) else words.MISSING
    return Cell(words.signed(name, value), small, (value, low, high))


def text(value: Any) -> Cell:
    """Plain text."""
    return Cell(str(value))


def instead(title: str, what: str, width: int) -> tuple[Cell, ...]:
    """A row for a run without a result, `width` columns wide: what became of it, e.g. `FAILED: out of memory`."""
    return Cell(title), Cell(what, span=width - 1, look="failed")


def comma_separated(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A table as text: numbers in full, NaN empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_plain(value) for value in row] for row in rows)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, float):  # NumPy's float64 is one
        return f"{value:.9g}" if math.isfinite(value) else ""
    return value


def data(table: Table) -> str:
    """The table as a CSV file; a score has three columns, the ends of its interval behind it."""
    wide = [any(len(row) > i and row[i].raw for row in table.rows) for i in range(len(table.columns))]
    header: list[str] = []
    for column, three in zip(table.columns, wide, strict=True):
        title = ": ".join(part for part in (column.group, column.title) if part)
        header += [title, f"{title}, low", f"{title}, high"] if three else [title]
    rows = []
    for row in table.rows:
        values: list[Any] = []
        for cell, three in zip(row, wide, strict=False):
            shown = " ".join(part for part in (cell.text, cell.small and f"({cell.small})") if part)
            own = list(cell.raw) if cell.raw else [shown]
            values += own + [""] * (3 - len(own)) if three and cell.span == 1 else own
        rows.append(values + [""] * (len(header) - len(values)))
    return comma_separated(header, rows)


def link(content: str) -> str:
    """The address of a CSV file that lies in the page itself."""
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(content.encode()).decode()
