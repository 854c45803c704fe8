"""A checkpoint as a page that opens offline: the first layer's filters as a picture, and a tree to unfold."""

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
from lesion.inspect import show
from lesion.inspect.opening import Opened
from lesion.inspect.show import Seen

SIDE, GAP, A_ROW = 33, 2, 16  # of the picture of filters: pixels of a filter, between filters; filters a row
BLUE_FIRST = {"bvlc", "keras_caffe"}  # preprocessing whose networks want blue, green, red
STYLE = (
    ":root{color-scheme:light}body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:70rem;"
    "padding:0 1rem;color:#222;background:#fff}img{image-rendering:pixelated;max-width:100%}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere}h2{margin-top:2rem;font-size:1.1rem}.tree{overflow-x:auto}"
)


class Array(NamedTuple):
    """What the tree shows of an array, see `measure.Measures`; `values` the array itself where it is small."""

    shape: tuple[int, ...]
    dtype: str
    mean: float | None
    spread: float | None
    norm: float | None
    not_finite: int | None
    values: np.ndarray | None


def filters(kernel: np.ndarray, blue_first: bool = False) -> np.ndarray:
    """The filters of a first layer side by side, each scaled by its largest weight: grey is 0.

    Args:
        kernel: [height, width, 1 or 3, filters].
        blue_first: whether its channels are blue, green, red.

    Returns:
        uint8 [rows, columns, 3].
    """
    assert kernel.ndim == 4 and kernel.shape[2] in (1, 3), kernel.shape
    weights = np.nan_to_num(np.moveaxis(kernel.astype(np.float32), -1, 0)[..., :: -1 if blue_first else 1])
    largest = np.maximum(np.abs(weights).max((1, 2, 3), keepdims=True), np.finfo(np.float32).tiny)
    pixels = np.rint(127.5 * (1 + weights / largest)).astype(np.uint8)
    scale = max(2, SIDE // kernel.shape[0])
    pixels = np.repeat(np.repeat(np.broadcast_to(pixels, (*pixels.shape[:3], 3)), scale, 1), scale, 2)
    pixels = np.pad(pixels, ((0, -len(pixels) % A_ROW), (GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255)
    count, height, width, _ = pixels.shape
    rows = pixels.reshape(count // A_ROW, A_ROW, height, width, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(count // A_ROW * height, A_ROW * width, 3)


def write(path: Path, opened: Opened, seen: Sequence[Seen]) -> None:
    """Writes the page, all at once."""
    first = show.first_kernel(opened)
    kernel = next((one.array for one in seen if one.name == first), None)
    parts = [f"<h1>{html.escape(opened.path.name)}</h1><pre>{html.escape(chr(10).join(show.totals(seen)))}</pre>"]
    if kernel is not None:
        blue = opened.provenance.get("preprocessing") in BLUE_FIRST
        parts.append(
            f"<h2>Filters of the first layer, {html.escape(str(first))}</h2><p>{kernel.shape[3]} filters of "
            f"{kernel.shape[0]}×{kernel.shape[1]} pixels, each scaled by its largest weight; grey is 0.</p>"
            f'<img alt="filters of the first layer" src="{_picture(filters(kernel, blue))}">'
        )
    parts.append(f'<h2>Leaf by leaf</h2><div class="tree">{_unfolding(_tree(seen))}</div>')
    parts.append(f"<h2>Where it came from</h2><pre>{html.escape(chr(10).join(show.origin(opened)))}</pre>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
    title = f"<title>{html.escape(opened.path.name)}</title>"
    files.write_text(path, f"<!doctype html>{head}{title}{''.join(parts)}\n")


def _tree(seen: Sequence[Seen]) -> dict[str, Any]:
    """Nested as the names are."""
    leaves = {}
    for one in seen:
        leaf, small = one.leaf, one.array is not None and one.array.size <= show.SMALL
        mean, spread, norm, bad = one.measures or (None,) * 4
        leaves[one.name] = Array(
            shape=leaf.shape or (),
            dtype=leaf.dtype or leaf.kind,
            mean=_short(mean),
            spread=_short(spread),
            norm=_short(norm),
            not_finite=bad,
            values=one.array if small else None,
        )
    return trees.unflatten(leaves)


def _short(value: float | None) -> float | None:
    """Four digits."""
    return None if value is None else float(f"{value:.4g}")


def _unfolding(tree: dict[str, Any]) -> str:
    with treescope.active_autovisualizer.set_scoped(None):  # arrays in words: a picture of each would load the page
        return treescope.render_to_html(tree)


def _picture(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
