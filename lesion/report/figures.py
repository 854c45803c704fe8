"""Draws the report's figures: lines with bands, ROC curves, dots with intervals, reliability diagrams.

Every line and marker is labelled directly; whatever differs in colour differs in dashes or shape as well.
"""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lesion import metrics
from lesion.classes import PAPER, Classes
from lesion.report.canvas import DASHES, INK, LINE, MUTED, STYLE, Drawing, new_axes, new_figure

_SHAPES = "DsP^vXph*"  # one marker for each reader
_DOTTED = (0, (2, 2))


class Line(NamedTuple):
    """A mean curve with its band.

    Attributes:
        label: text at the end of the line.
        x: [T], positions.
        mean: [T], heights.
        low: [T], lower edge of the band, NaN where unknown.
        high: [T], upper edge, likewise.
        style: index into `LINE` and `DASHES`; a strategy, model or sequence keeps it in every figure.
    """

    label: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    style: int


class Roc(NamedTuple):
    """A ROC curve: false and true positive rates, each [T], with its label and style."""

    label: str
    false_positive: np.ndarray
    true_positive: np.ndarray
    style: int


class Point(NamedTuple):
    """A reader on a ROC figure; each triple is (value, low, high), NaN where there is no interval.

    Attributes:
        label: name in the key.
        sensitivity: drawn upwards.
        specificity: drawn from right to left.
        published: whether it is one of the paper's readers, which are drawn hollow.
        short: two or three characters beside the point, or "".
    """

    label: str
    sensitivity: tuple[float, float, float]
    specificity: tuple[float, float, float]
    published: bool = False
    short: str = ""


class Mark(NamedTuple):
    """A score or difference with its interval, drawn as a dot, or as an open square if `hollow`."""

    value: float
    low: float
    high: float
    style: int = 0
    hollow: bool = False


class Dots(NamedTuple):
    """A row of `dots`: its label, its marks from top to bottom, and small ticks above them, e.g. scores of folds."""

    label: str
    marks: Sequence[Mark]
    ticks: Sequence[float] = ()
    bold: bool = False


def lines(
    name: str,
    caption: str,
    x_label: str,
    y_label: str,
    curves: list[Line],
    *,
    limits: tuple[float, float],
    reference: tuple[str, float] | None = None,
    reference_band: tuple[float, float] = (np.nan, np.nan),
    mark: tuple[str, float] | None = None,
) -> Drawing:
    """Draws mean lines with bands, each labelled at its end.

    Args:
        name: name of the `Drawing`.
        caption: caption of the `Drawing`.
        x_label: title of the x axis with its unit.
        y_label: title of the y axis with its unit.
        curves: lines to draw, the first on top.
        limits: ends of the y axis.
        reference: (label, y) of a horizontal line.
        reference_band: ends of the reference's interval, NaN without one.
        mark: (label, x) of a vertical line.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.6, 3.1, (0.135, 0.155, 0.665, 0.785))
        axes.set(xlabel=x_label, ylabel=y_label, ylim=limits)
        ends, alpha = [], 0.32 / max(2, len(curves))
        for depth, line in enumerate(curves):
            order, color, dashes = 10 - depth, LINE[line.style], DASHES[line.style]
            axes.fill_between(line.x, line.low, line.high, color=color, alpha=alpha, linewidth=0, zorder=order - 5)
            # Thin edges: where two bands lie over each other their fills alone cannot be told apart.
            for edge in (line.low, line.high):
                axes.plot(line.x, edge, color=color, linestyle=dashes, linewidth=0.6, alpha=0.7)
            axes.plot(line.x, line.mean, color=color, linestyle=dashes, zorder=order)
            ends.append((float(np.clip(line.mean[-1], *limits)), line.label, line.style))
        if reference:
            axes.axhline(reference[1], color=MUTED, linewidth=1, linestyle=_DOTTED, zorder=1)
            ends.append((reference[1], reference[0], -1))
            if np.isfinite(reference_band).all():
                axes.axhspan(*reference_band, color=MUTED, alpha=0.12, linewidth=0, zorder=0)
        if mark:
            axes.axvline(mark[1], color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
            left = mark[1] > sum(axes.get_xlim()) / 2
            axes.annotate(
                mark[0], (mark[1], 0.02), (-3 if left else 3, 0), xycoords=("data", "axes fraction"),
                textcoords="offset points", color=MUTED, va="bottom", ha="right" if left else "left",
            )  # fmt: skip
        axes.locator_params(axis="x", nbins=6, integer=True)
        axes.locator_params(axis="y", nbins=6)
        _end_labels(axes, ends)
    rows = [(line.label, *point) for line in curves for point in zip(*line[1:5], strict=True)]
    rows += [(reference[0], np.nan, reference[1], *reference_band)] if reference else []
    return Drawing(name, caption, figure, pd.DataFrame(rows, columns=["line", x_label, y_label, "low", "high"]))


def _end_labels(axes: Axes, ends: list[tuple[float, str, int]], gap: float = 0.08) -> None:
    """Writes each (y, label, style) at its line's end, at least `gap` apart; style −1 is a reference line."""
    low, high = axes.get_ylim()
    order = sorted(((y - low) / (high - low), label, style) for y, label, style in ends if np.isfinite(y))
    heights = np.array([y for y, _, _ in order])
    for _ in range(200):  # neighbours push each other apart by equal shares
        lack = np.maximum(gap - np.diff(heights), 0) / 2
        heights[:-1] -= lack
        heights[1:] += lack
    for height, (_, label, style) in zip(heights, order, strict=True):
        color, weight = (LINE[style], "bold") if style >= 0 else (MUTED, "normal")
        axes.text(1.025, height, label, color=color, transform=axes.transAxes, va="center", fontweight=weight)


