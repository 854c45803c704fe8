"""Prepares a scanned slice as a 224×224 8-bit picture of the head: window, burned-in text, crop, resize.

Each of these is decided once a series, so that its slices stay comparable (a brain that fills the picture in one slice
and a third of it in the next would tell the network where in the head it is, and a window that follows each slice's own
maximum would dim the brain wherever a vessel enhances):

- Window: one of three.
  `head`: white is taken from the inner head (`INNER_MM` below its surface, where there is little but brain): the 99th
  percentile of a slice, median over the series, raised until at most `MAX_CLIPPED_PERCENT` of it are brighter. Scalp
  fat, the brightest of most sequences, is white then, and does not dim the brain. Black is the 1st percentile of all of
  the head: skull and air in it are black in all sequences, and how much of them lies in the inner head is chance.
  `header`: the header's VOI lookup table if all slices have the same, or its VOI window (median over the series) if it
  is sane; else `head`. Sane: most of the head lies inside it, and it is not many times wider than the head's own range.
  `series`: the 1st and 99.5th percentile of all of the head.
- Text: everything outside the head becomes 0. The head is found on a grid of about 2 mm whose cells hold the *minimum*
  of their pixels: strokes thinner than a cell vanish there, so letters that touch the head do not become part of it.
  Letters over the head itself are found (`burned_in_text`) and filled from their surroundings: read, where a slice may
  hold text, else by their look alone, which leaves what is grey, transparent, smoothed and below 12 pixels, or of
  strokes wider than 5. A slice of which more than `MAX_FILLED` of the head would be filled is not used.
- Crop: a square around the head, the same for all slices of a series. It is measured on the brain where that can be
  told; on real slices scalp and skull mostly hang together with it and stay. Brain is the largest piece of tissue in a
  slice once thin bridges are cut (skull is dark in all three sequences), and the box holds what at least a fifth of
  those slices call brain, so that a nose or one slice gone wrong does not move it. Where no brain can be told from the
  head, the head's box is used: the crop is then too wide, never too narrow.
- Size: the square is measured in millimetres, padded with 0 where it leaves the picture, and brought to 224×224 by one
  bicubic Pillow resize, which also makes anisotropic pixels square. Resizing once blurs less than doing it in turn.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from lesion.dataset import burned_in_text
from lesion.dicom import scan

SIZE = 224
CELL_MM = 2.0  # of the coarse grid; between the width of strokes (about 1 mm) and the thickness of scalp (5 mm)
MARGIN_MM = 4.0  # around the brain: the coarse grid may be off by two cells
INNER_MM = 14.0  # of scalp and skull around the brain
INNER_PERCENTILE, MAX_CLIPPED_PERCENT = 99.0, 1.5  # the latter of the slices looked at: 2 of all
HEAD_PERCENTILES = (1.0, 99.5)
WINDOWS = {  # each way to choose the window, as cohort.json tells it
    "head": f"percentile {HEAD_PERCENTILES[0]} of the head to percentile {INNER_PERCENTILE} of its inside, "
    f"{INNER_MM} mm below its surface, median over slices; at most {MAX_CLIPPED_PERCENT} % of that are clipped",
    "header": "VOI lookup table or sane VOI window of the header, else as head",
    "series": f"percentiles {HEAD_PERCENTILES} of the head",
}
VOTE = 0.2  # share of the slices with brain that must call a cell brain
SIDE_MM = (80.0, 260.0)  # of a believable crop
MAX_FILLED = 0.02  # of the head's area; more letters than that hide a lesion, or are none
SETTINGS = {  # goes into cohort.json; another one makes another dataset
    "version": 2,
    "size": SIZE,
    "crop": f"square around the head, on the brain where that is told from it, one a series, margin {MARGIN_MM} mm",
    "text": f"read where the slice may hold some, else found if white; at most {MAX_FILLED:.0%} of the head is filled",
    "resize": "Pillow bicubic",
}


def settings(window: str = "head") -> dict[str, Any]:
    """Returns how slices are read and prepared, as cohort.json and every run on the dataset record it.

    Args:
        window: how the window is chosen, a key of `WINDOWS`.
    """
    return {**SETTINGS, "window": window, "window_is": WINDOWS[window], "sequence_version": scan.VERSION}


class Plan(NamedTuple):
    """Window and crop, which all slices of a series share.

    Attributes:
        window: values shown as 0 and 255.
        threshold: values above it are tissue, on the coarse grid.
        center: (row, column) of the crop's middle, in pixels.
        side_mm: of the square crop.
        spacing: row and column spacing, mm.
        region: what the crop was measured on: "brain", "head", or "nothing" (the whole picture is taken).
        reads_text: whether text is read (OCR), not only found by its look.
        voi_lut: grey values from one end of `window` to the other, see `lesion.dicom.read.Frame`; empty: linear.
    """

    window: tuple[float, float]
    threshold: float
    center: tuple[float, float]
    side_mm: float
    spacing: tuple[float, float]
    region: str
    voi_lut: bytes = b""
    reads_text: bool = False


class Cleaned(NamedTuple):
    """A slice without text.

    Attributes:
        image: float32 [rows, columns], air at the window's lower end.
        gone: what was bright or written and is gone, bool [rows, columns].
        written: whether text was found in it.
        look: why somebody should look at the slice, which is not used then; or empty.
    """

    image: np.ndarray
    gone: np.ndarray
    written: bool
    look: str


def plan_series(
    volume: np.ndarray,
    spacing: tuple[float, float],
    windows: list[tuple[float, float] | None],
    voi_luts: Sequence[bytes] = (),
    window_from: str = "head",
) -> Plan:
    """Chooses window and crop of a series.

    Args:
        volume: float32 [slices, rows, columns], dark air.
        spacing: row and column spacing, mm.
        windows: the header's VOI range of each slice, or None.
        voi_luts: the header's VOI lookup table of each slice, as `lesion.dicom.read.Frame` holds it.
        window_from: how the window is chosen, a key of `WINDOWS`.

    Returns:
        A `Plan`; for pictures without a head it takes everything in.
    """
    assert volume.ndim == 3 and len(windows) == len(volume), (volume.shape, len(windows))
    coarse = np.stack([_coarsen(image, spacing) for image in volume])
    threshold = _threshold(coarse)
    heads = np.stack([_find_head(image > threshold) for image in coarse])
    brains = np.stack([_find_brain(image > threshold, head) for image, head in zip(coarse, heads, strict=True)])
    cells = _cell_shape(spacing)
    millimetres = np.array(cells) * np.array(spacing)  # of one coarse cell
    window, voi_lut = _choose_window(volume, heads, spacing, windows, voi_luts, window_from)
    for region, masks in (("brain", brains), ("head", heads)):
        voters = masks.any(axis=(1, 2))
        if not voters.any():
            continue
        agreed = masks[voters].sum(axis=0) >= max(1.0, VOTE * voters.sum())
        low, high = _extent(agreed)
        side = float(((high - low) * millimetres).max() + 2 * MARGIN_MM)
        if SIDE_MM[0] <= side <= SIDE_MM[1]:
            center = (low + high) / 2 * np.array(cells)
            return Plan(window, threshold, (float(center[0]), float(center[1])), side, spacing, region, voi_lut)
    rows, columns = volume.shape[1:]
    side = max(rows * spacing[0], columns * spacing[1])
    return Plan(window, threshold, (rows / 2, columns / 2), side, spacing, "nothing", voi_lut)


def prepare_slice(image: np.ndarray, plan: Plan) -> np.ndarray:
    """Returns a slice after all steps, float32 [rows, columns] to uint8 [224, 224]."""
    return finish(remove_text(image, plan).image, plan)


def finish(clean: np.ndarray, plan: Plan) -> np.ndarray:
    """Returns a slice without text after the other steps, float32 [rows, columns] to uint8 [224, 224]."""
    return resize(crop(to_uint8(clean, plan.window, plan.voi_lut), plan))


def output_spacing(plan: Plan) -> tuple[float, float]:
    """Returns row and column spacing of a prepared slice, mm; equal, because the crop is square in millimetres."""
    return plan.side_mm / SIZE, plan.side_mm / SIZE


def sane_window(values: np.ndarray, windows: list[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Returns the median VOI range if every slice has one and it is sane for the head's `values`, else None."""
    ranges = [window for window in windows if window]
    if not ranges or len(ranges) < len(windows):
        return None
    bottom, top = (float(x) for x in np.median(ranges, axis=0))
    low, high = np.percentile(values, HEAD_PERCENTILES)
    shown = np.mean((values >= bottom) & (values <= top))
    return (bottom, top) if shown >= 0.6 and top - bottom <= 3 * max(high - low, 1.0) else None


