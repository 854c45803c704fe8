"""The job of `launch/prepare.py`: a DICOM tree in, a dataset out, everything or nothing.

    scan (headers, all files) → choose (tables, duplicates, series) → picture (pixels, a series at a time) → write

The output is built in a hidden folder beside it and renamed at the end. What names a patient goes to the private
folder only. A stamp, keyed with the pseudonym key, tells whether the same inputs were prepared here before.
"""

import collections
import hashlib
import hmac
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lesion.data import SEQUENCES, dicom, preprocess, tables, workers
from lesion.errors import UserError

PLAN_SLICES = 11  # of a series are looked at to choose window and crop
VERSION = 1  # of the reading; raise it when the same inputs would give another dataset


class Series(NamedTuple):
    """One stack of slices, the unit of windowing and cropping: (object, its frames of this stack, those chosen)."""

    root: str
    sequence: str
    members: tuple[tuple[dicom.MrObject, tuple[int, ...], tuple[int, ...]], ...]


class Picture(NamedTuple):
    """A prepared slice: PNG bytes, digest of its pixels, and the plan of its series."""

    sop_uid: str
    patient_id: str
    number: int
    png: bytes
    digest: str
    plan: preprocess.Plan


class Inputs(NamedTuple):
    """The user's tables; see `lesion.data.tables`."""

    patients: dict[str, int]
    slices: dict[tuple[str, int | None], int] | None
    series: dict[str, tuple[str, int]]


class Scan(NamedTuple):
    """What the headers say: usable objects, skipped files, rejected files."""

    objects: list[dicom.MrObject]
    skipped: list[dicom.Skip]
    rejects: list[dicom.Reject]


