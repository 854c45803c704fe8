"""Renders a matplotlib figure as SVG for the page and as PDF for a paper; equal figures give equal bytes.

Figures are drawn in print colours; in the SVG, CSS variables replace them, so that one drawing serves light and dark
pages, and text stays text. Every id begins with the figure's name, because several figures share one HTML document.
"""

import io
import re
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Line colours begin with Okabe and Ito's (2008) blue, vermillion, green, purple, tuned per theme in report.css; lines
# differ in their dashes as well, so that colour carries nothing alone.
INK, MUTED, GRID = "#15181c", "#5c6470", "#dfe1e4"
LINE = ("#0072b2", "#c14f00", "#00805c", "#a8518a", "#6b6b00", "#7a3b12", "#3c4a9e", "#454d57")
DASHES: tuple[object, ...] = (
    "-",
    (0, (5, 2)),
    (0, (6, 2, 1, 2)),
    (0, (1.5, 1.5)),
    (0, (8, 2, 1, 2, 1, 2)),
    (0, (10, 2)),
    (0, (3, 1.2)),
    (0, (3, 1, 1, 1)),
)
_CSS = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)"} | {
    color: f"var(--line{i})" for i, color in enumerate(LINE)
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # TrueType: a publisher can search and edit it
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "path.simplify": False,
    "text.parse_math": False,
}


class Drawing(NamedTuple):
    """A figure with its caption and data.

    Attributes:
        name: id in the page and file name; unique, of letters, digits and hyphens.
        caption: text below the figure.
        figure: the drawn figure.
        data: the numbers drawn, unrounded, for the CSV file.
    """

    name: str
    caption: str
    figure: Figure
    data: pd.DataFrame


def new_figure(width: float, height: float, box: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """Returns a figure of `width` × `height` inches with axes in `box` (left, bottom, width, height; fractions).

    Neither has a background: the page's colour, light or dark, shows through.
    """
    figure = Figure((width, height))
    FigureCanvasSVG(figure)
    figure.patch.set_visible(False)
    return figure, new_axes(figure, box)


def new_axes(figure: Figure, box: tuple[float, float, float, float], **options: Any) -> Axes:
    """Adds axes without a background in `box` to a figure and returns them."""
    axes = figure.add_axes(box, **options)
    axes.patch.set_visible(False)
    return axes


def stamp(drawing: Drawing, text: str) -> None:
    """Writes `text`, a warning about the data, in small print into the upper right corner."""
    with mpl.rc_context(STYLE):
        drawing.figure.text(0.995, 0.995, text, color=MUTED, fontsize=6.5, ha="right", va="top")


def svg(drawing: Drawing) -> str:
    """Returns the figure as an SVG element for an HTML page."""
    name = drawing.name
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name), name  # it becomes part of the page unescaped
    buffer = io.StringIO()
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        metadata = {"Date": None, "Creator": None, "Type": None, "Format": None}
        drawing.figure.savefig(buffer, format="svg", metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    # A full `font:` would override the page's font; only size and weight are kept.
    body = re.sub(r"font: bold ([\d.]+)px [^;\"]*", r"font-weight: bold; font-size: \1px", body)
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    for color, css in _CSS.items():
        body = body.replace(color, css)
    body = re.sub(r"\n\s*\n+", "\n", body)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {view.group(0)} aria-hidden="true">{body.strip()}'


def pdf(drawing: Drawing) -> bytes:
    """Returns the figure as a PDF file: vectors, fonts embedded, no date."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        metadata = {"CreationDate": None, "Creator": None, "Producer": None, "Title": drawing.caption}
        drawing.figure.savefig(buffer, format="pdf", metadata=metadata)
    return buffer.getvalue()
