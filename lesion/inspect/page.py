"""Writes a checkpoint as a page that opens offline: a picture of the first layer's filters, and a tree to unfold."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import treescope
from PIL import Image

from lesion import files, trees
from lesion.inspect import text
from lesion.inspect.reader import Checkpoint
from lesion.inspect.text import LeafSummary

SIDE, GAP, COLUMNS = 33, 2, 16  # picture of filters: pixels of a filter, pixels between filters, filters per row
BLUE_FIRST = {"bvlc", "keras_caffe"}  # preprocessing of networks whose channels are blue, green, red
STYLE = (
    ":root{color-scheme:light}body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:70rem;"
    "padding:0 1rem;color:#222;background:#fff}img{image-rendering:pixelated;max-width:100%}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere}h2{margin-top:2rem;font-size:1.1rem}.tree{overflow-x:auto}"
)


class Array(NamedTuple):
    """An array as the tree shows it: its `measure.Measures`, None if unread, and its `values`, None if it is large."""

    shape: tuple[int, ...]
    dtype: str
    mean: float | None
    spread: float | None
    norm: float | None
    not_finite: int | None
    values: np.ndarray | None


def filter_grid(kernel: np.ndarray, blue_first: bool = False) -> np.ndarray:
    """Draws the filters of a first layer side by side, each scaled by its largest weight: grey is 0.

    Args:
        kernel: [height, width, 1 or 3, filters].
        blue_first: whether the channels are blue, green, red.

    Returns:
        uint8 [rows, columns, 3].
    """
    assert kernel.ndim == 4 and kernel.shape[2] in (1, 3), kernel.shape
    weights = np.nan_to_num(np.moveaxis(kernel.astype(np.float32), -1, 0)[..., :: -1 if blue_first else 1])
    largest = np.maximum(np.abs(weights).max((1, 2, 3), keepdims=True), np.finfo(np.float32).tiny)
    pixels = np.rint(127.5 * (1 + weights / largest)).astype(np.uint8)
    scale = max(2, SIDE // kernel.shape[0])
    pixels = np.repeat(np.repeat(np.broadcast_to(pixels, (*pixels.shape[:3], 3)), scale, 1), scale, 2)
    pixels = np.pad(pixels, ((0, -len(pixels) % COLUMNS), (GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255)
    count, height, width, _ = pixels.shape
    rows = pixels.reshape(count // COLUMNS, COLUMNS, height, width, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(count // COLUMNS * height, COLUMNS * width, 3)


def write(path: Path, source: Checkpoint, summaries: Sequence[LeafSummary]) -> None:
    """Writes the page of a checkpoint.

    Args:
        path: path of the page.
        source: the checkpoint.
        summaries: summaries of its leaves, from `text.summarize`.
    """
    name = html.escape(source.path.name)
    parts = [f"<h1>{name}</h1>{_preformatted(text.total_lines(summaries))}"]
    first = text.first_kernel(source)
    kernel = next((summary.array for summary in summaries if summary.name == first), None)
    if kernel is not None:
        pixels = filter_grid(kernel, source.provenance.get("preprocessing") in BLUE_FIRST)
        parts.append(
            f"<h2>Filters of the first layer, {html.escape(str(first))}</h2><p>{kernel.shape[3]} filters of "
            f"{kernel.shape[0]}×{kernel.shape[1]} pixels, each scaled by its largest weight; grey is 0.</p>"
            f'<img alt="filters of the first layer" src="{_data_url(pixels)}">'
        )
    with treescope.active_autovisualizer.set_scoped(None):  # a picture of each array would make the page heavy
        tree = treescope.render_to_html(_tree(summaries))
    parts.append(f'<h2>Leaf by leaf</h2><div class="tree">{tree}</div>')
    parts.append(f"<h2>Where it came from</h2>{_preformatted(text.origin_lines(source))}")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
    files.write_text(path, f"<!doctype html>{head}<title>{name}</title>{''.join(parts)}\n")


def _preformatted(lines: Sequence[str]) -> str:
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>"


def _tree(summaries: Sequence[LeafSummary]) -> dict[str, Any]:
    """Returns an `Array` for each leaf, nested by the parts of the names."""
    leaves = {}
    for name, leaf, measures, array in summaries:
        mean, spread, norm, not_finite = measures or (None,) * 4
        numbers = _four_digits(mean), _four_digits(spread), _four_digits(norm)
        values = array if array is not None and array.size <= text.SMALL else None
        leaves[name] = Array(leaf.shape or (), leaf.dtype or leaf.kind, *numbers, not_finite, values)
    return trees.unflatten(leaves)


def _four_digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _data_url(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
