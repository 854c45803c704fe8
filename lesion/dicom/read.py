"""Reading MR images from DICOM files: headers first, pixels only of what is needed.

`read_header` says what any one file is: an `MrObject` with its frames, a `Skip` (readable, but no MR image) or a
`Reject` (broken). `decode` then gives the pixels of an `MrObject` in the units of its rescale, bright meaning bright.

Attributes are found the same way in classic and in enhanced multi-frame objects: the frame's functional groups, then
the shared ones, then the top of the data set (DICOM PS3.3 C.7.6.16). File formats and pixel codecs are pydicom's, with
GDCM as the plugin for JPEG-lossless, JPEG-LS and JPEG 2000.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lesion.dicom import sequence as sequences

_MR_CLASSES = {
    "",  # old objects without one: the modality decides
    "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image Storage
}
_DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
# Named in counts. Any other text in that field is not repeated: it could hold anything.
_MODALITIES = frozenset(
    "CT PT NM US XA RF CR DX MG OT SC SR PR KO SEG RTSTRUCT RTPLAN RTDOSE RTIMAGE REG ECG DOC".split()
)
_DICOM_ENDINGS = {"", ".dcm", ".dicom", ".ima", ".img", ".mr", ".dic"}
_TAGS: list[Any] = [
    pydicom.tag.Tag(keyword)
    for keyword in (
        "SOPClassUID SOPInstanceUID SeriesInstanceUID PatientID Modality SeriesDescription ProtocolName SequenceName "
        "ImageType ScanningSequence EchoTime EffectiveEchoTime RepetitionTime InversionTime ContrastBolusAgent "
        "ContrastBolusAgentSequence AcquisitionContrast DiffusionBValue Rows Columns SamplesPerPixel BitsAllocated "
        "NumberOfFrames PhotometricInterpretation PixelSpacing ImageOrientationPatient ImagePositionPatient "
        "RescaleSlope RescaleIntercept WindowCenter WindowWidth VOILUTFunction PresentationLUTShape "
        "QualityControlImage SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
    ).split()
]


class Frame(NamedTuple):
    """One slice of an object.

    Attributes:
        number: from 1, as in slices.csv.
        sequence: "flair", "ce_t1wi", "t2wi", or None for other MR images.
        plane: direction cosines of the rows and columns, rounded: slices of one stack share it.
        spacing: row and column spacing, mm; (1, 1) where the header does not say.
        window: lowest and highest value shown by the header's VOI window, after rescale; None without one.
        rescale: slope and intercept.
        position_mm: along the normal of the plane, in the scanner's coordinates; NaN where the header does not say.
    """

    number: int
    sequence: str | None
    plane: tuple[float, ...]
    spacing: tuple[float, float]
    window: tuple[float, float] | None
    rescale: tuple[float, float]
    position_mm: float


class MrObject(NamedTuple):
    """An MR image; `file` relative to the scanned folder, `inverted`: bright means little, `compressed` by a codec."""

    file: str
    patient_id: str
    series_uid: str
    sop_uid: str
    shape: tuple[int, int]
    inverted: bool
    phantom: bool
    compressed: bool
    frames: tuple[Frame, ...]


class Skip(NamedTuple):
    """A file that is no MR image: `reason` comes from a fixed vocabulary, so that counts name nobody."""

    file: str
    reason: str


class Reject(NamedTuple):
    """A file that should have been readable: `kind` from a fixed vocabulary, `reason` in free words; ids if known."""

    file: str
    kind: str
    reason: str
    sop_uid: str = ""
    patient_id: str = ""


def read_header(root: str, file: str) -> MrObject | Skip | Reject:
    """Says what one file is, without decoding pixels.

    Args:
        root: the scanned folder.
        file: the file, relative to it.

    Returns:
        `MrObject`, `Skip` or `Reject`; never raises for what a file holds.
    """
    path = Path(root, file)
    try:
        with _silent(), path.open("rb") as stream:
            if not _looks_like_dicom(stream.read(132)):
                return _not_dicom(path, file)
            stream.seek(0)
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=_TAGS)
            pixel_bytes = os.fstat(stream.fileno()).st_size - stream.tell()
            return _describe(file, dataset, pixel_bytes)
    except Exception as error:  # pydicom raises nearly every kind of exception on broken files
        return reject(file, "unreadable header", error)


def decode(root: str, mr: MrObject) -> np.ndarray:
    """Returns the pixels of all frames in rescaled units, float32 [frames, rows, columns].

    MONOCHROME1 and inverse presentation come out negated: air is dark in every array. Padding is as dark as the rest.

    Raises:
        Exception: whatever pydicom and its plugins raise on broken pixels; the caller turns it into a `Reject`.
    """
    with _silent():
        dataset = pydicom.dcmread(Path(root, mr.file), force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # written without a preamble: as it was parsed
            implicit, little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        stored = dataset.pixel_array.reshape(len(mr.frames), *mr.shape)
    padding = dataset.get("PixelPaddingValue")
    slope, intercept = np.array([frame.rescale for frame in mr.frames], np.float32).T[..., None, None]
    pixels = stored.astype(np.float32) * slope + intercept
    pixels = -pixels if mr.inverted else pixels
    if isinstance(padding, int) and (mask := stored == padding).any() and not mask.all():
        pixels[mask] = pixels[~mask].min()  # after rescale and inversion, so that it is dark
    return pixels


def is_axial(plane: tuple[float, ...]) -> bool:
    """Whether a slice lies across the body rather than along it, from its direction cosines; if not known, yes."""
    return len(plane) != 6 or int(np.argmax(np.abs(np.cross(plane[:3], plane[3:])))) == 2


def window_range(
    center: float | None, width: float | None, function: str = "LINEAR", inverted: bool = False
) -> tuple[float, float] | None:
    """The values a VOI window shows as black and as white (DICOM PS3.3 C.11.2.1.2).

    Args:
        center: Window Center, in rescaled units.
        width: Window Width; at least 1 for LINEAR, above 0 for LINEAR_EXACT.
        function: VOI LUT Function; a SIGMOID is taken as the line through its middle.
        inverted: MONOCHROME1; the range comes out negated, as `decode` negates the pixels.

    Returns:
        (low, high) with low < high, or None if there is no usable window.
    """
    if center is None or width is None or width <= (1 if function == "LINEAR" else 0):
        return None
    center, width = (center - 0.5, width - 1) if function == "LINEAR" else (center, width)
    low, high = center - width / 2, center + width / 2
    return (-high, -low) if inverted else (low, high)


def reject(file: str, kind: str, error: Exception) -> Reject:
    """A `Reject` from an exception, its message on one line."""
    return Reject(file, kind, " ".join(f"{type(error).__name__}: {error}".split())[:300])


def _describe(file: str, dataset: Dataset, pixel_bytes: int) -> MrObject | Skip | Reject:
    meta_class = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    storage = str(dataset.get("SOPClassUID", "") or meta_class)
    if storage == _DICOMDIR_CLASS or meta_class == _DICOMDIR_CLASS:
        return Skip(file, "DICOMDIR index")
    modality = str(dataset.get("Modality", "") or "").strip().upper()
    if not modality and (storage in _MR_CLASSES or "SOPInstanceUID" not in dataset):
        return Reject(file, "incomplete header", "Modality is missing")
    if modality != "MR":
        return Skip(file, f"modality {modality}" if modality in _MODALITIES else "other modality")
    if storage not in _MR_CLASSES or "Rows" not in dataset:
        return Skip(file, "MR, but not an image")
    if int(dataset.get("SamplesPerPixel", 1) or 1) != 1:
        return Skip(file, "MR, in colour")
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "PatientID"):
        if not str(dataset.get(keyword, "") or "").strip():
            return Reject(file, "incomplete header", f"{keyword} is missing")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    syntax = dataset.file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian)
    needed = rows * columns * count * int(dataset.get("BitsAllocated", 16)) // 8
    if not (syntax.is_deflated or syntax.is_compressed) and pixel_bytes < needed:
        found = f"{needed} bytes of pixels expected, {max(pixel_bytes, 0)} found"
        return Reject(file, "truncated", found, str(dataset.SOPInstanceUID), str(dataset.PatientID).strip())
    looks = {str(dataset.get(k, "")).strip().upper() for k in ("PhotometricInterpretation", "PresentationLUTShape")}
    inverted = bool(looks & {"MONOCHROME1", "INVERSE"})
    return MrObject(
        file=file,
        patient_id=str(dataset.PatientID).strip(),
        series_uid=str(dataset.SeriesInstanceUID),
        sop_uid=str(dataset.SOPInstanceUID),
        shape=(rows, columns),
        inverted=inverted,
        phantom=str(dataset.get("QualityControlImage", "")).strip().upper() == "YES",
        compressed=syntax.is_compressed,
        frames=tuple(_frame(dataset, index, inverted) for index in range(count)),
    )


def _frame(dataset: Dataset, index: int, inverted: bool) -> Frame:
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    groups = [*per_frame[index : index + 1], *shared[:1]]

    def find(group: str, keyword: str, outside: str | None = None) -> Any:
        for item in groups:
            inner = item.get(group)
            if inner and keyword in inner[0]:
                return inner[0][keyword].value
        return dataset.get(outside or keyword)

    spacing = _numbers(find("PixelMeasuresSequence", "PixelSpacing"))
    slope, intercept = (
        _number(find("PixelValueTransformationSequence", keyword)) for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    center, width = (_number(find("FrameVOILUTSequence", keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    function = find("FrameVOILUTSequence", "VOILUTFunction")
    agents = dataset.get("ContrastBolusAgentSequence") or ()
    clues = sequences.Clues(
        text=str(dataset.get("SeriesDescription", "") or ""),
        image_type=tuple(map(str, _many(find("MRImageFrameTypeSequence", "FrameType", "ImageType")))),
        echo_time=_number(find("MREchoSequence", "EffectiveEchoTime", "EchoTime")),
        repetition_time=_number(find("MRTimingAndRelatedParametersSequence", "RepetitionTime")),
        inversion_time=_number(find("MRModifierSequence", "InversionTimes", "InversionTime")),
        agent=str(dataset.get("ContrastBolusAgent", "") or "") or ("in sequence" if agents else ""),
        contrast=str(find("MRImageFrameTypeSequence", "AcquisitionContrast") or ""),
        scanning=tuple(map(str, _many(dataset.get("ScanningSequence")))),
        b_value=_number(find("MRDiffusionSequence", "DiffusionBValue")),
        names=" ".join(str(dataset.get(k, "") or "") for k in ("ProtocolName", "SequenceName")),
    )
    cosines = _numbers(find("PlaneOrientationSequence", "ImageOrientationPatient"))
    corner = _numbers(find("PlanePositionSequence", "ImagePositionPatient"))
    return Frame(
        number=index + 1,
        sequence=sequences.tell_sequence(clues),
        plane=tuple(round(x, 2) for x in cosines),
        spacing=(spacing[0], spacing[1]) if len(spacing) == 2 and min(spacing) > 0 else (1.0, 1.0),
        window=window_range(center, width, str(function or "LINEAR"), inverted),
        rescale=(1.0 if slope in (None, 0) else float(slope), intercept or 0.0),  # type: ignore[arg-type]
        position_mm=_position(cosines, corner),
    )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps pydicom quiet on odd values: what it warns of and logs repeats the values, which may name a patient."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _looks_like_dicom(head: bytes) -> bool:
    """A preamble with DICM, or a bare data set beginning with group 0002 or 0008 in either byte order."""
    return head[128:132] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")


def _not_dicom(path: Path, file: str) -> Skip | Reject:
    """Tables, pictures and hidden files lie in every tree; what is named like a DICOM file and is none is broken."""
    ending = path.suffix.lower()
    named_like_dicom = ending in _DICOM_ENDINGS or ending[1:].isdigit()
    if path.name.startswith(".") or not named_like_dicom:
        return Skip(file, "not DICOM")
    return Reject(file, "not DICOM", "neither DICOM preamble nor data set" if path.stat().st_size else "empty file")


def _position(cosines: list[float], corner: list[float]) -> float:
    """Of a slice along its normal, from its direction cosines and upper left corner (DICOM PS3.3 C.7.6.2.1.1)."""
    if len(cosines) != 6 or len(corner) != 3:
        return float("nan")
    return float(np.cross(cosines[:3], cosines[3:]) @ np.array(corner))


def _many(value: Any) -> Iterable[Any]:
    """A value of multiplicity 1 comes bare, of more as a list."""
    if value is None or isinstance(value, str):
        return [value] if value else []
    return list(value) if isinstance(value, Iterable) else [value]


def _numbers(value: Any) -> list[float]:
    try:
        numbers = [float(x) for x in _many(value)]
    except (TypeError, ValueError):
        return []
    return numbers if np.isfinite(numbers).all() else []


def _number(value: Any) -> float | None:
    """The first of possibly several values (windows come in alternatives), None where there is none."""
    numbers = _numbers(value)
    return numbers[0] if numbers else None
