"""Draws figures of a dataset: what preprocessing does (the paper's Fig. 1), a contact sheet of the cohort, and text.

The first two go to the dataset's folder, so neither may show what was burned into a slice: the "before" pictures are
drawn from cleaned pixels, with a hatched box where something was removed. The third shows it: it is private.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from lesion.classes import Classes
from lesion.dataset import SEQUENCES, UNLABELED, labels_or_none, preprocess, pseudonyms
from lesion.dataset.render import PROOF_SIDE, Rendered, RenderedSlice
from lesion.dataset.store import Record
from lesion.dicom.pixels import read_pixels
from lesion.dicom.series import Series

COLORS = {0: "#0072B2", 1: "#D55E00", UNLABELED: "#666666"}  # Okabe and Ito: colour-blind-safe
SLICES_PER_ROW = 6
GAP = 8  # pixels between two slices of a row
MAX_PROOFS = 60  # slices with text that are shown, those left out for it first
PROOFS_PER_ROW = 3
CAPTION = 34  # pixels above a slice with text, two lines


class Example(NamedTuple):
    """One slice at each step of preprocessing.

    Attributes:
        sequence: its name.
        cleaned: uint8 [rows, columns], text removed.
        removed: (left, top, width, height) of what was removed, pixels.
        crop: (left, top, width, height) of the crop, pixels.
        cropped: uint8, any shape.
        final: uint8 [224, 224].
        aspect: row spacing over column spacing.
    """

    sequence: str
    cleaned: np.ndarray
    removed: list[tuple[int, int, int, int]]
    crop: tuple[float, float, float, float]
    cropped: np.ndarray
    final: np.ndarray
    aspect: float


def pick_examples(rendered: Rendered) -> list[Example]:
    """Returns one example a sequence: the middle chosen slice of its first series that is used."""
    examples = []
    for sequence in SEQUENCES:
        for series, slices in zip(rendered.series, rendered.slices, strict=True):
            if series.sequence == sequence and slices:
                examples.append(_example(series, slices[len(slices) // 2]))
                break
    return examples


def _example(series: Series, slice_: RenderedSlice) -> Example:
    plan, spacing = slice_.plan, slice_.plan.spacing
    instance = next(member.instance for member in series.members if member.instance.sop_uid == slice_.sop_uid)
    plane = read_pixels(series.folder, instance)[slice_.frame - 1]
    clean = preprocess.remove_text(plane, plan)
    cleaned = preprocess.to_uint8(clean.image, plan.window, plan.voi_lut)
    rows, columns = plan.side_mm / spacing[0], plan.side_mm / spacing[1]
    box = (plan.center[1] - columns / 2, plan.center[0] - rows / 2, columns, rows)
    cropped = preprocess.crop(cleaned, plan)
    final = preprocess.resize(cropped)
    return Example(series.sequence, cleaned, _boxes(clean.gone), box, cropped, final, spacing[0] / spacing[1])


def _boxes(mask: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Returns boxes around what was removed, letters of a line joined; single specks of noise left out."""
    mask = ndimage.binary_dilation(mask, np.ones((5, max(9, mask.shape[1] // 20 | 1))))
    pieces = ndimage.find_objects(ndimage.label(mask)[0])
    boxes = [(c.start, r.start, c.stop - c.start, r.stop - r.start) for r, c in pieces]
    return [box for box in boxes if box[2] > mask.shape[1] // 12]


def draw_preprocessing(path: Path, examples: Sequence[Example], phantom: bool | str) -> None:
    """Draws a row an example: with text blocked out, cleaned, crop, 224×224."""
    before = "Slice as scanned\n(burned-in text blocked out here)"
    steps = (before, "Text removed, air set to 0", "Crop", "224 × 224")
    figure = Figure(figsize=(12, 3.05 * max(1, len(examples)) + 0.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(max(1, len(examples)), 4, squeeze=False)
    for row, example in zip(axes, examples, strict=False):
        for ax, image in zip(row, (example.cleaned, example.cleaned, example.cropped, example.final), strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=255, aspect=1 if image is example.final else example.aspect)
            ax.set_xticks([])
            ax.set_yticks([])
        for left, top, width, height in example.removed:
            row[0].add_patch(Rectangle((left, top), width, height, facecolor="#888888", edgecolor="white", hatch="///"))
        if example.removed:
            left, top, width, height = max(example.removed, key=lambda box: box[2] * box[3])
            note = {"facecolor": "#222222", "edgecolor": "none", "pad": 1}
            row[0].text(
                left + width / 2, top + height / 2, "removed",
                color="white", fontsize=7, ha="center", va="center", bbox=note,
            )  # fmt: skip
        crop_left, crop_top, *crop_size = example.crop
        row[1].add_patch(Rectangle((crop_left, crop_top), *crop_size, fill=False, edgecolor="#56B4E9", linewidth=1.5))
        row[0].set_ylabel(SEQUENCES[example.sequence], fontsize=13)
        row[2].set_xlabel(f"{example.cropped.shape[1]} × {example.cropped.shape[0]} pixels", fontsize=9)
    for ax, title in zip(axes[0], steps, strict=True):
        ax.set_title(title, fontsize=11)
    _save(figure, path, "Preprocessing", phantom)


def draw_cohort(path: Path, records: dict[str, list[Record]], classes: Classes, phantom: bool | str) -> None:
    """Draws up to six slices, each of another patient while there are enough, for every sequence and label."""
    groups = [
        (sequence, name, label, group)
        for sequence in SEQUENCES
        for name, label in labels_or_none(classes).items()
        if (group := [record for record in records.get(sequence, ()) if record.label == label])
    ]
    figure = Figure(figsize=(12, 2.0 * len(groups) + 0.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for ax, (sequence, name, label, group) in zip(axes, groups, strict=True):
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        ax.imshow(_side_by_side(_spread_over_patients(group, SLICES_PER_ROW)), cmap="gray", vmin=0, vmax=255)
        patients = len({record.patient for record in group})
        ax.set_ylabel(
            f"{SEQUENCES[sequence]}\n{name}\n{len(group)} slices\n{patients} patients", color=COLORS[label],
            rotation=0, ha="right", va="center", fontsize=11,
        )  # fmt: skip
    _save(figure, path, "The cohort", phantom)


def _side_by_side(records: Sequence[Record]) -> np.ndarray:
    """Lays slices side by side in one picture, white where there are too few: axes of their own draw slowly."""
    side, step = preprocess.SIZE, preprocess.SIZE + GAP
    row = np.full((side, SLICES_PER_ROW * step - GAP), 255, np.uint8)
    for column, record in enumerate(records):
        row[:, column * step : column * step + side] = np.asarray(Image.open(io.BytesIO(record.image)))
    return row


def draw_text(private: Path, rendered: Rendered) -> None:
    """Draws each slice in which text was found, before and after, to a private folder; without any, no picture.

    Slices left out for it come first; of many only `MAX_PROOFS` are drawn, evenly chosen, and the title counts all.
    """
    path = private / pseudonyms.TEXT_FILE
    kept = [slice_ for of_series in rendered.slices for slice_ in of_series if slice_.proof]
    looks = rendered.looks[:MAX_PROOFS]
    places = np.linspace(0, len(kept) - 1, min(len(kept), MAX_PROOFS - len(looks))).round().astype(int)
    shown = [*looks, *(kept[place] for place in places)]
    if not shown:
        path.unlink(missing_ok=True)
        return
    width, height = 2 * PROOF_SIDE, PROOF_SIDE + CAPTION
    rows = -(-len(shown) // PROOFS_PER_ROW)
    sheet = Image.new("L", (PROOFS_PER_ROW * (width + GAP), CAPTION + rows * (height + GAP)), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    title = (
        f"Text burned in, before and after. Private: it may show names. {len(kept)} slices are used without it, "
        f"{len(rendered.looks)} are left out ({pseudonyms.REJECTS_FILE} names them); {len(shown)} of both are shown."
    )
    draw.text((GAP, GAP), title, fill=0, font=font)
    for number, slice_ in enumerate(shown):
        row, column = divmod(number, PROOFS_PER_ROW)
        left, top = column * (width + GAP), CAPTION + row * (height + GAP)
        caption = f"{slice_.sop_uid[-60:]}, frame {slice_.frame}\n{slice_.look or 'used'}"
        draw.text((left, top), caption, fill=0, font=font)
        sheet.paste(Image.open(io.BytesIO(slice_.proof)), (left, top + CAPTION))
    with pseudonyms.private_file(path, binary=True) as stream:
        sheet.save(stream, "PNG")


def _spread_over_patients(records: Sequence[Record], limit: int) -> list[Record]:
    """Returns up to `limit` records, the patients in turn, in order of their ids, which is as good as random."""
    by_patient: dict[str, list[Record]] = {}
    for record in sorted(records):
        by_patient.setdefault(record.patient, []).append(record)
    queues = [by_patient[patient] for patient in sorted(by_patient)]
    depth = max(map(len, queues), default=0)
    return [queue[i] for i in range(depth) for queue in queues if i < len(queue)][:limit]


def _save(figure: Figure, path: Path, title: str, phantom: bool | str) -> None:
    notes = {True: " · Phantom: simulated images, no patients", False: "", "mixed": " · Phantom and patients mixed"}
    figure.suptitle(title + notes[phantom], fontsize=13, ha="left", x=0.01)
    figure.savefig(path, metadata={"Software": None})
