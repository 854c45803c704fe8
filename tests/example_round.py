"""A round of five slices of two patients, without any run around it."""

import io

import numpy as np
from PIL import Image

from lesion.worklist import round_file
from lesion.worklist.round_file import Item, Shown

IDS = [f"s{i}" for i in range(5)]
LABELS = ("glioma", "encephalitis", "glioma", "glioma", "encephalitis")


def picture(shade, side=96):
    """A grey disc on black, brighter with `shade`, with a mark whose place tells the slice: PNG."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    image = np.where(np.hypot(x, y) < 0.8, 60 + 12 * shade, 0).astype(np.uint8)
    image[30:40, 20 + 6 * shade : 26 + 6 * shade] = 255
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def write(workdir, index=0, ids=IDS):
    """Patient 0 has the first three and a neighbour that is not asked for, patient 1 the others and no T2WI."""

    def stack(sequence, name, count, start=0.0):
        names = [f"{sequence}_{name}{i}.png" for i in range(count)]
        for i, file in enumerate(names):
            round_file.save_picture(workdir, file, picture(i))
        return [Shown(file, start + 6.5 * i) for i, file in enumerate(names)]

    (workdir / "annotate").mkdir(parents=True, exist_ok=True)
    stacks = [
        {"flair": stack("flair", "a", 3, 6.0), "ce_t1wi": stack("ce_t1wi", "a", 4), "t2wi": stack("t2wi", "a", 2)},
        {"flair": stack("flair", "b", 3), "ce_t1wi": stack("ce_t1wi", "b", 2)},
    ]
    items = [Item(name, i // 3, i % 3) for i, name in enumerate(ids)]
    this = round_file.Round(index, "ce_t1wi", True, "python -m launch.active --again", ["PA", "PB"], stacks, items)
    round_file.write(workdir, this)
    return this
