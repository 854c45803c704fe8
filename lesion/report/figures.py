"""The kinds of figure of the report: curves with bands, ROC curves, and dots with their intervals."""

import textwrap
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from lesion.report.canvas import DASHES, INK, LINE, MUTED, STYLE, Drawing, figure

_POINTS = "DsP^v"  # markers of readers, one each


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


class Point(NamedTuple):
    """A reader on a ROC figure: false and true positive rate; one of other data is drawn hollow."""

    label: str
    x: float
    y: float
    published: bool


class Mark(NamedTuple):
    """A score with its interval; a hollow one is drawn as an open square."""

    value: float
    low: float
    high: float
    style: int
    hollow: bool = False


class Dots(NamedTuple):
    """A row of `dots`: its label, its marks from top to bottom, and small ticks above them, e.g. each fold's score."""

    label: str
    marks: tuple[Mark, ...]
    ticks: np.ndarray = np.array([])
    bold: bool = False


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
        color, weight = (LINE[style], "bold") if style >= 0 else (MUTED, "normal")
        axes.text(1.025, height, label, color=color, transform=axes.transAxes, va="center", fontweight=weight)


def lines(
    name: str,
    caption: str,
    x_label: str,
    y_label: str,
    curves: list[Line],
    *,
    limits: tuple[float, float],
    reference: tuple[str, float] | None = None,
    mark: tuple[str, float] | None = None,
) -> Drawing:
    """Mean lines with bands, each named at its end.

    Args:
        name: see `Drawing`.
        caption: see `Drawing`.
        x_label: with unit.
        y_label: with unit.
        curves: drawn in this order, the first on top.
        limits: of the y axis.
        reference: (label, y) of a horizontal line.
        mark: (label, x) of a vertical line.
    """
    with mpl.rc_context(STYLE):
        drawn, axes = figure(4.6, 3.1, (0.135, 0.155, 0.665, 0.785))
        axes.set(xlabel=x_label, ylabel=y_label, ylim=limits)
        ends = []
        for depth, line in enumerate(curves):
            order, color = 10 - depth, LINE[line.style]
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
                axes.plot(line.x, edge, color=color, linestyle=DASHES[line.style], linewidth=0.6, alpha=0.7)
            axes.plot(line.x, line.mean, color=color, linestyle=DASHES[line.style], zorder=order)
            ends.append((float(np.clip(line.mean[-1], *limits)), line.label, line.style))
        if reference:
            axes.axhline(reference[1], color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
            ends.append((reference[1], reference[0], -1))
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
    rows = [
        (line.label, *point) for line in curves for point in zip(line.x, line.mean, line.low, line.high, strict=True)
    ]
    rows += [(reference[0], "", reference[1], "", "")] if reference else []
    return Drawing(name, caption, drawn, ("line", x_label, y_label, "low", "high"), rows)


def roc(name: str, caption: str, curves: list[Roc], points: tuple[Point, ...] = ()) -> Drawing:
    """ROC curves on a square, each named beside a sample of its line: in the free corner, or below where that is full.

    Args:
        name: see `Drawing`.
        caption: see `Drawing`.
        curves: in the order of their labels, top to bottom.
        points: readers, beside the curves.
    """
    count = len(curves) + len(points)
    widest = max(len(label) for label in [*(line.label for line in curves), *(point.label for point in points)])
    below = 0.0 if count <= 3 and widest <= 26 else 0.22 * count + 0.1  # inches
    height = 4.05 + below
    with mpl.rc_context(STYLE | {"font.size": 9.0 * min(1.0, 40 / widest)}):  # 40 letters fill the width
        drawn, axes = figure(4.2, height, (0.135, (0.48 + below) / height, 0.845, 3.42 / height))
        axes.set(
            xlabel="1 − specificity (encephalitis called glioma)",
            ylabel="sensitivity (glioma found)",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            xticks=np.linspace(0, 1, 6),
            yticks=np.linspace(0, 1, 6),
        )
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.text(0.16, 0.115, "guessing", color=MUTED, rotation=45, rotation_mode="anchor")
        for i, curve in enumerate(curves):
            color, dashes = LINE[curve.style], DASHES[curve.style]
            axes.plot(curve.x, curve.y, color=color, linestyle=dashes, zorder=9 - i)
            x, y = _key(i, count, below)
            axes.plot([x, x + 0.09], [y, y], color=color, linestyle=dashes, clip_on=False)
            axes.text(x + 0.11, y, curve.label, color=color, va="center", fontweight="bold")
        for i, point in enumerate(points):
            color = MUTED if point.published else INK
            look: dict[str, Any] = {
                "marker": _POINTS[i % len(_POINTS)],
                "color": color,
                "markersize": 6.5,
                "linestyle": "none",
            }
            look |= {"markerfacecolor": "none"} if point.published else {}
            x, y = _key(len(curves) + i, count, below)
            axes.plot([point.x], [point.y], zorder=12, clip_on=False, **look)
            axes.plot([x + 0.045], [y], clip_on=False, **look)
            axes.text(x + 0.11, y, point.label, color=color, va="center")
    rows = [(curve.label, x, y) for curve in curves for x, y in zip(curve.x, curve.y, strict=True)]
    rows += [(point.label, point.x, point.y) for point in points]
    return Drawing(name, caption, drawn, ("line", "false positive rate", "true positive rate"), rows)


def _key(i: int, count: int, below: float) -> tuple[float, float]:
    """Where the sample of the i-th line begins, in the axes' units: 3.42 inches make 1.02."""
    if not below:
        return 0.33, 0.05 + 0.075 * (count - 1 - i)
    return 0.0, -(0.62 + 0.22 * i) * 1.02 / 3.42


def dots(
    name: str,
    caption: str,
    x_label: str,
    rows: list[Dots],
    *,
    reference: tuple[str, float] | None = None,
    hollow: str = "",
    solid: str = "",
) -> Drawing:
    """Scores as dots with their intervals, a row a thing.

    Args:
        name: see `Drawing`.
        caption: see `Drawing`.
        x_label: with unit.
        rows: top to bottom.
        reference: (label, x) of a vertical line.
        hollow: what an open square is, where there are any.
        solid: what a filled dot is, where there are squares.
    """
    labels = [textwrap.fill(row.label, 26 if row.bold else 30) for row in rows]
    widest = max(len(line) for label in labels for line in label.split("\n"))
    depth = max(0.42, 0.16 * max(label.count("\n") + 1 for label in labels) + 0.1)
    left = min(0.5, (0.073 * widest + 0.2) / 4.6)
    with mpl.rc_context(STYLE | {"axes.grid.axis": "x"}):
        top = 0.2 + 0.22 * (bool(hollow) + bool(reference))  # inches
        height = 0.55 + top + depth * len(rows)
        drawn, axes = figure(4.6, height, (left, 0.5 / height, 0.96 - left, 1 - (0.5 + top) / height))
        for i, row in enumerate(rows):
            offsets = np.linspace(-0.2, 0.2, len(row.marks)) if len(row.marks) > 1 else [0.14 if row.ticks.size else 0]
            for y, mark in zip(i + np.array(offsets), row.marks, strict=True):
                color = LINE[mark.style]
                axes.plot([mark.low, mark.high], [y, y], color=color, linewidth=2.2, solid_capstyle="round", alpha=0.65)
                face = {"markerfacecolor": "none", "markeredgewidth": 1.4} if mark.hollow else {}
                axes.plot([mark.value], [y], "s" if mark.hollow else "o", color=color, markersize=6, **face)  # type: ignore[arg-type]
            axes.plot(row.ticks, np.full(row.ticks.size, i - 0.2), "|", color=INK, markersize=8, markeredgewidth=1.3)
        axes.set(xlabel=x_label, ylim=(len(rows) - 0.4, -0.6))
        axes.set_yticks(range(len(rows)), labels)
        for text, row in zip(axes.get_yticklabels(), rows, strict=True):
            text.set_fontweight("bold" if row.bold else "normal")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=6)
        _above(axes, reference, solid, hollow)
    names = {False: solid, True: hollow}
    data: list[tuple[Any, ...]] = [
        (row.label, names[m.hollow], m.value, m.low, m.high) for row in rows for m in row.marks
    ]
    data += [(row.label, "fold", tick, "", "") for row in rows for tick in row.ticks]
    return Drawing(name, caption, drawn, ("row", "of", x_label, "low", "high"), data)


def _above(axes: Axes, reference: tuple[str, float] | None, solid: str, hollow: str) -> None:
    """The reference line with its name, and the key to filled dots and open squares, above the axes."""
    if reference:
        axes.axvline(reference[1], color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        axes.annotate(
            reference[0], (reference[1], 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
            color=MUTED, va="bottom", ha="center",
        )  # fmt: skip
    if hollow:
        above = 19 if reference else 3
        axes.annotate(
            f"● {solid}   □ {hollow}", (0, 1), (0, above), xycoords="axes fraction", textcoords="offset points",
            color=MUTED, va="bottom", ha="left",
        )  # fmt: skip