def inner_white(slices: Sequence[np.ndarray]) -> float:
    """Returns the value to be shown white, from the values [N] inside the head of each slice, none of them empty."""
    median = np.median([np.percentile(values, INNER_PERCENTILE) for values in slices])
    return float(max(median, np.percentile(np.concatenate(slices), 100 - MAX_CLIPPED_PERCENT)))


def to_uint8(image: np.ndarray, window: tuple[float, float], voi_lut: bytes = b"") -> np.ndarray:
    """Maps the window to 0..255, linearly or by a lookup table's entries; clipped and rounded; any shape."""
    low, high = window
    share = np.clip((image - low) / (high - low), 0, 1)
    if voi_lut:
        entries = np.frombuffer(voi_lut, "<u2").astype(float)
        grey = (entries - entries.min()) / max(1.0, np.ptp(entries))
        share = np.interp(share, np.linspace(0, 1, len(grey)), grey)
    return np.rint(share * 255).astype(np.uint8)


def remove_text(image: np.ndarray, plan: Plan) -> Cleaned:
    """Blanks everything outside the head and fills letters over it.

    Args:
        image: float32 [rows, columns].
        plan: of the series.
    """
    assert image.ndim == 2, image.shape
    head = head_mask(image, plan)
    if plan.reads_text:
        glyphs = burned_in_text.strokes(image, burned_in_text.read(image), head)
    else:
        glyphs = burned_in_text.find(image)
    clean, look = image, ""
    filled = (glyphs & head).sum() / max(1, head.sum())
    if filled:
        nearest = ndimage.distance_transform_edt(glyphs, return_distances=False, return_indices=True)
        clean = image[tuple(nearest)]
    clean = np.where(head, clean, plan.window[0])
    if filled > MAX_FILLED:
        look = f"text or what looks like it covers {filled:.1%} of the head"
    elif filled and plan.reads_text and burned_in_text.read(clean):
        look = "text can be read over the head still"
    # Air holds noise; what was bright in it, by half the window or more, was something drawn.
    bright = image > (plan.window[0] + plan.window[1]) / 2
    return Cleaned(clean, (bright & ~head) | glyphs, bool(glyphs.any()), look)


