"""Renders tables by pandas' Styler as HTML for the page and as LaTeX for a paper, and writes them as CSV."""

import base64
import dataclasses
import functools
import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe
import pandas as pd
from pandas.io.formats.style import Styler

from lesion.report import words

Triple = tuple[float, float, float]  # a value and the ends of its interval
Entry = Mapping[str, float] | Triple  # a triple, or {"value", "low", "high"} of `lesion.metrics`
FIRST = ""  # heading of a first column that needs none
FAILED = "failed"  # key of a row, no heading: the reason why the row has no numbers
PUBLISHED = "PUBLISHED, OTHER DATA"
PARAGRAPH = 60  # cells of more characters are paragraphs in LaTeX
_HtmlStyler = Styler.from_custom_template([str(pathlib.Path(__file__).parent)], html_table="styler.html.j2")
_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "δ": r"$\delta$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "½": r"$\frac12$",
    "–": "--",
    "→": r"$\to$",
    "²": "$^2$",
    "±": r"$\pm$",
    "\u00a0": "~",
    "\u202f": "~",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: printed text.
        small: small print beside it, e.g. an interval.
        numbers: (value, low, high), unrounded, for the CSV file; None writes the printed text.
        style: "", "strong", "failed" or "spanned", see `Table.rows`.
    """

    text: str
    small: str = ""
    numbers: Triple | None = None
    style: str = ""

    def __str__(self) -> str:
        """Returns the cell in plain text."""
        return f"{self.text} ({self.small})" if self.small else self.text


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with its caption and notes.

    Attributes:
        name: file name; unique in the page, of letters, digits and hyphens.
        caption: text above the table.
        rows: {column: cell} of each row, a text, a number or a `Cell`; an absent cell is empty. A row with `FAILED` in
            it shows the reason in place of all columns but the first.
        columns: headings, or pairs (heading shared by neighbours, heading); () takes the keys of the first row. The
            first column heads the rows.
        left: headings of further columns that are aligned left, as the first one is.
        notes: sentences below the table.
        published: mark behind the caption of a table of published numbers, "" for our own.
    """

    name: str
    caption: str
    rows: Sequence[Mapping[Any, Any]]
    columns: Sequence[Any] = ()
    left: Sequence[str] = ()
    notes: Sequence[str] = ()
    published: str = ""

    @functools.cached_property
    def headings(self) -> list[tuple[str, str]]:
        """Pairs (shared heading or "", heading), one for each column."""
        columns = self.columns or (list(self.rows[0]) if self.rows else [FIRST])
        return [column if isinstance(column, tuple) else ("", column) for column in columns]

    @functools.cached_property
    def frame(self) -> pd.DataFrame:
        """Frame of the rows in which every element is a `Cell`."""
        columns = [pair if pair[0] else pair[1] for pair in self.headings]
        rows = []
        for row in self.rows:
            cells = [row.get(column, "") for column in columns]
            if FAILED in row:
                cells[1:] = [Cell(row[FAILED], style="failed"), *[Cell("", style="spanned")] * (len(columns) - 2)]
            rows.append([cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in cells])
        frame = pd.DataFrame(rows, columns=range(len(columns)), dtype=object)
        has_groups = any(group for group, _ in self.headings)
        frame.columns = pd.MultiIndex.from_tuples(self.headings) if has_groups else pd.Index(columns)
        return frame


def score(name: str, entry: Entry) -> Cell:
    """Returns the cell of a score, one of `metrics.SCORES`, with its interval."""
    value, low, high = numbers = triple(entry)
    return Cell(words.number(name, value), words.interval(name, low, high), numbers)


def difference(name: str, entry: Entry) -> Cell:
    """Returns the cell of a difference of scores with its interval."""
    value, low, high = numbers = triple(entry)
    return Cell(words.signed(name, value), words.signed_interval(name, low, high), numbers)


def triple(entry: Entry) -> Triple:
    """Returns (value, low, high) of an entry."""
    if isinstance(entry, tuple):
        return entry
    return float(entry["value"]), float(entry["low"]), float(entry["high"])


def html(table: Table) -> markupsafe.Markup:
    """Returns the table as HTML, text escaped."""
    left = [i for i, (_, heading) in enumerate(table.headings) if heading in table.left]
    styler = _HtmlStyler(table.frame).hide(axis="index").format(_html_cell)
    styler = styler.format_index(escape="html", axis="columns")
    return markupsafe.Markup(styler.to_html(exclude_styles=True, left=left))