def read_inputs(folder: Path) -> Inputs:
    """Reads the tables beside the tree.

    Raises:
        UserError: the folder is missing or empty, or a table is wrong.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the DICOM tree with --input=DIR")
    if not any(folder.iterdir()):
        raise UserError(f"{folder} is empty: put the DICOM tree and {tables.PATIENTS} there")
    return Inputs(tables.read_patients(folder), tables.read_slices(folder), tables.read_series(folder))


def list_files(folder: Path, leave_out: Sequence[Path]) -> list[tuple[str, int, int]]:
    """(path relative to `folder`, size, time of change in ns) of all files, sorted; `leave_out` are folders inside."""
    avoid = {path.resolve() for path in leave_out}
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent, name).resolve() not in avoid]
        for name in names:
            path = os.path.join(parent, name)
            if os.path.isfile(path):
                status = os.stat(path)
                found.append((os.path.relpath(path, folder), status.st_size, status.st_mtime_ns))
    return sorted(found)


def stamp(key: bytes, folder: Path, files: Sequence[tuple[str, int, int]]) -> str:
    """A keyed hash of the inputs and of what is done to them; keyed, so that it confirms no guess about a patient."""
    parts: list[object] = [files, VERSION, sorted(preprocess.SETTINGS.items())]
    for name in (tables.PATIENTS, tables.SLICES, tables.SERIES):
        path = folder / name
        parts.append(path.read_bytes().hex() if path.exists() else None)
    return hmac.new(key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()


def scan(folder: Path, files: Sequence[tuple[str, int, int]], strict: bool) -> Scan:
    """Reads all headers; a file whose SOPInstanceUID was seen before is rejected as a duplicate.

    Raises:
        UserError: nothing readable is MR, or `strict` and a file is broken.
    """
    result, seen = Scan([], [], []), dict[str, str]()
    tasks = [(str(folder), name) for name, _, _ in files]
    for header in workers.spread(_read, tasks, "reading headers", _read_crashed, chunk=32):
        if isinstance(header, dicom.MrObject) and header.sop_uid in seen:
            result.rejects.append(
                dicom.Reject(header.file, "duplicate", f"same SOPInstanceUID as {seen[header.sop_uid]}, which is used")
            )
        elif isinstance(header, dicom.MrObject):
            seen[header.sop_uid] = header.file
            result.objects.append(header)
        elif isinstance(header, dicom.Skip):
            result.skipped.append(header)
        else:
            result.rejects.append(header)
            stop_if(strict, folder, header)
    if not result.objects:
        raise UserError(f"no readable DICOM MR image among the {len(files)} files of {folder}: is it the right folder?")
    return result


def stop_if(strict: bool, folder: Path, broken: dicom.Reject) -> None:
    """Raises UserError for a broken file if `strict`."""
    if strict:
        raise UserError(
            f"{folder / broken.file}: {broken.kind}: {broken.reason}; mend or remove it, or leave out --strict"
        )


def choose(folder: Path, found: Scan, inputs: Inputs) -> tuple[list[Series], list[dicom.Skip]]:
    """Groups frames into series of the three sequences that hold at least one chosen slice.

    Returns:
        The series, sorted, and the MR files left out with the reason.

    Raises:
        UserError: a table names a patient, slice or series that is not there, or nothing is left.
    """
    unreadable = sum(broken.kind != "duplicate" for broken in found.rejects)
    _check_patients(folder, found, inputs)
    uids = {mr.series_uid for mr in found.objects}
    for uid, (_, row) in inputs.series.items():
        if uid not in uids:
            raise UserError(f"{folder / tables.SERIES} row {row}: no MR image is of this series: correct the UID")
    counts = {mr.sop_uid: len(mr.frames) for mr in found.objects}
    wanted = inputs.slices or {}
    unknown = [row for (uid, frame), row in wanted.items() if (frame or 1) > counts.get(uid, 0)]
    # A broken file keeps its UID to itself, so as many unknown UIDs may be theirs.
    if len(unknown) > unreadable:
        where, count = f"{folder / tables.SLICES} row {unknown[0]}", len(unknown)
        what = "no readable MR image has this sop_instance_uid and frame"
        raise UserError(f"{where}: {what}: correct or delete the row ({count} such)")

    stacks: dict[tuple, list] = collections.defaultdict(list)
    left_out: list[dicom.Skip] = []
    for mr in found.objects:
        told = inputs.series.get(mr.series_uid, (None, 0))[0]
        kinds = collections.defaultdict(list)
        for frame in mr.frames:
            name = told or frame.sequence
            if name in SEQUENCES:
                kinds[name, frame.plane, frame.spacing].append(frame.number)
        if not kinds:
            left_out.append(dicom.Skip(mr.file, "MR, none of the three sequences"))
        for (name, plane, spacing), numbers in kinds.items():
            picked = [n for n in numbers if is_chosen(inputs, mr.sop_uid, n)]
            stacks[name, mr.series_uid, mr.shape, plane, spacing].append((mr, tuple(numbers), tuple(picked)))
    series = []
    for (name, *_), members in sorted(stacks.items(), key=lambda item: item[0]):
        used = [member for member in members if member[2]]
        left_out += [dicom.Skip(mr.file, "not listed in slices.csv") for mr, _, picked in members if not picked]
        if used:
            series.append(Series(str(folder), name, tuple(members)))
    if not series:
        raise UserError(
            f"{folder} has MR images, but no chosen slice of {', '.join(SEQUENCES)}: tell the sequences in "
            f"{tables.SERIES} (series_instance_uid,sequence), the slices in {tables.SLICES}"
        )
    return series, left_out


def is_chosen(inputs: Inputs, sop_uid: str, number: int) -> bool:
    """Whether slices.csv takes this frame; without the file everything is taken."""
    return inputs.slices is None or (sop_uid, number) in inputs.slices or (sop_uid, None) in inputs.slices


def _check_patients(folder: Path, found: Scan, inputs: Inputs) -> None:
    there = {mr.patient_id for mr in found.objects}
    for index, patient in enumerate(inputs.patients):
        if patient not in there:
            near = [other for other in there if other.lstrip("0") == patient.lstrip("0")]
            hint = "leading zeros were lost" if near else "correct the patient_id or delete the row"
            rows = sum(other not in there for other in inputs.patients)
            raise UserError(
                f"{folder / tables.PATIENTS} entry {index + 1} ({patient}): no MR image has this PatientID: {hint} "
                f"({rows} such)"
            )


def picture_series(series: Series) -> tuple[list[Picture], list[dicom.Reject]]:
    """Prepares the chosen slices of one series; what cannot be decoded is rejected, the rest goes on.

    Window and crop are planned on slices spread evenly over the series, chosen or not, so that they do not depend on
    the choice; other slices are not decoded.
    """
    everything = [(mr.sop_uid, number) for mr, numbers, _ in series.members for number in numbers]
    spread = np.linspace(0, len(everything) - 1, min(PLAN_SLICES, len(everything))).round().astype(int)
    planned = {everything[i] for i in spread}
    rejects: list[dicom.Reject] = []
    overview: list[tuple[np.ndarray, tuple[float, float] | None]] = []
    chosen: list[tuple[np.ndarray, dicom.MrObject, int]] = []
    for mr, numbers, picked in series.members:
        seen = [n for n in numbers if (mr.sop_uid, n) in planned]
        if not seen and not picked:
            continue
        try:
            pixels = dicom.decode(series.root, mr)
            if not np.isfinite(pixels).all():
                raise ValueError("pixels are not finite")
        except Exception as error:  # as in dicom.read_header
            rejects.append(dicom.reject(mr.file, "undecodable pixels", error))
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
        pictures.append(Picture(mr.sop_uid, mr.patient_id, number, _png(image), digest, plan))
    return pictures, rejects


def picture_all(series: Sequence[Series], strict: bool) -> tuple[list[list[Picture]], list[dicom.Reject]]:
    """`picture_series` over all cores. Raises UserError if `strict` and a file's pixels are broken."""
    pictures, rejects = [], []
    # Codecs are C++ and may die on broken pixels, in a process of their own without harm to this one.
    few = 0 if any(mr.compressed for one in series for mr, _, _ in one.members) else 12
    results = workers.spread(picture_series, series, "making pictures", _picture_crashed, few=few)
    for one, (made, broken) in zip(series, results, strict=True):
        pictures.append(made)
        rejects += broken
        for file in broken:
            stop_if(strict, Path(one.root), file)
    return pictures, rejects


def phantom_share(series: Iterable[Series]) -> bool | str:
    """True if every used image is marked as of a phantom (QualityControlImage), False if none, else "mixed"."""
    marks = {mr.phantom for one in series for mr, _, picked in one.members if picked}
    return "mixed" if len(marks) > 1 else marks == {True}


def _read(task: tuple[str, str]) -> dicom.MrObject | dicom.Skip | dicom.Reject:
    return dicom.read_header(*task)


def _read_crashed(task: tuple[str, str]) -> dicom.Reject:
    return dicom.Reject(task[1], "unreadable header", "the reader died on it")


def _picture_crashed(series: Series) -> tuple[list[Picture], list[dicom.Reject]]:
    """Finds the files that the decoder dies of, and pictures the rest."""
    lived = [workers.survives(dicom.decode, series.root, mr) for mr, _, _ in series.members]
    rest = series._replace(members=tuple(m for m, alive in zip(series.members, lived, strict=True) if alive))
    pictures, rejects = picture_series(rest)
    died = [mr.file for (mr, _, _), alive in zip(series.members, lived, strict=True) if not alive]
    return pictures, rejects + [dicom.Reject(file, "undecodable pixels", "the decoder died on it") for file in died]


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()
