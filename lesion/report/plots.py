"""Figures of the statistics: reliability diagrams, forest plots, ROC curves with readers as points.

Drawn as `lesion.report.figures` does: every line and marker named beside it.
"""

import textwrap
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from lesion import metrics
from lesion.report import figures
from lesion.report.canvas import DASHES, INK, LINE, MUTED, STYLE, Drawing
from lesion.report.canvas import figure as new_figure

MOST_CURVES = 5  # more cannot be told apart
_SHAPES = ("D", "s", "^", "v", "P", "X", "p", "h", "*")


class Effect(NamedTuple):
    """One row of a forest plot.

    Attributes:
        label: left of the axis.
        value: the difference; a row whose value is NaN is left empty.
        low: of its interval, NaN where there is none.
        high: likewise.
        shown: whether a difference is shown: a filled marker, else a hollow one.
    """

    label: str
    value: float
    low: float
    high: float
    shown: bool


class Point(NamedTuple):
    """A reader on a ROC figure; each triple is (value, low, high), NaN where there is no interval.

    Attributes:
        label: in the list of names.
        short: beside the point, two or three characters.
        sensitivity: up.
        specificity: from right to left.
    """

    label: str
    short: str
    sensitivity: tuple[float, float, float]
    specificity: tuple[float, float, float]