def _html_cell(cell: Cell) -> str:
    """Returns a cell's markup; a line may break after an equals sign, as in a long setting."""
    text = str(markupsafe.escape(cell.text)).replace("=", "=<wbr>")
    text = f"<strong>{text}</strong>" if cell.style == "strong" else text
    return f"{text} <small>{markupsafe.escape(cell.small)}</small>" if cell.small else text


def latex(table: Table, stamp: str = "") -> str:
    """Returns the table as a LaTeX float, which needs \\usepackage{booktabs}, and at its widest a landscape page.

    Args:
        table: the table.
        stamp: warning about our data that begins the caption, "" for none; published tables begin with their mark.
    """
    headings = table.headings
    kinds = ["l" if i == 0 or heading in table.left else "r" for i, (_, heading) in enumerate(headings)]
    long = [i for i in range(len(kinds)) if any(map(_is_long, table.frame.iloc[:, i]))]
    for i in long:
        kinds[i] = rf"p{{{min(0.4, 0.5 / len(long)):.2f}\linewidth}}"
    parts = (table.published or stamp, table.caption, *table.notes)
    styler = table.frame.style.hide(axis="index").format(_latex_cell).format_index(escape_latex, axis="columns")
    # pandas writes a table style as a command at the top of the float.
    styler = styler.set_table_styles([{"selector": r"small\setlength{\tabcolsep}", "props": ":{3pt}"}])
    text = styler.to_latex(
        column_format="".join(kinds),
        caption=". ".join(escape_latex(part.rstrip(".")) for part in parts if part) + ".",
        label=f"tab:{table.name}",
        position_float="centering",
        multicol_align="c",
        hrules=True,
    )
    rules, end = [], 0
    for group, columns in itertools.groupby(headings, key=lambda heading: heading[0]):
        start, end = end + 1, end + len(list(columns))
        rules += [rf"\cmidrule(lr){{{start}-{end}}}"] if group else []
    if rules:  # below the first line of headings
        text = text.replace("\\\\\n", "\\\\\n" + " ".join(rules) + "\n", 1)
    return f"% made by launch.report, which writes it anew\n{text}"


def _is_long(cell: Cell) -> bool:
    """Returns whether a cell is set as a paragraph; the reason of a failure runs over the empty cells instead."""
    return len(cell.text) > PARAGRAPH and cell.style != "failed"


def _latex_cell(cell: Cell) -> str:
    """Returns a cell as LaTeX, with the small print below, so that six intervals fit on a page."""
    text = escape_latex(cell.text)
    if cell.style == "failed":
        return rf"\multicolumn{{1}}{{l}}{{\rlap{{\emph{{{text}}}}}}}"
    text = rf"\textbf{{{text}}}" if cell.style == "strong" else text
    small = rf"{{\scriptsize {escape_latex(cell.small)}}}"
    return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{text}\\{small}\end{{tabular}}" if cell.small else text


def escape_latex(text: str) -> str:
    """Returns text escaped for pdflatex; a letter outside Latin-1 and `_LATEX` becomes a question mark."""
    return "".join(_LATEX.get(c, c if " " <= c <= "~" or "\u00a1" <= c <= "\u00ff" else "?") for c in text)


def csv(table: Table) -> str:
    """Returns the table as CSV; a score has three columns: value, low, high."""
    columns: dict[str, list[Any]] = {}
    for i, heading in enumerate(table.headings):
        cells = list(table.frame.iloc[:, i])
        numbers = [cell.numbers or (str(cell), math.nan, math.nan) for cell in cells]
        ends = ("", ", low", ", high") if any(cell.numbers for cell in cells) else ("",)
        for end, values in zip(ends, zip(*numbers, strict=True), strict=False):
            columns[": ".join(part for part in heading if part) + end] = list(values)
    return frame_csv(pd.DataFrame(columns))


def frame_csv(frame: pd.DataFrame) -> str:
    """Returns a DataFrame as CSV: floats with nine significant digits, empty if not finite."""

    def plain(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        return f"{value:.9g}" if math.isfinite(value) else ""

    return frame.astype(object).map(plain).to_csv(index=False, lineterminator="\n")


def data_uri(content: str) -> str:
    """Returns CSV text as a data URI."""
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(content.encode()).decode()