def head_mask(image: np.ndarray, plan: Plan) -> np.ndarray:
    """Returns the head in one slice, bool [rows, columns]; all True if the series has none."""
    if plan.region == "nothing":
        return np.ones(image.shape, bool)
    head = _find_head(_coarsen(image, plan.spacing) > plan.threshold)
    # The minimum eats up to a cell of the skin. A cell more on each side gives it back, except to pieces that do not
    # hang together with the head: those are bits of letters.
    core, wide = _magnify(head, image.shape, plan), _magnify(_grow(head, 1), image.shape, plan)
    pieces, count = ndimage.label((wide & (image > plan.threshold)) | core)
    attached = np.zeros(count + 1, bool)
    attached[np.unique(pieces[core])] = True
    return attached[pieces] & wide


def _magnify(coarse: np.ndarray, shape: tuple[int, ...], plan: Plan) -> np.ndarray:
    """Brings a mask from the coarse grid back to pixels, the last cells going on to the border."""
    full = np.kron(coarse, np.ones(_cell_shape(plan.spacing), bool))
    missing = [(0, max(0, n - m)) for n, m in zip(shape, full.shape, strict=True)]
    return np.pad(full, missing, mode="edge")[: shape[0], : shape[1]]


def _choose_window(
    volume: np.ndarray,
    heads: np.ndarray,
    spacing: tuple[float, float],
    windows: list[tuple[float, float] | None],
    voi_luts: Sequence[bytes],
    window_from: str,
) -> tuple[tuple[float, float], bytes]:
    """Returns the window of a series and its lookup table, see `plan_series`; `heads` are on the coarse grid."""
    cells = _cell_shape(spacing)
    slices = [_head_values(image, head, cells) for image, head in zip(volume, heads, strict=True)]
    slices = [values for values in slices if values.size] or [volume.ravel()]
    low, high = (float(x) for x in np.percentile(np.concatenate(slices), HEAD_PERCENTILES))
    if window_from == "header":
        if windows[0] and len({*zip(windows, voi_luts, strict=False)}) == 1 and voi_luts[0]:
            return windows[0], voi_luts[0]
        if window := sane_window(np.concatenate(slices), windows):
            return window, b""
    if window_from != "series":
        depth = max(1, round(INNER_MM / float(np.mean(np.array(cells) * spacing))))
        inner = [_head_values(image, _shrink(head, depth), cells) for image, head in zip(volume, heads, strict=True)]
        high = inner_white([values for values in inner if values.size] or slices)
    return ((low, high) if high > low else (low - 0.5, low + 0.5)), b""  # of a constant picture


