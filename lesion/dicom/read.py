"""Reads MR images from DICOM files: headers first, pixels only of what is needed.

`read_header` says what a file is: an MR `Instance` with its frames, a `SkippedFile` (readable, but no MR image) or a
`RejectedFile` (broken). `read_pixels` then returns the pixels of an `Instance` in rescaled units, air dark.

Attributes are found the same way in classic and in enhanced multi-frame objects: in the frame's functional groups, then
in the shared ones, then at the top of the data set (DICOM PS3.3 C.7.6.16). File formats and pixel codecs are pydicom's,
with GDCM as the plugin for JPEG-lossless, JPEG-LS and JPEG 2000.
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

_MR_CLASSES = {
    "",  # old objects have none: the modality decides
    "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image Storage
}
_DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
# Named in counts. Any other text in that field is not repeated: it could hold anything.
_MODALITIES = frozenset(
    "CT PT NM US XA RF CR DX MG OT SC SR PR KO SEG RTSTRUCT RTPLAN RTDOSE RTIMAGE REG ECG DOC".split()
)
_DICOM_SUFFIXES = {"", ".dcm", ".dicom", ".ima", ".img", ".mr", ".dic"}
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


class Attributes(NamedTuple):
    """The DICOM attributes of a frame that tell its sequence, as written; empty or None where the header is silent.

    Times are in ms, `b_value` in s/mm². `description` is that of the series; `protocol` joins Protocol Name and
    Sequence Name, which are often those of the whole examination. Enhanced objects have an `acquisition_contrast`,
    e.g. FLUID_ATTENUATED, classic ones a `scanning_sequence`, e.g. ("SE", "IR").
    """

    description: str = ""
    image_type: tuple[str, ...] = ()
    echo_time: float | None = None
    repetition_time: float | None = None
    inversion_time: float | None = None
    contrast_agent: str = ""
    acquisition_contrast: str = ""
    scanning_sequence: tuple[str, ...] = ()
    b_value: float | None = None
    protocol: str = ""


class Frame(NamedTuple):
    """One slice of an instance.

    Attributes:
        number: from 1, as in slices.csv.
        attributes: what tells the sequence.
        plane: direction cosines of the rows and columns, rounded: slices of one stack share it.
        spacing: row and column spacing, mm; (1, 1) where the header does not say.
        window: lowest and highest value shown by the header's VOI window, after rescale; None without one.
        rescale: slope and intercept.
        position_mm: along the normal of the plane, in the scanner's coordinates; NaN where the header does not say.
    """

    number: int
    attributes: Attributes
    plane: tuple[float, ...]
    spacing: tuple[float, float]
    window: tuple[float, float] | None
    rescale: tuple[float, float]
    position_mm: float


class Instance(NamedTuple):
    """An MR image (a SOP instance).

    `file` is relative to the scanned folder; `inverted`: large stored values mean dark; `phantom`: the header says that
    a phantom was scanned (QualityControlImage); `compressed`: the pixels need a codec.
    """

    file: str
    patient_id: str
    series_uid: str
    sop_uid: str
    shape: tuple[int, int]
    inverted: bool
    phantom: bool
    compressed: bool
    frames: tuple[Frame, ...]


class SkippedFile(NamedTuple):
    """A file that is not used: `reason` comes from a fixed vocabulary, so that counts name nobody."""

    file: str
    reason: str


class RejectedFile(NamedTuple):
    """A file that should have been readable: `kind` from a fixed vocabulary, `reason` in free words; ids if known."""

    file: str
    kind: str
    reason: str
    sop_uid: str = ""
    patient_id: str = ""


def read_header(folder: str, file: str) -> Instance | SkippedFile | RejectedFile:
    """Reads the header of one file, without decoding pixels; never raises for what the file holds.

    Args:
        folder: the scanned folder.
        file: path of the file, relative to `folder`.
    """
    path = Path(folder, file)
    try:
        with _silent(), path.open("rb") as stream:
            if not _looks_like_dicom(stream.read(132)):
                return _not_dicom(path, file)
            stream.seek(0)
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=_TAGS)
            pixel_bytes = os.fstat(stream.fileno()).st_size - stream.tell()
            return _instance(file, dataset, pixel_bytes)
    except Exception as error:  # pydicom raises nearly every kind of exception on broken files
        return reject(file, "unreadable header", error)


def read_pixels(folder: str, instance: Instance) -> np.ndarray:
    """Returns the pixels of all frames in rescaled units, float32 [frames, rows, columns].

    MONOCHROME1 and inverse presentation come out negated: air is dark in every array. Padding is as dark as the rest.

    Raises:
        Exception: whatever pydicom and its plugins raise on broken pixels; the caller turns it into a `RejectedFile`.
    """
    with _silent():
        dataset = pydicom.dcmread(Path(folder, instance.file), force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # written without a preamble: as it was parsed
            implicit, little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        stored = dataset.pixel_array.reshape(len(instance.frames), *instance.shape)
    padding = dataset.get("PixelPaddingValue")
    slope, intercept = np.array([frame.rescale for frame in instance.frames], np.float32).T[..., None, None]
    pixels = stored.astype(np.float32) * slope + intercept
    pixels = -pixels if instance.inverted else pixels
    if isinstance(padding, int) and (mask := stored == padding).any() and not mask.all():
        pixels[mask] = pixels[~mask].min()  # after rescale and inversion, so that it is dark
    return pixels


def is_axial(plane: tuple[float, ...]) -> bool:
    """Returns whether direction cosines are those of a slice across the body; True where they are not known."""
    return len(plane) != 6 or int(np.argmax(np.abs(np.cross(plane[:3], plane[3:])))) == 2


def window_range(
    center: float | None, width: float | None, function: str = "LINEAR", inverted: bool = False
) -> tuple[float, float] | None:
    """Returns the values that a VOI window shows as black and as white (DICOM PS3.3 C.11.2.1.2).

    Args:
        center: Window Center, in rescaled units.
        width: Window Width; at least 1 for LINEAR, above 0 for LINEAR_EXACT.
        function: VOI LUT Function; a SIGMOID is taken as the line through its middle.
        inverted: whether the image is MONOCHROME1; the range comes out negated, as `read_pixels` negates the pixels.

    Returns:
        (low, high) with low < high, or None if there is no usable window.
    """
    if center is None or width is None or width <= (1 if function == "LINEAR" else 0):
        return None
    center, width = (center - 0.5, width - 1) if function == "LINEAR" else (center, width)
    low, high = center - width / 2, center + width / 2
    return (-high, -low) if inverted else (low, high)


def reject(file: str, kind: str, error: Exception) -> RejectedFile:
    """Returns the rejection of a file for an exception, its message on one line."""
    return RejectedFile(file, kind, " ".join(f"{type(error).__name__}: {error}".split())[:300])


def _instance(file: str, dataset: Dataset, pixel_bytes: int) -> Instance | SkippedFile | RejectedFile:
    """Returns what a data set without its pixels holds; `pixel_bytes` follow it in the file."""
    meta_class = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    sop_class = str(dataset.get("SOPClassUID", "") or meta_class)
    if sop_class == _DICOMDIR_CLASS or meta_class == _DICOMDIR_CLASS:
        return SkippedFile(file, "DICOMDIR index")
    modality = str(dataset.get("Modality", "") or "").strip().upper()
    if not modality and (sop_class in _MR_CLASSES or "SOPInstanceUID" not in dataset):
        return RejectedFile(file, "incomplete header", "Modality is missing")
    if modality != "MR":
        return SkippedFile(file, f"modality {modality}" if modality in _MODALITIES else "other modality")
    if sop_class not in _MR_CLASSES or "Rows" not in dataset:
        return SkippedFile(file, "MR, but not an image")
    if int(dataset.get("SamplesPerPixel", 1) or 1) != 1:
        return SkippedFile(file, "MR, in colour")
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "PatientID"):
        if not str(dataset.get(keyword, "") or "").strip():
            return RejectedFile(file, "incomplete header", f"{keyword} is missing")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    num_frames = int(dataset.get("NumberOfFrames", 1) or 1)
    syntax = dataset.file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian)
    needed = rows * columns * num_frames * int(dataset.get("BitsAllocated", 16)) // 8
    if not (syntax.is_deflated or syntax.is_compressed) and pixel_bytes < needed:
        reason = f"{needed} bytes of pixels expected, {max(pixel_bytes, 0)} found"
        return RejectedFile(file, "truncated", reason, str(dataset.SOPInstanceUID), str(dataset.PatientID).strip())
    presentation = {
        str(dataset.get(keyword, "")).strip().upper()
        for keyword in ("PhotometricInterpretation", "PresentationLUTShape")
    }
    inverted = bool(presentation & {"MONOCHROME1", "INVERSE"})
    return Instance(
        file=file,
        patient_id=str(dataset.PatientID).strip(),
        series_uid=str(dataset.SeriesInstanceUID),
        sop_uid=str(dataset.SOPInstanceUID),
        shape=(rows, columns),
        inverted=inverted,
        phantom=str(dataset.get("QualityControlImage", "")).strip().upper() == "YES",
        compressed=syntax.is_compressed,
        frames=tuple(_frame(dataset, index, inverted) for index in range(num_frames)),
    )


def _frame(dataset: Dataset, index: int, inverted: bool) -> Frame:
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    groups = [*per_frame[index : index + 1], *shared[:1]]

    def find(group: str, keyword: str, classic_keyword: str | None = None) -> Any:
        for item in groups:
            inner = item.get(group)
            if inner and keyword in inner[0]:
                return inner[0][keyword].value
        return dataset.get(classic_keyword or keyword)

    spacing = _numbers(find("PixelMeasuresSequence", "PixelSpacing"))
    slope, intercept = (
        _number(find("PixelValueTransformationSequence", keyword)) for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    center, width = (_number(find("FrameVOILUTSequence", keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    function = find("FrameVOILUTSequence", "VOILUTFunction")
    agents = dataset.get("ContrastBolusAgentSequence") or ()
    attributes = Attributes(
        description=str(dataset.get("SeriesDescription", "") or ""),
        image_type=tuple(map(str, _values(find("MRImageFrameTypeSequence", "FrameType", "ImageType")))),
        echo_time=_number(find("MREchoSequence", "EffectiveEchoTime", "EchoTime")),
        repetition_time=_number(find("MRTimingAndRelatedParametersSequence", "RepetitionTime")),
        inversion_time=_number(find("MRModifierSequence", "InversionTimes", "InversionTime")),
        contrast_agent=str(dataset.get("ContrastBolusAgent", "") or "") or ("in sequence" if agents else ""),
        acquisition_contrast=str(find("MRImageFrameTypeSequence", "AcquisitionContrast") or ""),
        scanning_sequence=tuple(map(str, _values(dataset.get("ScanningSequence")))),
        b_value=_number(find("MRDiffusionSequence", "DiffusionBValue")),
        protocol=" ".join(str(dataset.get(keyword, "") or "") for keyword in ("ProtocolName", "SequenceName")),
    )
    cosines = _numbers(find("PlaneOrientationSequence", "ImageOrientationPatient"))
    corner = _numbers(find("PlanePositionSequence", "ImagePositionPatient"))
    return Frame(
        number=index + 1,
        attributes=attributes,
        plane=tuple(round(x, 2) for x in cosines),
        spacing=(spacing[0], spacing[1]) if len(spacing) == 2 and min(spacing) > 0 else (1.0, 1.0),
        window=window_range(center, width, str(function or "LINEAR"), inverted),
        rescale=(slope or 1.0, intercept or 0.0),
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
    """Returns whether a file begins with a preamble and DICM, or with group 0002 or 0008 in either byte order."""
    return head[128:132] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")


def _not_dicom(path: Path, file: str) -> SkippedFile | RejectedFile:
    """Skips tables, pictures and hidden files, which lie in every tree; rejects what is named like a DICOM file."""
    suffix = path.suffix.lower()
    named_like_dicom = suffix in _DICOM_SUFFIXES or suffix[1:].isdigit()
    if path.name.startswith(".") or not named_like_dicom:
        return SkippedFile(file, "not DICOM")
    return RejectedFile(
        file, "not DICOM", "neither DICOM preamble nor data set" if path.stat().st_size else "empty file"
    )


def _position(cosines: list[float], corner: list[float]) -> float:
    """Returns where a slice lies along its normal, mm, from its upper left corner (DICOM PS3.3 C.7.6.2.1.1)."""
    if len(cosines) != 6 or len(corner) != 3:
        return float("nan")
    return float(np.cross(cosines[:3], cosines[3:]) @ np.array(corner))


def _values(value: Any) -> Iterable[Any]:
    """Returns the values of an element: pydicom gives a single one bare, several as a list."""
    if value is None or isinstance(value, str):
        return [value] if value else []
    return list(value) if isinstance(value, Iterable) else [value]


def _numbers(value: Any) -> list[float]:
    """Returns the values of an element as finite numbers; none where one of them is no such number."""
    try:
        numbers = [float(x) for x in _values(value)]
    except (TypeError, ValueError):
        return []
    return numbers if np.isfinite(numbers).all() else []


def _number(value: Any) -> float | None:
    """Returns the first of possibly several values (windows come in alternatives), None where there is none."""
    numbers = _numbers(value)
    return numbers[0] if numbers else None
