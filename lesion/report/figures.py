"""Figures as inline SVG: the same data give the same bytes, and the page's style sheet gives the colours.

Matplotlib draws with stand-in colours that are swapped for CSS variables afterwards, so that one drawing serves light
and dark pages; text stays text. Every id gets the figure's name as a prefix: several figures share one HTML document.
"""

import io
import re
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Stand-in → what the page makes of it. Line colours are Okabe and Ito's (2008) blue, vermillion, green, purple, tuned
# per theme in report.css; lines differ in their dashes as well, so that colour carries nothing alone.
_INK, _MUTED, _GRID = "#010101", "#020202", "#030303"
_LINE = ("#040404", "#050505", "#060606", "#070707", "#080808")
_CSS = {_INK: "currentColor", _MUTED: "var(--muted)", _GRID: "var(--grid)"} | {
    color: f"var(--line{i})" for i, color in enumerate(_LINE)
}
_DASHES: tuple[object, ...] = ("-", (0, (5, 2)), (0, (6, 2, 1, 2)), (0, (1.5, 1.5)), (0, (8, 2, 1, 2, 1, 2)))
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "path.simplify": False,
    "text.parse_math": False,
}


class Line(NamedTuple):
    """One curve with its band.

    Attributes:
        label: written at the end of the line.
        x: [T].
        mean: [T].
        low: [T], NaN where unknown.
        high: [T].
        style: index of colour and dashes; the same thing keeps its style in every figure.
    """

    label: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    style: int


class Roc(NamedTuple):
    """One ROC curve: `x` false and `y` true positive rate, each [T], with its label and style."""

    label: str
    x: np.ndarray
    y: np.ndarray
    style: int


