"""Reads NIfTI volumes as instances of one frame a slice, turned to the radiologists' orientation.

Three layouts are known: a BIDS tree (`sub-*/[ses-*/]anat/*_FLAIR`, `_T2w`, and `_T1w` with `ce-<label>`), folders of
one patient each as BraTS has them (files that end in `t1ce`, `t1c` or `t1gd`, `flair` or `t2f`, `t2` or `t2w`), and any
file that `images.csv` names (see `lesion.dicom.pictures`), which goes before the other two.

Slices are cut along the voxel axis nearest to the scanner's axial direction, from the feet up; rows run from anterior
to posterior and columns from the patient's right to left, as in a DICOM slice of ImageOrientationPatient 1,0,0,0,1,0.
"""

import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from nibabel import orientations, processing
from nibabel.openers import ImageOpener

from lesion.classes import PAPER, Classes
from lesion.dicom import UNLABELED, scan, tables
from lesion.dicom.pictures import IMAGES, NIFTI_SUFFIXES, make_frame, make_instance, read_images
from lesion.dicom.read import Instance, RejectedFile, reject, too_large
from lesion.errors import UserError

PARTICIPANTS = "participants.tsv"
MAX_HEADER_BYTES = 2**24  # with its extensions, which nibabel reads with it
MAX_STRETCH = 3.0  # of a pixel; beyond it the volume was scanned in sagittal or coronal slices
_BIDS = re.compile(
    r"(?P<root>(?:.*/)?)(?P<patient>sub-[^/]+)/(?:(?P<visit>ses-[^/]+)/)?anat/"
    r"(?P<name>sub-[^/]+)_(?P<suffix>FLAIR|T2w|T1w)"
)
_BIDS_SEQUENCES = {"FLAIR": "flair", "T2w": "t2wi", "T1w": "ce_t1wi"}
_NO_MAGNITUDE = re.compile(r"_part-(?:phase|real|imag)(?:_|$)")
_BIDS_FOLDERS = {"anat", "dwi", "fmap", "func", "perf"}  # never the name of a patient
_BRATS = re.compile(
    r"(?:^|.*[-_. ])(?:(?P<ce_t1wi>t1ce|t1c|t1gd)|(?P<flair>(?<!t1[-_. ])flair|t2f)|(?P<t2wi>t2w?))", re.IGNORECASE
)
# A patient's folders, one a time point, are told apart by a number.
_TIME_POINT = re.compile(r"(?P<patient>BraTS-[A-Za-z]+-\d+|UPENN-GBM-\d+)[-_](?P<visit>\d{2,3})")
_MASK = re.compile(r"(?:^|.*[-_. ])(?:mask|dseg|seg|segm|segmentation)", re.IGNORECASE)
_NO_LESION = re.compile(r"(?!.*(?:lesion|tumou?r)).*(?:brain|skull|head|label-(?:GM|WM|CSF))", re.IGNORECASE)


class _Found(NamedTuple):
    """A file that a layout takes for an image; `place` is the folder by which the patient is told from others."""

    file: str
    patient_id: str
    visit: str
    sequence: str
    place: str


class _Grid(NamedTuple):
    """Voxels of a volume once it is turned: [columns to the left, rows to posterior, slices to the head].

    Attributes:
        turn: nibabel's orientation transform that turns the stored array.
        shape: after turning.
        affine: from turned voxels to NIfTI's mm, right, anterior and superior being positive.
        spacing_mm: of columns, rows and slices.
    """

    turn: np.ndarray
    shape: tuple[int, int, int]
    affine: np.ndarray
    spacing_mm: np.ndarray


def scan_nifti(folder: Path) -> tuple[list[Instance], dict[str, str], list[RejectedFile]]:
    """Reads the headers of all NIfTI images of a tree; other files, masks and plain T1 are passed over.

    A series is what a patient has of one sequence at one visit. A further file of it in the same visit (another run) is
    a series of its own, for its grey values may be scaled otherwise; rows of images.csv are one series in any case.

    Returns:
        The instances, the sequence of each series, and the images that cannot be used.

    Raises:
        UserError: images.csv is wrong, or two patients would bear the same name.
    """
    rows = [row for row in read_images(folder) if row.file.lower().endswith(NIFTI_SUFFIXES)]
    tasks = [(row.file, row.patient_id, "", row.series_uid, row.sequence) for row in rows]
    found, rejected = _find_images(folder, {_stem(row.file) for row in rows})
    _check_places(folder, found)
    counts: dict[str, int] = {}
    for image in found:
        series_uid = "/".join(filter(None, (image.patient_id, image.visit, image.sequence)))
        counts[series_uid] = number = counts.get(series_uid, 0) + 1
        series_uid += f"/{number}" if number > 1 else ""
        tasks.append((image.file, image.patient_id, image.visit, series_uid, image.sequence))
    instances, sequences = [], {}
    for file, patient_id, visit, series_uid, sequence in tasks:
        result = _read_header(folder, file, patient_id, visit, series_uid)
        if isinstance(result, RejectedFile):
            rejected.append(result)
        else:
            instances.append(result)
            sequences[series_uid] = sequence
    return instances, sequences, rejected