def reliability(
    name: str, caption: str, patients: metrics.Reliability, slices: metrics.Reliability, bins: int
) -> Drawing:
    """A reliability diagram above the histogram of what was predicted.

    Args:
        name: see `Drawing`.
        caption: see `Drawing`.
        patients: the points of patients.
        slices: the points of slices.
        bins: how many bins of equal width both were made of.
    """
    edges, shares = np.linspace(0, 1, bins + 1), np.zeros((2, bins))
    for share, points in zip(shares, (patients, slices), strict=True):
        share[np.rint(bins * points.left).astype(int)] = 100 * points.rows / points.rows.sum()
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.4, 5.2, (0.135, 0.335, 0.845, 0.63))
        axes.set(ylabel="share that is glioma", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        levels = [("slices", slices, 1, "s", "none", 1.0), ("patients", patients, 0, "o", LINE[0], 1.6)]
        for row, (label, points, style, shape, face, width) in enumerate(levels):
            look: dict[str, Any] = {
                "color": LINE[style],
                "markersize": 6,
                "markerfacecolor": face,
                "markeredgewidth": 1.3,
            }
            ends = np.stack([points.observed - points.low, points.high - points.observed])
            axes.errorbar(points.predicted, points.observed, np.maximum(ends, 0), fmt=shape, elinewidth=width, **look)
            y = 0.9 + 0.07 * row
            axes.plot([0.02], [y], shape, **look)
            axes.text(0.05, y, f"{label}, {points.rows.sum():,}", color=LINE[style], va="center", fontweight="bold")
        axes.plot([0.0, 0.04], [0.83] * 2, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.text(0.05, 0.83, "as often as said", color=MUTED, va="center")
        for side in (axes, lower := figure.add_axes((0.135, 0.095, 0.845, 0.19), sharex=axes)):
            side.set_xticks(np.linspace(0, 1, 6))
        axes.tick_params(labelbottom=False)
        lower.bar(edges[:-1], shares[0], np.diff(edges), align="edge", color=LINE[0], alpha=0.45, linewidth=0)
        lower.stairs(shares[1], edges, color=LINE[1], linewidth=1.4, linestyle=DASHES[1])
        lower.set(xlabel="predicted probability of glioma", ylabel="of all, %")
        lower.locator_params(axis="y", nbins=3)
    header = ("of", "predicted probability of glioma", "share that is glioma", "low", "high", "rows")
    rows = [
        (label, *point)
        for label, points in (("patients", patients), ("slices", slices))
        for point in zip(points.predicted, points.observed, points.low, points.high, points.rows, strict=True)
    ]
    return Drawing(name, caption, figure, header, rows)


def forest(name: str, caption: str, x_label: str, rows: list[Effect], sides: tuple[str, str]) -> Drawing:
    """Differences with their intervals about a line at 0.

    Args:
        name: see `Drawing`.
        caption: see `Drawing`.
        x_label: with unit.
        rows: top to bottom.
        sides: what a difference below and above 0 means, written over the axes.
    """
    labels = [textwrap.fill(row.label, 30) for row in rows]
    with mpl.rc_context(STYLE | {"axes.grid.axis": "x"}):
        height = 1.15 + 0.34 * len(rows)
        left = 0.05 + 0.0145 * max(len(line) for label in labels for line in label.split("\n"))
        figure, axes = new_figure(4.8, height, (left, 0.5 / height, 0.97 - left, 1 - 1.0 / height))
        axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        for i, row in enumerate(rows):
            face = LINE[0] if row.shown else "none"
            # A hollow marker would let its own line through: the line is drawn as two arms.
            if np.isfinite(row.low):
                axes.errorbar(
                    [row.value], [i], xerr=[[max(row.value - row.low, 0)], [max(row.high - row.value, 0)]],
                    fmt="none", ecolor=LINE[0], elinewidth=1.8,
                )  # fmt: skip
            axes.plot([row.value], [i], "o", color=LINE[0], markerfacecolor=face, markersize=7, markeredgewidth=1.5)
        # The middle of the axis is 0: a side that looks wide is a side that is wide.
        ends = np.abs([x for row in rows for x in (row.value, row.low, row.high) if np.isfinite(x)])
        reach = 1.08 * float(ends.max(initial=0)) or 1.0
        axes.set(xlabel=x_label, ylim=(len(rows) - 0.4, -0.6), xlim=(-reach, reach))
        axes.set_yticks(range(len(rows)), labels)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        for x, side, text in ((0, "left", f"◂ {sides[0]}"), (1, "right", f"{sides[1]} ▸")):
            axes.text(x, 1.03, text, color=MUTED, transform=axes.transAxes, ha=side, va="bottom")
    data = [(row.label, row.value, row.low, row.high) for row in rows]
    return Drawing(name, caption, figure, ("model", x_label, "low", "high"), data)


def roc(name: str, caption: str, curves: list[figures.Roc], points: list[Point]) -> Drawing:
    """ROC curves of several models on a square, with readers as points; names in the free corner.

    Args:
        name: see `Drawing`.
        caption: see `Drawing`.
        curves: at most `MOST_CURVES`: more cannot be told apart.
        points: readers, with Wilson's intervals as a thin cross.
    """
    assert len(curves) <= MOST_CURVES and len(points) <= len(_SHAPES)
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.4, 4.3, (0.125, 0.112, 0.855, 0.84))
        axes.set(
            xlabel="1 − specificity (encephalitis called glioma)",
            ylabel="sensitivity (glioma found)",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            xticks=np.linspace(0, 1, 6),
            yticks=np.linspace(0, 1, 6),
        )
        total = len(curves) + len(points)
        heights = [0.045 + 0.062 * (total - 1 - i) for i in range(total)]
        free = max(0.28, heights[0] + 0.04)  # guessing's line leaves the names alone
        for ends in ([0, 0.28], [free, 1]):
            axes.plot(ends, ends, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        for i, curve in enumerate(curves):
            color, dashes = LINE[curve.style], DASHES[curve.style]
            axes.plot(curve.x, curve.y, color=color, linestyle=dashes, zorder=9 - i)
            axes.plot([0.3, 0.38], [heights[i]] * 2, color=color, linestyle=dashes)
            _name(axes, heights[i], curve.label, color)
        rank = np.argsort(np.argsort([-point.specificity[0] for point in points], kind="stable"))
        for i, point in enumerate(points):
            look: dict[str, Any] = {
                "marker": _SHAPES[i],
                "color": INK,
                "markersize": 7,
                "linestyle": "none",
                "zorder": 12,
            }
            x, y = 1 - point.specificity[0], point.sensitivity[0]
            axes.plot([x], [y], **look)
            for xs, ys in (
                ([1 - point.specificity[2], 1 - point.specificity[1]], [y, y]),
                ([x, x], list(point.sensitivity[1:])),
            ):
                axes.plot(xs, ys, color=INK, linewidth=0.8, zorder=11)
            # Neighbours' names part: the one furthest left writes above itself, the next below, and so on.
            up = -1 if rank[i] % 2 else 1
            beside: Any = {"textcoords": "offset points", "va": "center", "ha": "left" if up < 0 else "right"}
            axes.annotate(point.short, (x, y), (-7 * up, 8 * up), fontweight="bold", zorder=13, **beside)
            axes.plot([0.34], [heights[len(curves) + i]], **look)
            _name(axes, heights[len(curves) + i], f"{point.short}  {point.label}", INK)
    rows = [(curve.label, x, y) for curve in curves for x, y in zip(curve.x, curve.y, strict=True)]
    rows += [(point.label, 1 - point.specificity[0], point.sensitivity[0]) for point in points]
    return Drawing(name, caption, figure, ("line", "false positive rate", "true positive rate"), rows)


def _name(axes: Axes, height: float, text: str, color: str) -> None:
    axes.text(0.4, height, text, color=color, va="center", fontweight="bold", fontsize=8.5)