def roc(name: str, caption: str, curves: list[Roc], points: Sequence[Point] = (), classes: Classes = PAPER) -> Drawing:
    """Draws ROC curves in a square, and readers as points with their intervals as thin crosses.

    The key with the names stands in the free corner, or below the square where it is long.
    """
    names = [*(curve.label for curve in curves), *(f"{point.short}  {point.label}".strip() for point in points)]
    widest = max(map(len, names))
    below = 0.0 if len(names) <= 3 and widest <= 26 else 0.22 * len(names) + 0.1  # inches
    height = 4.05 + below
    with mpl.rc_context(STYLE | {"font.size": 9.0 * min(1.0, 40 / widest)}):  # 40 letters fill the width
        figure, axes = new_figure(4.2, height, (0.135, (0.48 + below) / height, 0.845, 3.42 / height))
        axes.set(
            xlabel=f"1 − specificity ({classes.negative} called {classes.positive})",
            ylabel=f"sensitivity ({classes.positive} found)",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            xticks=np.linspace(0, 1, 6),
            yticks=np.linspace(0, 1, 6),
        )
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=_DOTTED)
        axes.text(0.16, 0.115, "chance", color=MUTED, rotation=45, rotation_mode="anchor")
        for i, curve in enumerate(curves):
            appearance: dict[str, Any] = {"color": LINE[curve.style], "linestyle": DASHES[curve.style]}
            axes.plot(curve.false_positive, curve.true_positive, zorder=9 - i, **appearance)
            x, y = _key_position(i, len(names), below)
            axes.plot([x, x + 0.09], [y, y], clip_on=False, **appearance)
            axes.text(x + 0.11, y, names[i], color=LINE[curve.style], va="center", fontweight="bold")
        left_first = np.argsort(np.argsort([-point.specificity[0] for point in points], kind="stable"))
        for i, point in enumerate(points):
            color = MUTED if point.published else INK
            appearance = {"color": color, "marker": _SHAPES[i % len(_SHAPES)], "markersize": 6.5, "clip_on": False}
            appearance |= {"linestyle": "none", "markerfacecolor": "none" if point.published else color}
            x, y = _key_position(len(curves) + i, len(names), below)
            axes.plot([x + 0.045], [y], **appearance)
            axes.text(x + 0.11, y, names[len(curves) + i], color=color, va="center")
            _reader(axes, point, color, appearance, above=left_first[i] % 2 == 0)
    rows = [(curve.label, *rates) for curve in curves for rates in zip(*curve[1:3], strict=True)]
    rows += [(point.label, 1 - point.specificity[0], point.sensitivity[0]) for point in points]
    columns = ["line", "false positive rate", "true positive rate"]
    return Drawing(name, caption, figure, pd.DataFrame(rows, columns=columns))