def _figure(width: float, height: float, box: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """A figure of `width` × `height` inches with axes in `box` (left, bottom, width, height; fractions)."""
    figure = Figure((width, height))
    FigureCanvasSVG(figure)
    return figure, figure.add_axes(box)


def _svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element for an HTML page."""
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name), name  # it becomes part of the page unescaped
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    # `font:` in full would beat the page's font; size and weight alone are kept.
    body = re.sub(r"font: ((?:bold )?)([\d.]+)px [^;\"]*", _font, body)
    for stand_in, css in _CSS.items():
        body = body.replace(stand_in, css)
    body = re.sub(r"\n\s*\n+", "\n", body)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {view.group(0)} aria-hidden="true">{body.strip()}'


def _font(match: re.Match[str]) -> str:
    weight = "font-weight: bold; " if match.group(1) else ""
    return f"{weight}font-size: {match.group(2)}px"


def _end_labels(axes: Axes, ends: list[tuple[float, str, int]], gap: float = 0.08) -> None:
    """Writes (y, label, style) right of the axes at their line's end, moved apart; style −1 is a reference."""
    low, high = axes.get_ylim()
    order = sorted(((y - low) / (high - low), label, style) for y, label, style in ends if np.isfinite(y))
    heights = np.array([y for y, _, _ in order])
    for _ in range(200):  # neighbours push each other apart by equal shares
        lack = np.maximum(gap - np.diff(heights), 0) / 2
        heights[:-1] -= lack
        heights[1:] += lack
    for height, (_, label, style) in zip(heights, order, strict=True):
        color, weight = (_LINE[style], "bold") if style >= 0 else (_MUTED, "normal")
        axes.text(1.025, height, label, color=color, transform=axes.transAxes, va="center", fontweight=weight)


def lines(
    name: str,
    x_label: str,
    y_label: str,
    curves: list[Line],
    *,
    limits: tuple[float, float],
    reference: tuple[str, float] | None = None,
    mark: tuple[str, float] | None = None,
) -> str:
    """Mean lines with bands, each named at its end.

    Args:
        name: unique in the page; letters, digits and hyphens.
        x_label: with unit.
        y_label: with unit.
        curves: drawn in this order, the first on top.
        limits: of the y axis.
        reference: (label, y) of a horizontal line.
        mark: (label, x) of a vertical line.

    Returns:
        An `<svg>` element.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(4.6, 3.1, (0.135, 0.155, 0.665, 0.795))
        axes.set(xlabel=x_label, ylabel=y_label, ylim=limits)
        ends = []
        for depth, line in enumerate(curves):
            order, color = 10 - depth, _LINE[line.style]
            axes.fill_between(
                line.x,
                line.low,
                line.high,
                color=color,
                alpha=0.32 / max(2, len(curves)),
                linewidth=0,
                zorder=order - 5,
                clip_on=True,
            )
            # Thin edges: where two bands lie over each other their fills alone cannot be told apart.
            for edge in (line.low, line.high):
                axes.plot(line.x, edge, color=color, linestyle=_DASHES[line.style], linewidth=0.6, alpha=0.7)
            axes.plot(line.x, line.mean, color=color, linestyle=_DASHES[line.style], zorder=order)
            ends.append((float(np.clip(line.mean[-1], *limits)), line.label, line.style))
        if reference:
            axes.axhline(reference[1], color=_MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
            ends.append((reference[1], reference[0], -1))
        if mark:
            axes.axvline(mark[1], color=_MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
            left = mark[1] > sum(axes.get_xlim()) / 2
            axes.annotate(
                mark[0], (mark[1], 0.02), (-3 if left else 3, 0), xycoords=("data", "axes fraction"),
                textcoords="offset points", color=_MUTED, va="bottom", ha="right" if left else "left",
            )  # fmt: skip
        axes.locator_params(axis="x", nbins=6, integer=True)
        axes.locator_params(axis="y", nbins=6)
        _end_labels(axes, ends)
        return _svg(figure, name)


def roc(name: str, curves: list[Roc]) -> str:
    """ROC curves on a square, each named beside a sample of its line in the free corner.

    Args:
        name: unique in the page.
        curves: in the order of their labels, top to bottom.

    Returns:
        An `<svg>` element.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(4.2, 4.0, (0.135, 0.12, 0.845, 0.86))
        axes.set(
            xlabel="1 − specificity (encephalitis called glioma)",
            ylabel="sensitivity (glioma found)",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            xticks=np.linspace(0, 1, 6),
            yticks=np.linspace(0, 1, 6),
        )
        axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.text(0.16, 0.115, "guessing", color=_MUTED, rotation=45, rotation_mode="anchor")
        for i, curve in enumerate(curves):
            color, dashes = _LINE[curve.style], _DASHES[curve.style]
            axes.plot(curve.x, curve.y, color=color, linestyle=dashes, zorder=9 - i)
            y = 0.05 + 0.075 * (len(curves) - 1 - i)
            axes.plot([0.33, 0.42], [y, y], color=color, linestyle=dashes)
            axes.text(0.44, y, curve.label, color=color, va="center", fontweight="bold")
        return _svg(figure, name)


def spread(name: str, x_label: str, rows: list[tuple[str, float, float, float, np.ndarray, int]]) -> str:
    """Each fold's score as a small dot above the pooled score with its interval.

    Args:
        name: unique in the page.
        x_label: with unit.
        rows: (label, value, low, high, folds [F], style), top to bottom.

    Returns:
        An `<svg>` element.
    """
    with mpl.rc_context(_STYLE | {"axes.grid.axis": "x"}):
        height = 0.75 + 0.42 * len(rows)
        figure, axes = _figure(4.6, height, (0.27, 0.5 / height, 0.69, 1 - 0.6 / height))
        for i, (_, value, low, high, folds, style) in enumerate(rows):
            axes.plot([low, high], [i + 0.14] * 2, color=_LINE[style], linewidth=2.2, solid_capstyle="round")
            axes.plot([value], [i + 0.14], "o", color=_LINE[style], markersize=6)
            axes.plot(folds, np.full(folds.size, i - 0.2), "|", color=_INK, markersize=8, markeredgewidth=1.3)
        axes.set(xlabel=x_label, ylim=(len(rows) - 0.4, -0.6))
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=6)
        return _svg(figure, name)
