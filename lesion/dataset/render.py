"""Renders series as PNG slices: pixels decoded, a series at a time, windowed, cropped, resized."""

import functools
import hashlib
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from lesion import workers
from lesion.dataset import burned_in_text, preprocess
from lesion.dicom import read, scan
from lesion.dicom.pixels import read_pixels
from lesion.dicom.read import Frame, Instance, RejectedFile
from lesion.dicom.series import Series

PLAN_SLICES = 11  # of a series are looked at to choose window and crop
LOOK = "look at it"  # the kind of a rejected file whose slice is left out for what lies over the head
PROOF_SIDE = 256  # pixels of the longer side of a slice before and after, at most


class RenderedSlice(NamedTuple):
    """A prepared slice.

    Attributes:
        sop_uid: SOPInstanceUID.
        patient_id: whose slice it is.
        frame: its number in the instance, from 1.
        original_id: what the slice's pseudonym stands for: UID:frame, behind the patient where patients share UIDs.
        png: the picture.
        digest: SHA-256 of the picture's pixels.
        source_digest: SHA-256 of the decoded pixels, rescaled, float32; empty if all are equal.
        position_mm: along the normal, or NaN.
        plan: window and crop of its series.
        proof: before and after, side by side, as JPEG, where text was found; else empty. Before shows names.
        look: why somebody should look at the slice, which is not used then; or empty.
    """

    sop_uid: str
    patient_id: str
    frame: int
    original_id: str
    png: bytes
    digest: str
    source_digest: str
    position_mm: float
    plan: preprocess.Plan
    proof: bytes = b""
    look: str = ""


class Rendered(NamedTuple):
    """What rendering a folder gives.

    Attributes:
        series: all series; those of which nothing came are not used any more, and say why.
        slices: of each series.
        rejected: files whose pixels cannot be decoded, or have text over the head.
        looks: slices that were left out so that somebody looks at them.
        same_pixels: how many slices were left out for another of the same patient with the same pixels.
    """

    series: list[Series]
    slices: list[list[RenderedSlice]]
    rejected: list[RejectedFile]
    same_pixels: int
    looks: list[RenderedSlice]


def render_all(judged: Sequence[Series], strict: bool = False, ocr: bool = True, window_from: str = "head") -> Rendered:
    """Renders the chosen slices of all series that are used, on all cores; slices with the same pixels count once.

    Args:
        judged: all series.
        strict: stop at the first file whose pixels are broken.
        ocr: read slices that may hold text.
        window_from: how windows are chosen, see `preprocess.WINDOWS`.

    Raises:
        FilesError: if `strict` and the pixels of a file are broken.
        UserError: if slices should be read, and the packages for it are not installed.
    """
    used = [series for series in judged if series.used]
    if ocr and any(series.may_hold_text() for series in used):
        burned_in_text.check_reader()
    # Codecs are C++ and may die on broken pixels, in a process of their own without harm to this one.
    compressed = any(member.instance.compressed for series in used for member in series.members)
    render, crashed = (functools.partial(f, ocr=ocr, window_from=window_from) for f in (render_series, _render_crashed))
    results = workers.parallel_map(render, used, "making pictures", crashed, max_serial=0 if compressed else 12)
    result = Rendered([], [], [], 0, [])
    seen: set[tuple[str, str, str]] = set()
    for series in judged:
        slices: list[RenderedSlice] = []
        if series.used:
            slices, broken, region = next(results)
            if strict and broken:
                results.close()
                raise scan.strict_error(broken[0])
            result.rejected.extend(broken)
            looks = [slice_ for slice_ in slices if slice_.look]
            result.looks.extend(looks)
            result.rejected.extend(_reject(series, slice_) for slice_ in looks)
            if looks and len(looks) == len(slices):
                region = "text"
            slices = [slice_ for slice_ in slices if not slice_.look]
            unique = []
            for slice_ in slices:
                key = series.patient_id, series.sequence, slice_.source_digest
                if key not in seen or not slice_.source_digest:
                    unique.append(slice_)
                seen.add(key)
            result = result._replace(same_pixels=result.same_pixels + len(slices) - len(unique))
            series, slices = _settle(series, slices, unique, region), unique if region != "nothing" else []
        result.series.append(series)
        result.slices.append(slices)
    next(results, None)  # lets the progress display end
    return result


def _settle(series: Series, slices: list[RenderedSlice], unique: list[RenderedSlice], region: str) -> Series:
    """Says of a rendered series why nothing came of it, or what was doubtful."""
    if region == "text":
        return series._replace(used=False, reason="text lies over the head in its pictures: look at them")
    if not slices:
        return series._replace(used=False, reason="its pixels cannot be decoded")
    if region == "nothing":
        return series._replace(used=False, reason="no head is found in its pictures")
    if not unique:
        return series._replace(used=False, reason="another series has the same pixels")
    notes = ["no brain is told from the head: the crop is measured on all of the head"] if region == "head" else []
    if len(unique) < len(slices):
        notes.append(f"{len(slices) - len(unique)} slices have the same pixels as others")
    return series._replace(notes=(*series.notes, *notes))


def _reject(series: Series, slice_: RenderedSlice) -> RejectedFile:
    """Returns the rejection of a slice that somebody should look at."""
    (file,) = {member.instance.file for member in series.members if member.instance.sop_uid == slice_.sop_uid}
    return RejectedFile(file, LOOK, f"frame {slice_.frame}: {slice_.look}", slice_.sop_uid, slice_.patient_id)


