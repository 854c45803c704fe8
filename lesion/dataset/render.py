"""Renders stacks as PNG slices: pixels decoded, a stack at a time, windowed, cropped, resized."""

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
from lesion.dicom.read import Instance, RejectedFile
from lesion.dicom.scan import Stack, StackMember

PLAN_SLICES = 11  # of a stack are looked at to choose window and crop


class RenderedSlice(NamedTuple):
    """A prepared slice: PNG bytes, SHA-256 of its pixels, where it was scanned, and window and crop of its stack."""

    sop_uid: str
    patient_id: str
    frame: int
    png: bytes
    digest: str
    position_mm: float
    plan: preprocess.Plan

    @property
    def original_id(self) -> str:
        """The id that the slice's pseudonym stands for."""
        return f"{self.sop_uid}:{self.frame}"


def render_stacks(stacks: Sequence[Stack], strict: bool) -> tuple[list[list[RenderedSlice]], list[RejectedFile]]:
    """Renders stacks on all cores: the slices of each, and the files whose pixels cannot be decoded.

    Raises:
        UserError: if `strict` and the pixels of a file are broken.
    """
    rendered, rejected = [], []
    # Codecs are C++ and may die on broken pixels, in a process of their own without harm to this one.
    compressed = any(member.instance.compressed for stack in stacks for member in stack.members)
    results = workers.parallel_map(
        render_stack, stacks, "making pictures", _render_crashed, max_serial=0 if compressed else 12
    )
    for stack, (slices, broken) in zip(stacks, results, strict=True):
        if strict and broken:
            raise scan.strict_error(Path(stack.folder), broken[0])
        rendered.append(slices)
        rejected += broken
    return rendered, rejected


def render_stack(stack: Stack) -> tuple[list[RenderedSlice], list[RejectedFile]]:
    """Renders the chosen slices of one stack; what cannot be decoded is rejected, the rest goes on.

    Window and crop are planned on slices spread evenly over the stack, chosen or not, so that they do not depend on
    the choice; other slices are not decoded.
    """
    frames = [(member.instance.sop_uid, number) for member in stack.members for number in member.frames]
    indices = np.linspace(0, len(frames) - 1, min(PLAN_SLICES, len(frames))).round().astype(int)
    planned = {frames[index] for index in indices}
    rejected: list[RejectedFile] = []
    overview: list[tuple[np.ndarray, tuple[float, float] | None]] = []
    chosen: list[tuple[np.ndarray, Instance, int]] = []
    for member in stack.members:
        instance = member.instance
        seen = [number for number in member.frames if (instance.sop_uid, number) in planned]
        if not seen and not member.chosen:
            continue
        pixels, broken = _decode(stack, instance)
        rejected += broken
        if pixels is None:
            continue
        overview += [(pixels[number - 1], instance.frames[number - 1].window) for number in seen]
        chosen += [(pixels[number - 1], instance, number) for number in member.chosen]
    if not chosen:
        return [], rejected
    overview = overview or [(plane, instance.frames[number - 1].window) for plane, instance, number in chosen]
    _, instance, number = chosen[0]
    spacing = instance.frames[number - 1].spacing  # a stack has one
    plan = preprocess.plan_series(np.stack([plane for plane, _ in overview]), spacing, [w for _, w in overview])
    return [_render(plane, instance, number, plan) for plane, instance, number in chosen], rejected


def _render(plane: np.ndarray, instance: Instance, number: int, plan: preprocess.Plan) -> RenderedSlice:
    image = preprocess.prepare_slice(plane, plan)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    position_mm = instance.frames[number - 1].position_mm
    return RenderedSlice(instance.sop_uid, instance.patient_id, number, stream.getvalue(), digest, position_mm, plan)


def _decode(stack: Stack, instance: Instance) -> tuple[np.ndarray | None, list[RejectedFile]]:
    """Returns the pixels of an instance, or of its first duplicate that has some, and what could not be decoded."""
    rejected: list[RejectedFile] = []
    for copy in (instance, *stack.duplicates.get(instance.sop_uid, [])):
        try:
            pixels = read.read_pixels(stack.folder, copy)
            if not np.isfinite(pixels).all():
                raise ValueError("pixels are not finite")
            if pixels.shape != (len(instance.frames), *instance.shape):
                raise ValueError("another shape than the first copy's")
            return pixels, rejected
        except Exception as error:  # as in `read.read_header`
            rejected.append(read.reject(copy.file, "undecodable pixels", error))
    return None, rejected


def _render_crashed(stack: Stack) -> tuple[list[RenderedSlice], list[RejectedFile]]:
    """Finds the files that the decoder dies of, and renders the rest."""
    members, rejected = [], []
    for member in stack.members:
        decodable = []
        for copy in (member.instance, *stack.duplicates.get(member.instance.sop_uid, [])):
            if workers.survives(read.read_pixels, stack.folder, copy):
                decodable.append(copy)
            else:
                rejected.append(RejectedFile(copy.file, "undecodable pixels", "the decoder died on it"))
        if decodable:
            members.append(StackMember(decodable[0], member.frames, member.chosen))
    slices, broken = render_stack(stack._replace(members=tuple(members), duplicates={}))
    return slices, broken + rejected