def read_nifti(folder: str | Path, instance: Instance) -> np.ndarray:
    """Returns the slices of a volume in scaled units, float32 [frames, rows, columns]; voxels without a value are dark.

    Raises:
        Exception: whatever nibabel raises on broken files.
    """
    image = _open(Path(folder, instance.file))
    grid = _make_grid(image)
    stored = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(_spatial_shape(image))
    pixels = np.ascontiguousarray(orientations.apply_orientation(stored, grid.turn).transpose(2, 1, 0))
    finite = np.isfinite(pixels)
    if finite.any() and not finite.all():  # registration leaves NaN outside of the field of view
        pixels[~finite] = pixels[finite].min()
    return pixels


def mask_slices(folder: str | Path, instance: Instance, mask_path: str | Path, min_area_mm2: float) -> list[int]:
    """Returns the numbers of the frames on which a mask, any label of it, has at least an area.

    The mask is brought to the image's slices by both files' affines, so it may lie on another grid of the same space.

    Args:
        folder: the scanned folder.
        instance: the image, from `scan_nifti`.
        mask_path: of the NIfTI file, absolute or relative to `folder`.
        min_area_mm2: on one slice; where it is 0, one voxel is enough.

    Raises:
        FilesError: the mask cannot be read, or lies wholly outside of the image.
    """
    path = Path(folder, mask_path)
    grid = _make_grid(_open(Path(folder, instance.file)))
    try:
        mask = _open(path)
        _make_grid(mask)
        labels = np.asarray(mask.dataobj).reshape(_spatial_shape(mask)) >= 0.5
    except Exception as error:
        broken = reject(str(mask_path), "no usable mask", error)
        raise scan.FilesError("a mask cannot be used: mend it, or take it out of the folder", broken) from error
    turned = processing.resample_from_to(
        nibabel.Nifti1Image(labels.astype(np.uint8), mask.affine),
        (grid.shape, grid.affine),
        order=0,
        mode="grid-constant",  # so that rounding does not lose the outermost voxels
    )
    areas_mm2 = (np.asarray(turned.dataobj) > 0).sum(axis=(0, 1)) * grid.spacing_mm[0] * grid.spacing_mm[1]
    if labels.any() and not areas_mm2.any():
        broken = RejectedFile(str(mask_path), "no usable mask", f"it lies outside of its image {instance.file}")
        raise scan.FilesError("a mask lies outside of its image: bring it to the image's space", broken)
    return [number for number, area in enumerate(areas_mm2, start=1) if area > 0 and area >= min_area_mm2]


def find_masks(masks: Path, instances: Sequence[Instance]) -> dict[str, Path]:
    """Returns the lesion mask of each instance that has one, by its SOPInstanceUID.

    Masks are files that end in `mask`, `dseg` or `seg` and are not of the brain or a tissue; one belongs to all images
    of the same `sub-` and `ses-` by its name, else to those that lie in a folder of the same name.

    Raises:
        FilesError: two masks belong to the same images.
    """
    by_key: dict[tuple[str, ...], Path] = {}
    for file in _list_nifti(masks):
        stem = Path(_stem(file)).name
        if not _MASK.fullmatch(stem) or _NO_LESION.match(stem):
            continue
        path = masks / file
        other = by_key.setdefault(_mask_key(path), path)
        if other != path:
            broken = RejectedFile(str(path), "no usable mask", f"of the same images as {other}")
            raise scan.FilesError("two masks are of the same images: name a folder that holds one each", broken)
    keys = {instance.sop_uid: _mask_key(masks / instance.file) for instance in instances}
    return {sop_uid: by_key[key] for sop_uid, key in keys.items() if key in by_key}