def _head_values(image: np.ndarray, head: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """Returns one pixel of each cell of the head, without what was drawn over it."""
    values = image[:: cells[0], :: cells[1]][: head.shape[0], : head.shape[1]][head]
    return values if burned_in_text.repeats_maximum(image) is None else values[values < image.max()]


def crop(image: np.ndarray, plan: Plan) -> np.ndarray:
    """Cuts the plan's square out of a picture, padded with 0; its pixels keep their (possibly unequal) spacing."""
    assert image.ndim == 2, image.shape
    lengths = [max(1, round(plan.side_mm / s)) for s in plan.spacing]
    starts = [round(c - n / 2) for c, n in zip(plan.center, lengths, strict=True)]
    out = np.zeros(lengths, image.dtype)
    extents = zip(starts, lengths, image.shape, strict=True)
    source = tuple(slice(max(0, a), max(0, min(m, a + n))) for a, n, m in extents)
    target = tuple(slice(s.start - a, s.stop - a) for a, s in zip(starts, source, strict=True))
    out[target] = image[source]
    return out


def resize(image: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Resizes with Pillow's bicubic filter (antialiased when it shrinks), uint8 [rows, columns] to [size, size]."""
    assert image.ndim == 2 and image.dtype == np.uint8, (image.shape, image.dtype)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def _cell_shape(spacing: tuple[float, float]) -> tuple[int, int]:
    """Returns the pixels in a coarse cell, rows and columns."""
    return max(1, round(CELL_MM / spacing[0])), max(1, round(CELL_MM / spacing[1]))


def _coarsen(image: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Returns the minimum of each cell, [rows // r, columns // c]; pixels beyond the last whole cell are left out."""
    r, c = (min(n, m) for n, m in zip(_cell_shape(spacing), image.shape, strict=True))
    rows, columns = image.shape[0] // r * r, image.shape[1] // c * c
    lines = np.minimum.reduce([image[i:rows:r] for i in range(r)])  # ten times as fast as a minimum over reshaped axes
    return np.minimum.reduce([lines[:, j:columns:c] for j in range(c)])


def _threshold(coarse: np.ndarray) -> float:
    """Returns the value a fifth of the way from air to the median of what fills the middle of the field of view."""
    rows, columns = coarse.shape[1:]
    middle = coarse[:, rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    air = float(np.percentile(coarse, 2))
    tissue = middle[middle > air + 0.1 * (float(np.percentile(middle, 99)) - air)]
    return air + 0.2 * (float(np.median(tissue)) - air) if tissue.size else air


def _find_head(tissue: np.ndarray) -> np.ndarray:
    """Returns brain and what surrounds it within reach, holes filled; text farther off is left out.

    Scalp may be a ring of its own, or in pieces, around a dark skull: pieces count as head if most of them lies within
    14 mm of the largest solid piece, or if they enclose its middle.
    """
    solid = _largest(_grow(_shrink(tissue, 1), 1))
    if not solid.any():
        return solid
    near = _grow(solid, 7)
    pieces, count = ndimage.label(tissue | solid, np.ones((3, 3)))
    share = ndimage.mean(near, pieces, range(1, count + 1))
    low, high = _extent(solid)
    middle = (low + high) / 2
    kept = [
        number
        for number, (box, part) in enumerate(zip(ndimage.find_objects(pieces), share, strict=True), start=1)
        if part > 0.5 or all(side.start < m < side.stop for side, m in zip(box, middle, strict=True))
    ]
    # Close gaps of 8 mm (between slices of scalp, at sinuses) before filling; then cut off what is thinner than 6 mm
    # and sticks out, which letters touching the skin would be.
    wide = np.pad(np.isin(pieces, kept), 8)
    whole = ndimage.binary_fill_holes(_shrink(_grow(wide, 4), 4))
    return _largest(_grow(_shrink(whole, 1), 1))[8:-8, 8:-8]


def _find_brain(tissue: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Returns the largest piece of tissue once bridges of 8 mm are cut; empty unless it is a good part of the head."""
    core = ndimage.binary_fill_holes(_largest(_shrink(tissue, 2)))
    brain = _grow(core, 3) & head
    return brain if 0.3 * head.sum() <= brain.sum() <= 0.9 * head.sum() else np.zeros_like(brain)


def _largest(mask: np.ndarray) -> np.ndarray:
    """Returns the largest piece of a mask."""
    pieces, count = ndimage.label(mask)
    if count < 2:
        return mask
    return pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])


def _extent(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns first and one-past-last row and column of a mask, float [2] each."""
    cells = np.argwhere(mask)
    return (cells.min(axis=0).astype(float), cells.max(axis=0) + 1.0) if len(cells) else (np.zeros(2), np.zeros(2))


def _grow(mask: np.ndarray, cells: int) -> np.ndarray:
    """Dilates by a square; by distances, which costs the same for any size."""
    return ndimage.distance_transform_cdt(~mask) <= cells if mask.any() else mask


def _shrink(mask: np.ndarray, cells: int) -> np.ndarray:
    """Erodes by a square; beyond the border there is nothing."""
    return ndimage.distance_transform_cdt(np.pad(mask, 1))[1:-1, 1:-1] > cells