def _key_position(i: int, count: int, below: float) -> tuple[float, float]:
    """Returns the start of the key's i-th entry in data coordinates, of which 1.02 make 3.42 inches."""
    if not below:
        return 0.33, 0.05 + 0.075 * (count - 1 - i)
    return 0.0, -(0.62 + 0.22 * i) * 1.02 / 3.42


def _reader(axes: Axes, point: Point, color: str, appearance: dict[str, Any], *, above: bool) -> None:
    """Draws a reader's point and cross; its short name stands above or below, so that neighbours do not collide."""
    x, y = 1 - point.specificity[0], point.sensitivity[0]
    axes.plot([x], [y], zorder=12, **appearance)
    axes.plot([1 - end for end in point.specificity[1:]], [y, y], color=color, linewidth=0.8, zorder=11)
    axes.plot([x, x], point.sensitivity[1:], color=color, linewidth=0.8, zorder=11)
    side = 1 if above else -1
    axes.annotate(
        point.short, (x, y), (-7 * side, 8 * side), textcoords="offset points", va="center",
        ha="right" if above else "left", fontweight="bold", zorder=13,
    )  # fmt: skip


def dots(
    name: str,
    caption: str,
    x_label: str,
    rows: Iterable[Dots],
    *,
    solid: str = "",
    hollow: str = "",
    reference: tuple[str, float] | None = None,
    sides: tuple[str, str] | None = None,
) -> Drawing | None:
    """Draws scores or differences as dots with their intervals, row by row.

    Args:
        name: name of the `Drawing`.
        caption: caption of the `Drawing`.
        x_label: title of the x axis with its unit.
        rows: rows from top to bottom; marks that are not finite, and rows without a mark, are left out.
        solid: meaning of a filled dot, printed if `hollow` is given.
        hollow: meaning of an open square, "" if none is drawn.
        reference: (label, x) of a vertical line.
        sides: for differences, the meaning of one below and of one above 0, printed over the axes.

    Returns:
        The figure; None where no row is left.
    """
    rows = [row._replace(marks=[mark for mark in row.marks if np.isfinite(mark.value)]) for row in rows]
    rows = [row for row in rows if row.marks]
    if not rows:
        return None
    labels = [textwrap.fill(row.label, 26 if row.bold else 30) for row in rows]
    left = min(0.5, (0.073 * max(len(line) for label in labels for line in label.split("\n")) + 0.2) / 4.6)
    depth = max(0.42, 0.16 * max(label.count("\n") + 1 for label in labels) + 0.1)  # inches per row
    above = [bool(sides or reference), bool(hollow)]  # lines of text over the axes
    top = 0.2 + 0.22 * sum(above)
    height = 0.55 + top + depth * len(rows)
    with mpl.rc_context(STYLE | {"axes.grid.axis": "x"}):
        figure, axes = new_figure(4.6, height, (left, 0.5 / height, 0.96 - left, 1 - (0.5 + top) / height))
        for i, row in enumerate(rows):
            offsets = np.linspace(-0.2, 0.2, len(row.marks)) if len(row.marks) > 1 else [0.14 if len(row.ticks) else 0]
            for y, mark in zip(i + np.array(offsets), row.marks, strict=True):
                appearance: dict[str, Any] = {"color": LINE[mark.style], "markersize": 6, "marker": "o"}
                appearance |= {"marker": "s", "markerfacecolor": "none", "markeredgewidth": 1.4} if mark.hollow else {}
                axes.hlines(y, mark.low, mark.high, color=LINE[mark.style], linewidth=2.2, alpha=0.65)
                axes.plot([mark.value], [y], **appearance)
            axes.plot(row.ticks, [i - 0.2] * len(row.ticks), "|", color=INK, markersize=8, markeredgewidth=1.3)
        axes.set(xlabel=x_label, ylim=(len(rows) - 0.4, -0.6))
        axes.set_yticks(range(len(rows)), labels)
        for text, row in zip(axes.get_yticklabels(), rows, strict=True):
            text.set_fontweight("bold" if row.bold else "normal")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5 if sides else 6)
        if sides:  # the middle of the axis is 0: a side that looks wide is a side that is wide
            reach = 1.08 * float(np.nanmax([np.abs(mark[:3]) for row in rows for mark in row.marks])) or 1.0
            axes.set_xlim(-reach, reach)
            _write_above(axes, 0, f"◂ {sides[0]}", 3, ha="left")
            _write_above(axes, 1, f"{sides[1]} ▸", 3, ha="right")
        if reference or sides:
            label, x = reference or ("", 0.0)
            axes.axvline(x, color=MUTED, linewidth=1, linestyle=_DOTTED, zorder=1)
            _write_above(axes, x, label, 2, ha="center", xycoords=("data", "axes fraction"))
        if hollow:
            _write_above(axes, 0, f"● {solid}   □ {hollow}", 19 if above[0] else 3, ha="left")
    data = [(row.label, hollow if m.hollow else solid, m.value, m.low, m.high) for row in rows for m in row.marks]
    data += [(row.label, "fold", tick, np.nan, np.nan) for row in rows for tick in row.ticks]
    return Drawing(name, caption, figure, pd.DataFrame(data, columns=["row", "of", x_label, "low", "high"]))


