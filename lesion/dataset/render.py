"""Series of slices to pictures: pixels decoded, a series at a time, windowed, cropped, written as PNG."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lesion import workers
from lesion.dataset import preprocess
from lesion.dicom import read, scan
from lesion.dicom.scan import Series

PLAN_SLICES = 11  # of a series are looked at to choose window and crop


class Picture(NamedTuple):
    """A prepared slice: PNG bytes, digest of its pixels, where it was scanned, and the plan of its series."""

    sop_uid: str
    patient_id: str
    number: int
    png: bytes
    digest: str
    position_mm: float
    plan: preprocess.Plan


def picture_series(series: Series) -> tuple[list[Picture], list[read.Reject]]:
    """Prepares the chosen slices of one series; what cannot be decoded is rejected, the rest goes on.

    Window and crop are planned on slices spread evenly over the series, chosen or not, so that they do not depend on
    the choice; other slices are not decoded.
    """
    everything = [(mr.sop_uid, number) for mr, numbers, _ in series.members for number in numbers]
    spread = np.linspace(0, len(everything) - 1, min(PLAN_SLICES, len(everything))).round().astype(int)
    planned = {everything[i] for i in spread}
    rejects: list[read.Reject] = []
    overview: list[tuple[np.ndarray, tuple[float, float] | None]] = []
    chosen: list[tuple[np.ndarray, read.MrObject, int]] = []
    for mr, numbers, picked in series.members:
        seen = [n for n in numbers if (mr.sop_uid, n) in planned]
        if not seen and not picked:
            continue
        pixels, broken = _decode(series, mr)
        rejects += broken
        if pixels is None:
            continue
        overview += [(pixels[n - 1], mr.frames[n - 1].window) for n in seen]
        chosen += [(pixels[n - 1], mr, n) for n in picked]
    if not chosen:
        return [], rejects
    overview = overview or [(plane, mr.frames[number - 1].window) for plane, mr, number in chosen]
    spacing = chosen[0][1].frames[chosen[0][2] - 1].spacing  # a stack has one
    plan = preprocess.plan_series(np.stack([plane for plane, _ in overview]), spacing, [w for _, w in overview])
    pictures = []
    for plane, mr, number in chosen:
        image = preprocess.prepare_slice(plane, plan)
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        position = mr.frames[number - 1].position_mm
        pictures.append(Picture(mr.sop_uid, mr.patient_id, number, _png(image), digest, position, plan))
    return pictures, rejects


def _decode(series: Series, mr: read.MrObject) -> tuple[np.ndarray | None, list[read.Reject]]:
    """The pixels of an object, or of the first further copy that has some, and what could not be decoded."""
    rejects: list[read.Reject] = []
    for copy in (mr, *series.spares.get(mr.sop_uid, [])):
        try:
            pixels = read.decode(series.root, copy)
            if not np.isfinite(pixels).all():
                raise ValueError("pixels are not finite")
            if pixels.shape != (len(mr.frames), *mr.shape):
                raise ValueError("another shape than the first copy's")
            return pixels, rejects
        except Exception as error:  # as in dicom.read_header
            rejects.append(read.reject(copy.file, "undecodable pixels", error))
    return None, rejects


def picture_all(series: Sequence[Series], strict: bool) -> tuple[list[list[Picture]], list[read.Reject]]:
    """`picture_series` over all cores. Raises UserError if `strict` and a file's pixels are broken."""
    pictures, rejects = [], []
    # Codecs are C++ and may die on broken pixels, in a process of their own without harm to this one.
    few = 0 if any(mr.compressed for one in series for mr, _, _ in one.members) else 12
    results = workers.spread(picture_series, series, "making pictures", _picture_crashed, few=few)
    for one, (made, broken) in zip(series, results, strict=True):
        pictures.append(made)
        rejects += broken
        for file in broken:
            scan.stop_if(strict, Path(one.root), file)
    return pictures, rejects


def _picture_crashed(series: Series) -> tuple[list[Picture], list[read.Reject]]:
    """Finds the files that the decoder dies of, and pictures the rest."""
    members, rejects = [], []
    for mr, numbers, picked in series.members:
        copies = [mr, *series.spares.get(mr.sop_uid, [])]
        lived = [workers.survives(read.decode, series.root, copy) for copy in copies]
        members += [(copy, numbers, picked) for copy, alive in zip(copies, lived, strict=True) if alive][:1]
        died = [copy.file for copy, alive in zip(copies, lived, strict=True) if not alive]
        rejects += [read.Reject(file, "undecodable pixels", "the decoder died on it") for file in died]
    pictures, broken = picture_series(series._replace(members=tuple(members), spares={}))
    return pictures, broken + rejects


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()