def render_series(
    series: Series, ocr: bool = True, window_from: str = "head"
) -> tuple[list[RenderedSlice], list[RejectedFile], str]:
    """Renders the chosen slices of one series; what cannot be decoded is rejected, the rest goes on.

    Window and crop are planned on slices spread evenly over the series, chosen or not, so that they do not depend on
    the choice; other slices are not decoded. With `ocr` the slices are read for text where they may hold some.

    Returns:
        The slices, the rejected files, and what the crop lies around, see `preprocess.Plan`.
    """
    frames = [(member.instance.sop_uid, number) for member in series.members for number in member.frames]
    indices = np.linspace(0, len(frames) - 1, min(PLAN_SLICES, len(frames))).round().astype(int)
    planned = {frames[index] for index in indices}
    rejected: list[RejectedFile] = []
    overview: list[tuple[np.ndarray, Frame]] = []
    chosen: list[tuple[np.ndarray, Instance, int]] = []
    for member in series.members:
        instance = member.instance
        in_plan = [number for number in member.frames if (instance.sop_uid, number) in planned]
        if not in_plan and not member.chosen:
            continue
        pixels, broken = _decode(series, instance)
        rejected += broken
        if pixels is None:
            continue
        overview += [(pixels[number - 1], instance.frames[number - 1]) for number in in_plan]
        chosen += [(pixels[number - 1], instance, number) for number in member.chosen]
    if not chosen:
        return [], rejected, "nothing"
    overview = overview or [(plane, instance.frames[number - 1]) for plane, instance, number in chosen]
    assert series.spacing is not None, series.uids
    volume = np.stack([plane for plane, _ in overview])
    windows, voi_luts = [frame.window for _, frame in overview], [frame.voi_lut for _, frame in overview]
    plan = preprocess.plan_series(volume, series.spacing, windows, voi_luts, window_from)
    plan = plan._replace(reads_text=ocr and plan.region != "nothing" and series.may_hold_text())
    slices = [_render(plane, instance, number, plan, series.shares_uids) for plane, instance, number in chosen]
    return slices, rejected, plan.region


def _render(
    plane: np.ndarray, instance: Instance, number: int, plan: preprocess.Plan, shares_uids: bool
) -> RenderedSlice:
    cleaned = preprocess.remove_text(plane, plan)
    image = preprocess.finish(cleaned.image, plan)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return RenderedSlice(
        sop_uid=instance.sop_uid,
        patient_id=instance.patient_id,
        frame=number,
        original_id=f"{instance.patient_id}:" * shares_uids + f"{instance.sop_uid}:{number}",
        png=stream.getvalue(),
        digest=hashlib.sha256(image.tobytes()).hexdigest(),
        source_digest=hashlib.sha256(plane.astype("<f4").tobytes()).hexdigest() if plane.min() < plane.max() else "",
        position_mm=instance.frames[number - 1].position_mm,
        plan=plan,
        proof=_proof(plane, cleaned.image, plan) if cleaned.written else b"",
        look=cleaned.look if plan.region != "nothing" else "",
    )


def _proof(before: np.ndarray, after: np.ndarray, plan: preprocess.Plan) -> bytes:
    """Returns a slice as it was scanned beside the same without text, a JPEG; both in all the values it had."""
    low, high = (float(value) for value in np.percentile(before, (0, 99.9)))
    window = (low, max(high, low + 1e-3))
    rows, columns = (length * mm for length, mm in zip(before.shape, plan.spacing, strict=True))
    scale = PROOF_SIDE / max(rows, columns)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    pictures = [Image.fromarray(preprocess.to_uint8(image, window)).resize(size) for image in (before, after)]
    sheet = Image.new("L", (2 * size[0], size[1]))
    sheet.paste(pictures[0], (0, 0))
    sheet.paste(pictures[1], (size[0], 0))
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _decode(series: Series, instance: Instance) -> tuple[np.ndarray | None, list[RejectedFile]]:
    """Returns the pixels of an instance, or of its first duplicate that has some, and what could not be decoded."""
    rejected: list[RejectedFile] = []
    for copy in (instance, *series.duplicates.get(instance.sop_uid, [])):
        try:
            pixels = read_pixels(series.folder, copy)
            if not np.isfinite(pixels).all():
                raise ValueError("pixels are not finite")
            if pixels.shape != (len(instance.frames), *instance.shape):
                raise ValueError("another shape than the first copy's")
            return pixels, rejected
        except Exception as error:  # as in `read.read_header`
            rejected.append(read.reject(copy.file, "undecodable pixels", error))
    return None, rejected


def _render_crashed(series: Series, ocr: bool, window_from: str) -> tuple[list[RenderedSlice], list[RejectedFile], str]:
    """Finds the files that the decoder dies of, and renders the rest."""
    members, rejected = [], []
    for member in series.members:
        decodable = []
        for copy in (member.instance, *series.duplicates.get(member.instance.sop_uid, [])):
            if workers.survives(read_pixels, series.folder, copy):
                decodable.append(copy)
            else:
                rejected.append(RejectedFile(copy.file, "undecodable pixels", "the decoder died on it"))
        if decodable:
            members.append(member._replace(instance=decodable[0]))
    slices, broken, region = render_series(series._replace(members=tuple(members), duplicates={}), ocr, window_from)
    return slices, broken + rejected, region