def _write_above(axes: Axes, x: float, text: str, offset: float, **options: Any) -> None:
    """Writes a text at `x`, `offset` points above the axes."""
    options = {"xycoords": "axes fraction", "color": MUTED, "va": "bottom", **options}
    axes.annotate(text, (x, 1), (0, offset), textcoords="offset points", **options)


def reliability(
    name: str,
    caption: str,
    patients: metrics.Reliability,
    slices: metrics.Reliability,
    bins: int,
    classes: Classes,
) -> Drawing:
    """Draws the reliability diagrams of patients and slices, in `bins` bins of equal width, above a histogram."""
    predicted, share_is = f"predicted probability of {classes.positive}", f"share that is {classes.positive}"
    edges, shares = np.linspace(0, 1, bins + 1), np.zeros((2, bins))
    for share, points in zip(shares, (patients, slices), strict=True):
        share[np.rint(bins * points.left).astype(int)] = 100 * points.rows / points.rows.sum()
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.4, 5.2, (0.135, 0.335, 0.845, 0.63))
        axes.set(ylabel=share_is, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=_DOTTED)
        levels = [("slices", slices, 1, "s", "none", 1.0), ("patients", patients, 0, "o", LINE[0], 1.6)]
        for row, (label, points, style, shape, face, width) in enumerate(levels):
            appearance: dict[str, Any] = {"color": LINE[style], "markersize": 6, "markerfacecolor": face}
            appearance |= {"markeredgewidth": 1.3}
            ends = np.stack([points.observed - points.low, points.high - points.observed])
            axes.errorbar(
                points.predicted, points.observed, np.maximum(ends, 0), fmt=shape, elinewidth=width, **appearance
            )
            y = 0.9 + 0.07 * row
            axes.plot([0.02], [y], shape, **appearance)
            axes.text(0.05, y, f"{label}, {points.rows.sum():,}", color=LINE[style], va="center", fontweight="bold")
        axes.plot([0.0, 0.04], [0.83] * 2, color=MUTED, linewidth=0.8, linestyle=_DOTTED)
        axes.text(0.05, 0.83, "as often as predicted", color=MUTED, va="center")
        lower = new_axes(figure, (0.135, 0.095, 0.845, 0.19), sharex=axes)
        lower.set_xticks(np.linspace(0, 1, 6))
        axes.tick_params(labelbottom=False)
        lower.bar(edges[:-1], shares[0], np.diff(edges), align="edge", color=LINE[0], alpha=0.45, linewidth=0)
        lower.stairs(shares[1], edges, color=LINE[1], linewidth=1.4, linestyle=DASHES[1])
        lower.set(xlabel=predicted, ylabel="of all, %")
        lower.locator_params(axis="y", nbins=3)
    columns = ["of", predicted, share_is, "low", "high", "rows"]
    rows = [
        (label, *point)
        for label, points in (("patients", patients), ("slices", slices))
        for point in zip(*points[:5], strict=True)
    ]
    return Drawing(name, caption, figure, pd.DataFrame(rows, columns=columns))
