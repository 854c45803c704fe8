"""A round of five slices of two patients, without any run around it."""

import io

import numpy as np
from PIL import Image

from lesion.worklist import round_file
from lesion.worklist.round_file import Item, StackSlice

IDS = [f"s{i}" for i in range(5)]
LABELS = ("glioma", "encephalitis", "glioma", "glioma", "encephalitis")


def picture(shade, side=96):
    """Returns a PNG of a grey disc on black, brighter with `shade`, with a mark whose place tells the slice."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    image = np.where(np.hypot(x, y) < 0.8, 60 + 12 * shade, 0).astype(np.uint8)
    image[30:40, 20 + 6 * shade : 26 + 6 * shade] = 255
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def write(workdir, index=0, ids=IDS, **fields):
    """Writes a round: patient 0 has three queried slices and a neighbour that is not, patient 1 the others, no T2WI."""

    def stack(sequence, name, count, start=0.0):
        pictures = [f"{sequence}_{name}{i}.png" for i in range(count)]
        for i, file in enumerate(pictures):
            round_file.save_picture(workdir, file, picture(i))
        return [StackSlice(file, start + 6.5 * i) for i, file in enumerate(pictures)]

    (workdir / "annotate").mkdir(parents=True, exist_ok=True)
    stacks = [
        {"flair": stack("flair", "a", 3, 6.0), "ce_t1wi": stack("ce_t1wi", "a", 4), "t2wi": stack("t2wi", "a", 2)},
        {"flair": stack("flair", "b", 3), "ce_t1wi": stack("ce_t1wi", "b", 2)},
    ]
    items = [Item(name, i // 3, i % 3) for i, name in enumerate(ids)]
    command, patients = "python -m launch.active --again", ["PA", "PB"]
    round_ = round_file.Round(index, "ce_t1wi", True, command, patients, stacks, items, fit=index)._replace(**fields)
    round_file.write(workdir, round_)
    return round_