def read_participants(folder: Path, column: str, classes: Classes = PAPER) -> dict[str, int]:
    """Reads labels from a column of BIDS' participants.tsv: patient to label, -1 where the cell is empty or `n/a`.

    Raises:
        UserError: no table, no such column, or a word that is no class.
    """
    path = folder / PARTICIPANTS
    if not path.exists():
        raise UserError(f"no {PARTICIPANTS} in {folder}: write {tables.PATIENTS} instead, columns patient_id,label")
    found, label_words = {}, {**classes.by_word, "": UNLABELED, "n/a": UNLABELED}
    for row, (participant, word) in tables.rows(path, ("participant_id", column.lower()), filled=1):
        if word.lower() not in label_words:
            words = ", ".join(classes)
            raise UserError(f"{path} row {row}: {column} is none of {words}: correct it, or write n/a")
        found[f"sub-{participant.removeprefix('sub-')}"] = label_words[word.lower()]
    return found


def _list_nifti(folder: Path) -> Iterator[str]:
    """Yields all NIfTI files of a tree, relative to it, sorted; what is hidden is passed over."""
    for file, _, _ in scan.list_files(folder, ()):
        if file.lower().endswith(NIFTI_SUFFIXES) and not any(part.startswith(".") for part in file.split("/")):
            yield file


def _find_images(folder: Path, known: set[str]) -> tuple[list[_Found], list[RejectedFile]]:
    """Returns the images of a tree by its layout, without those whose stems are known, and what is not clear in it."""
    found, rejected, seen = [], [], set(known)
    for file in _list_nifti(folder):
        image = _find_bids(file) or _find_brats(folder, file)
        if not image or _stem(file) in known:
            continue
        if _stem(file) in seen:
            rejected.append(RejectedFile(file, "duplicate", "lies beside as .nii and as .nii.gz", file))
        else:
            seen.add(_stem(file))
            found.append(image)
    # BraTS has one file a sequence and folder. A folder of several has several patients, or nobody knows which counts.
    brats = [(image.place, image.sequence) for image in found if not _is_bids(image.file)]
    unclear = {place for place, sequence in brats if brats.count((place, sequence)) > 1}
    reason = f"several files of a sequence in one patient's folder: name the right ones in {IMAGES}"
    kept = []
    for image in found:
        if image.place in unclear and not _is_bids(image.file):
            rejected.append(RejectedFile(image.file, "not clear which file counts", reason, image.file))
        else:
            kept.append(image)
    return _name_visits(kept), rejected


def _find_bids(file: str) -> _Found | None:
    """Returns a file of a BIDS tree that holds one of the sequences as scanned, not computed."""
    match = _BIDS.fullmatch(_stem(file))
    if not match or {"derivatives", "sourcedata"} & set(match["root"].split("/")):
        return None
    if _NO_MAGNITUDE.search(match["name"]) or (match["suffix"] == "T1w" and "_ce-" not in match["name"]):
        return None
    sequence = _BIDS_SEQUENCES[match["suffix"]]
    return _Found(file, match["patient"], match["visit"] or "", sequence, match["root"] + match["patient"])


def _find_brats(folder: Path, file: str) -> _Found | None:
    """Returns a file of a patient's folder, by the end of its name."""
    match = _BRATS.fullmatch(Path(_stem(file)).name)
    place = os.path.dirname(file)
    if not match or match.lastgroup is None or "derivatives" in file.split("/"):
        return None
    patient_id = os.path.basename(place) or folder.resolve().name
    return None if patient_id in _BIDS_FOLDERS else _Found(file, patient_id, "", match.lastgroup, place)


def _name_visits(found: Sequence[_Found]) -> list[_Found]:
    """Makes one patient of several time points, so that no patient straddles folds; a single one keeps its name."""
    points: dict[str, set[str]] = {}
    matches = [None if _is_bids(image.file) else _TIME_POINT.fullmatch(image.patient_id) for image in found]
    for image, match in zip(found, matches, strict=True):
        if match:
            points.setdefault(match["patient"], set()).add(image.patient_id)
    return [
        image._replace(patient_id=match["patient"], visit=match["visit"], place=match["patient"])
        if match and len(points[match["patient"]]) > 1
        else image
        for image, match in zip(found, matches, strict=True)
    ]


def _check_places(folder: Path, found: Sequence[_Found]) -> None:
    """Raises a FilesError if two folders of the same name would make one patient of two."""
    places: dict[str, str] = {}
    for image in found:
        other = places.setdefault(image.patient_id, image.place)
        if other != image.place:
            raise scan.FilesError(
                "two folders of the same name would be one patient: rename one, or name the files in "
                f"{folder / IMAGES} (file,patient_id,sequence)",
                RejectedFile(image.file, "not clear whose it is", f"{other} and {image.place} have the same name"),
            )


