"""Grad-CAM sheets: each slice, beside it the slice with its map over it, below them the prediction."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image

from lesion import files

NOTE = (
    "Grad-CAM shows where the last layers look, not why. Where a slice is not coloured, nothing speaks for the class "
    "called, or something speaks against it. Research use only."
)
PHANTOM = {
    True: "PHANTOM: simulated images, no patients",
    False: "",
    "mixed": "PARTLY PHANTOM: simulated images and patients mixed",
}
GAP = 6  # pixels between a slice and its copy
STRONGEST = 0.65  # opacity of the map where it is highest
WIDTH_IN, HEIGHT_IN = 2.75, 1.75  # size of a panel, inches


class Panel(NamedTuple):
    """A slice: `image` uint8 [S, S], `heat` float32 [h, w] at least 0, and the caption below."""

    image: np.ndarray
    heat: np.ndarray
    caption: str


class Row(NamedTuple):
    """Panels side by side: `name` is written before them, `empty` in their place where there are none."""

    name: str
    panels: Sequence[Panel]
    empty: str = "none"


def enlarge(heat: np.ndarray, side: int) -> np.ndarray:
    """Enlarges a map [h, w] bilinearly to float32 [side, side] in [0, 1]: its highest cell is 1, or all are 0."""
    assert heat.ndim == 2, heat.shape
    top = float(heat.max())
    if not top > 0:
        return np.zeros((side, side), np.float32)
    small = Image.fromarray(heat.astype(np.float32) / np.float32(top))
    return np.clip(np.asarray(small.resize((side, side), Image.Resampling.BILINEAR)), 0.0, 1.0)


def peak(heat: np.ndarray, side: int) -> tuple[float, float] | None:
    """Returns row and column, in pixels, of the centre of a map's [h, w] highest cell; None if none is above 0."""
    if not heat.max() > 0:
        return None
    cell = np.unravel_index(int(np.argmax(heat)), heat.shape)
    row, column = ((i + 0.5) * side / n - 0.5 for i, n in zip(cell, heat.shape, strict=True))
    return float(row), float(column)


def colours() -> ListedColormap:
    """Returns Matplotlib's inferno, safe for the colour-blind, lighter and more opaque where the map is higher."""
    rgba = matplotlib.colormaps["inferno"](np.linspace(0.15, 1.0, 256))
    rgba[:, 3] = np.linspace(0.0, STRONGEST, 256)
    return ListedColormap(rgba)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Returns the slice and, right of it, the slice with its map over it: uint8 [S, 2 S + GAP, 3]."""
    assert image.ndim == 2 and image.shape[0] == image.shape[1] and image.dtype == np.uint8, (image.shape, image.dtype)
    grey = np.repeat(image[..., None] / 255.0, 3, axis=-1)
    colour = colours()(enlarge(heat, len(image)))
    mixed = grey * (1 - colour[..., 3:]) + colour[..., :3] * colour[..., 3:]
    both = np.concatenate([grey, np.ones((len(image), GAP, 3)), mixed], axis=1)
    return np.rint(both * 255).astype(np.uint8)


def draw(path: Path, rows: Sequence[Row], title: str, notes: Sequence[str], phantom: bool | str) -> None:
    """Writes the sheet as PNG, whole or not at all.

    Args:
        path: file to write.
        rows: rows from top to bottom.
        title: title of the sheet.
        notes: lines below the title.
        phantom: whether the cohort is a phantom, or `mixed`.
    """
    columns = max(2, *(len(row.panels) for row in rows))
    width = 1.3 + WIDTH_IN * columns
    wrapped = [textwrap.wrap(note, int(15 * width)) for note in (*notes, NOTE)]
    lines = [*filter(None, [PHANTOM[phantom]]), *(line for note in wrapped for line in note)]
    top, bar = 0.45 + 0.2 * len(lines), 0.95
    size = width, top + HEIGHT_IN * len(rows) + bar
    figure = Figure(figsize=size, dpi=100)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(rows), columns, left=1.3 / size[0], right=1 - 0.05 / size[0], top=1 - top / size[1], bottom=bar / size[1],
        hspace=0.32, wspace=0.04,
    )  # fmt: skip
    for i, row in enumerate(rows):
        for j in range(columns):
            ax = figure.add_subplot(grid[i, j])
            ax.set_axis_off()
            if j < len(row.panels):
                _panel(ax, row.panels[j])
            elif j == 0:
                ax.text(0.02, 0.5, row.empty, transform=ax.transAxes, va="center", fontsize=9, color="#444444")
            if j == 0:
                ax.text(-0.04, 0.5, row.name, transform=ax.transAxes, ha="right", va="center", fontsize=10)
    figure.text(0.1 / size[0], 1 - 0.12 / size[1], title, fontsize=13, va="top")
    for i, line in enumerate(lines):
        weight = "bold" if line in PHANTOM.values() else "normal"
        figure.text(0.1 / size[0], 1 - (0.38 + 0.2 * i) / size[1], line, fontsize=9, va="top", weight=weight)
    _bar(figure, size)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _panel(ax: Axes, panel: Panel) -> None:
    side = len(panel.image)
    ax.imshow(overlay(panel.image, panel.heat))
    highest = peak(panel.heat, side)
    if highest:
        row, column = highest
        ax.plot(side + GAP + column, row, "+", color="white", markersize=9, markeredgewidth=2.6)
        ax.plot(side + GAP + column, row, "+", color="black", markersize=8, markeredgewidth=1.0)
    caption = panel.caption if highest else f"{panel.caption}\nno place speaks for it"
    ax.text(0, side + 8, caption, fontsize=7.5, va="top", linespacing=1.25)


def _bar(figure: Figure, size: tuple[float, float]) -> None:
    """Draws the scale of the colours, over the grey of a slice."""
    ax = figure.add_axes((1.3 / size[0], 0.36 / size[1], 2.2 / size[0], 0.13 / size[1]))
    ax.set_facecolor("#555555")
    bar = figure.colorbar(ScalarMappable(cmap=colours()), cax=ax, orientation="horizontal", ticks=[0, 0.5, 1])
    bar.ax.tick_params(labelsize=7.5, length=2, pad=1)
    label = "evidence, share of the map's highest (+)"
    figure.text(3.65 / size[0], 0.42 / size[1], label, fontsize=8, va="center")