def _mask_key(path: Path) -> tuple[str, ...]:
    entities = dict(re.findall(r"(?:^|_)(sub|ses)-([^_]+)", _stem(path.name)))
    return (entities["sub"], entities.get("ses", "")) if "sub" in entities else (path.parent.name,)


def _is_bids(file: str) -> bool:
    return _BIDS.fullmatch(_stem(file)) is not None


def _stem(file: str) -> str:
    """Returns a path without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", file, flags=re.IGNORECASE)


def _read_header(folder: Path, file: str, patient_id: str, visit: str, series_uid: str) -> Instance | RejectedFile:
    try:
        grid = _make_grid(_open(folder / file))
    except Exception as error:  # nibabel raises many kinds of exception on broken files
        return reject(file, "unreadable volume", error)._replace(sop_uid=file, patient_id=patient_id)
    columns, rows, slices = grid.shape
    if max(grid.spacing_mm[:2]) > MAX_STRETCH * min(grid.spacing_mm[:2]):
        reason = f"its slices, {max(grid.spacing_mm[:2]):.1f} mm apart, are not axial"
        return RejectedFile(file, "sagittal or coronal", reason, file, patient_id)
    lps = np.diag([-1, -1, 1, 1]) @ grid.affine  # DICOM counts to the left and to posterior
    along_row, along_column = (lps[:3, axis] / grid.spacing_mm[axis] for axis in (0, 1))
    normal = np.cross(along_row, along_column)
    plane = tuple(round(float(x), 2) + 0.0 for x in (*along_row, *along_column))
    spacing = (float(grid.spacing_mm[1].round(4)), float(grid.spacing_mm[0].round(4)))
    frames = [
        make_frame(index + 1, plane, spacing, float(normal @ (lps[:3, 3] + index * lps[:3, 2])))
        for index in range(slices)
    ]
    return make_instance(file, patient_id, series_uid, (rows, columns), frames, visit)


def _open(path: Path) -> Any:
    """Opens a volume, after a look at where its voxels begin: all before is read at once, or unpacked to be skipped."""
    with ImageOpener(str(path)) as stream:
        head = stream.read(176)
    for order in "<>":
        first_byte = {348: ("f", 108), 540: ("q", 168)}.get(struct.unpack_from(f"{order}i", head.ljust(4))[0])
        if first_byte and len(head) == 176:
            offset = struct.unpack_from(order + first_byte[0], head, first_byte[1])[0]
            if not 0 <= offset <= MAX_HEADER_BYTES:
                raise ValueError(f"its voxels begin at byte {offset:.0f}: is the header broken?")
    return nibabel.load(path)


def _spatial_shape(image: Any) -> tuple[int, int, int]:
    """Returns the first three lengths of a volume; a single slice has one in the third."""
    x, y, z = (*image.shape, 1, 1, 1)[:3]
    return x, y, z


def _make_grid(image: Any) -> _Grid:
    """Returns how a volume is turned.

    Raises:
        ValueError: more than three axes, no grey values, no orientation, or one that makes no sense.
    """
    shape = _spatial_shape(image)
    if any(length > 1 for length in image.shape[3:]):
        volumes = " × ".join(map(str, image.shape[3:]))
        raise ValueError(f"4-D, {volumes} volumes in one file: save the one that counts as a file of its own")
    if image.get_data_dtype().kind not in "iuf":
        raise ValueError("in colour or complex: save its grey values")
    if min(shape) < 1:
        raise ValueError(f"{shape} voxels: is the header broken?")
    for slices, rows, columns in (shape, shape[1:] + shape[:1], shape[2:] + shape[:2]):  # whichever is axial
        if reason := too_large(rows, columns, slices):
            raise ValueError(reason)
    if not (image.header["sform_code"] or image.header["qform_code"]):
        raise ValueError("the header tells no orientation (sform and qform code are 0): set one of them")
    affine = np.asarray(image.affine, float)
    lengths_mm = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if not np.isfinite(affine).all() or lengths_mm.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / lengths_mm)) < 0.1:
        raise ValueError("the affine of the header is no orientation: set it with the tool the file is from")
    stored = orientations.io_orientation(affine)
    turn = orientations.ornt_transform(stored, orientations.axcodes2ornt("LPS"))
    affine = affine @ orientations.inv_ornt_aff(turn, shape)
    order = np.argsort(turn[:, 0])
    x, y, z = (shape[axis] for axis in order)
    return _Grid(turn, (x, y, z), affine, np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))
