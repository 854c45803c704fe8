"""Reads MR images from DICOM files: headers first, pixels only of what is needed.

`read_header` says what a file is: an MR `Instance` with its frames, a `SkippedFile` (readable, but no MR image) or a
`RejectedFile` (broken). `read_pixels` then returns the pixels of an `Instance` in rescaled units, air dark.

Attributes are found the same way in classic and in enhanced multi-frame objects: in the frame's functional groups, then
in the shared ones, then at the top of the data set (DICOM PS3.3 C.7.6.16). File formats and pixel codecs are pydicom's,
with GDCM as the plugin for JPEG-lossless, JPEG-LS and JPEG 2000.
"""

import contextlib
import functools
import io
import logging
import math
import os
import re
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_modality_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from lesion.dicom import text

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
NO_PATIENT = "no PatientID"
FIELD_MM = (20.0, 1500.0)  # of a field of view that can be; outside it the spacing is not in millimetres
_MAX_PIXELS_VARIABLE = "LESION_MAX_PIXELS"  # how other processes are told
# Of a file, all its slices; what claims more is broken, or meant to fill the memory.
MAX_PIXELS = int(os.environ.get(_MAX_PIXELS_VARIABLE, 2**28))
_MIN_SLICE_PIXELS = 64 * 64  # for which each slice counts: millions of tiny ones fill the memory as well
_RLE_RATIO = 64  # two bytes of RLE stand for up to 128 of pixels
_SLACK_BYTES = 2**20  # of what may follow the pixels in a file
_CHUNK_BYTES = 2**24
_MAX_LUT = 2**16  # entries, which a lookup table's header writes as 0
_MAX_SHARED_BYTES = 1024  # of a value that is kept for the next file
_DICOM_SUFFIXES = {"", ".dcm", ".dicom", ".ima", ".img", ".mr", ".dic"}
KEYWORDS = (  # of the elements that are read
    "SpecificCharacterSet SOPClassUID SOPInstanceUID SeriesInstanceUID StudyInstanceUID PatientID Modality "
    "StudyDate AcquisitionDate AcquisitionTime AcquisitionDateTime ContrastBolusStartTime StudyDescription "
    "SeriesDescription ProtocolName SequenceName SeriesNumber BodyPartExamined ImageType ScanningSequence "
    "SequenceVariant EchoTime EffectiveEchoTime RepetitionTime InversionTime ContrastBolusAgent "
    "ContrastBolusAgentSequence AcquisitionContrast DiffusionBValue Rows Columns SamplesPerPixel BitsAllocated "
    "BitsStored BurnedInAnnotation NumberOfFrames PhotometricInterpretation PixelSpacing ReconstructionDiameter "
    "ImageOrientationPatient ImagePositionPatient RescaleSlope RescaleIntercept WindowCenter WindowWidth "
    "VOILUTFunction VOILUTSequence PresentationLUTShape QualityControlImage SharedFunctionalGroupsSequence "
    "PerFrameFunctionalGroupsSequence"
).split()
_TAGS: dict[str, Any] = {keyword: pydicom.tag.Tag(keyword) for keyword in KEYWORDS}


class Attributes(NamedTuple):
    """What a header tells of a frame's sequence, as written; empty or None where it is silent.

    Times are in ms, None where the header says 0; `b_value` is in s/mm². `protocol` joins Protocol Name and Sequence
    Name. Enhanced objects have an `acquisition_contrast`, e.g. FLUID_ATTENUATED, classic ones a `scanning_sequence`,
    e.g. ("SE", "IR").
    """

    description: str = ""
    image_type: tuple[str, ...] = ()
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    agent: str = ""
    acquisition_contrast: str = ""
    scanning_sequence: tuple[str, ...] = ()
    b_value: float | None = None
    protocol: str = ""
    sequence_variant: tuple[str, ...] = ()
    body_part: str = ""
    study_description: str = ""


class Frame(NamedTuple):
    """One slice of an instance.

    Attributes:
        number: from 1, as in slices.csv.
        attributes: what tells the sequence.
        plane: direction cosines of the rows and columns, rounded: slices of one stack share it.
        spacing: row and column spacing, mm; None where the header does not say, or says what cannot be.
        window: lowest and highest value shown by the header's VOI window, or mapped by its VOI lookup table, after
            rescale; None without one.
        rescale: slope and intercept.
        position_mm: along the normal of the plane, in the scanner's coordinates; NaN where the header does not say.
        repaired: what of the spacing was put right, in words.
        voi_lut: entries of the VOI lookup table, evenly from one end of `window` to the other, little-endian uint16;
            empty without one.
    """

    number: int
    attributes: Attributes
    plane: tuple[float, ...]
    spacing: tuple[float, float] | None
    window: tuple[float, float] | None
    rescale: tuple[float, float]
    position_mm: float
    repaired: str = ""
    voi_lut: bytes = b""


class Instance(NamedTuple):
    """An MR image (a SOP instance).

    Attributes:
        file: its path, relative to the scanned folder.
        patient_id: without blanks around it.
        series_uid: SeriesInstanceUID.
        sop_uid: SOPInstanceUID.
        shape: rows and columns.
        inverted: whether large stored values mean dark.
        phantom: whether the header says that a phantom was scanned (QualityControlImage).
        compressed: whether the pixels need a codec.
        frames: its slices.
        study_uid: StudyInstanceUID.
        study_date: as written, YYYYMMDD; empty where the header is silent.
        series_number: of its study, None where the header is silent.
        acquired_s: time of day of the acquisition, seconds; NaN where the header is silent.
        agent_s: time of day of the injection, seconds; NaN where the header is silent.
        patient_readings: what else `patient_id` may be, where its encoding is a guess.
        may_hold_text: whether text may be burned into its pixels: the header says so, it is a secondary image, or it
            has 8 bits, as what was made to be shown; an original image of 12 or 16 bits is none of these.
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
    study_uid: str = ""
    study_date: str = ""
    series_number: int | None = None
    acquired_s: float = math.nan
    agent_s: float = math.nan
    patient_readings: tuple[str, ...] = ()
    may_hold_text: bool = False


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


def read_header(folder: str, file: str, patient_id: str | None = None) -> Instance | SkippedFile | RejectedFile:
    """Reads the header of one file, without decoding pixels; never raises for what the file holds.

    Args:
        folder: the scanned folder.
        file: path of the file, relative to `folder`.
        patient_id: what counts in the place of the header's PatientID, if given.
    """
    path = Path(folder, file)
    try:
        with _silent(), _File(path) as stream:
            if not _looks_like_dicom(stream.read(132)):
                return _not_dicom(path, file)
            stream.seek(0)
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(_TAGS.values()))
            if patient_id is not None:
                dataset.PatientID = patient_id
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
    with _silent(), _File(Path(folder, instance.file)) as stream:
        dataset = pydicom.dcmread(stream, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # written without a preamble: as it was parsed
            implicit, little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        if instance.compressed:
            _check_codestreams(dataset, instance)
        stored = dataset.pixel_array.reshape(len(instance.frames), *instance.shape)
    padding = dataset.get("PixelPaddingValue")
    if dataset.get("ModalityLUTSequence"):  # stands in the place of slope and intercept
        dataset.ModalityLUTSequence[0].LUTDescriptor[2] = 16  # bits of an entry: pydicom takes 8 and 16 only
        pixels = apply_modality_lut(stored.astype(np.int32), dataset).astype(np.float32)
    else:
        slope, intercept = np.array([frame.rescale for frame in instance.frames], np.float32).T[..., None, None]
        pixels = stored.astype(np.float32) * slope + intercept
    pixels = -pixels if instance.inverted else pixels
    if isinstance(padding, int) and (mask := stored == padding).any() and not mask.all():
        pixels[mask] = pixels[~mask].min()  # after rescale and inversion, so that it is dark
    return pixels


def is_axial(plane: tuple[float, ...]) -> bool:
    """Returns whether direction cosines are those of a slice across the body; True where they are not known."""
    return plane_name(plane) in ("axial", "unknown")


def plane_name(plane: tuple[float, ...]) -> str:
    """Returns "sagittal", "coronal", "axial" or "unknown" for direction cosines."""
    if len(plane) != 6:
        return "unknown"
    return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(_normal(plane))))]


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


def set_max_pixels(max_pixels: int) -> None:
    """Sets `MAX_PIXELS`, of this process and of those it starts from now on."""
    global MAX_PIXELS
    MAX_PIXELS = max_pixels
    os.environ[_MAX_PIXELS_VARIABLE] = str(max_pixels)


def too_large(rows: int, columns: int, num_slices: int) -> str:
    """Returns why a file of so many slices is not read: it has more than MAX_PIXELS; empty if it is read."""
    if max(rows * columns, _MIN_SLICE_PIXELS) * num_slices <= MAX_PIXELS:
        return ""
    at_most = f"of {MAX_PIXELS} at most (--max_pixels)"
    return f"{num_slices} slices of {rows} × {columns} pixels, {at_most}: is the header broken?"


def reject(file: str, kind: str, error: Exception) -> RejectedFile:
    """Returns the rejection of a file for an exception, its message on one line."""
    return RejectedFile(file, kind, " ".join(f"{type(error).__name__}: {error}".split())[:300])


def _instance(file: str, dataset: Dataset, pixel_bytes: int) -> Instance | SkippedFile | RejectedFile:
    """Returns what a data set without its pixels holds; `pixel_bytes` follow it in the file."""
    meta_class = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    sop_class = str(_get(dataset, "SOPClassUID", "") or meta_class)
    if sop_class == _DICOMDIR_CLASS or meta_class == _DICOMDIR_CLASS:
        return SkippedFile(file, "DICOMDIR index")
    modality = str(_get(dataset, "Modality", "") or "").strip().upper()
    if not modality and (sop_class in _MR_CLASSES or "SOPInstanceUID" not in dataset):
        return RejectedFile(file, "incomplete header", "Modality is missing")
    if modality != "MR":
        return SkippedFile(file, f"modality {modality}" if modality in _MODALITIES else "other modality")
    if sop_class not in _MR_CLASSES or "Rows" not in dataset:
        return SkippedFile(file, "MR, but not an image")
    # One sample a pixel with a palette is an index, no intensity.
    palette = "PALETTE" in str(_get(dataset, "PhotometricInterpretation", "")).upper()
    if int(_get(dataset, "SamplesPerPixel", 1) or 1) != 1 or palette:
        return SkippedFile(file, "MR, in colour")
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        if not str(_get(dataset, keyword, "") or "").strip():
            return RejectedFile(file, "incomplete header", f"{keyword} is missing")
    if not _text(dataset, "PatientID"):
        return RejectedFile(file, NO_PATIENT, "PatientID is missing or empty, or no folder stands for it")
    rows, columns = int(_get(dataset, "Rows")), int(_get(dataset, "Columns"))
    num_frames = int(_get(dataset, "NumberOfFrames", 1) or 1)
    ids = str(_get(dataset, "SOPInstanceUID")), _text(dataset, "PatientID")
    if min(rows, columns, num_frames) < 1:
        return RejectedFile(file, "incomplete header", f"{num_frames} frames of {rows} × {columns} pixels", *ids)
    if reason := too_large(rows, columns, num_frames):
        return RejectedFile(file, "too large", reason, *ids)
    syntax = dataset.file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian)
    needed = rows * columns * num_frames * int(_get(dataset, "BitsAllocated", 16)) // 8
    is_rle = syntax == RLELossless
    if is_rle and pixel_bytes > 2 * needed + _SLACK_BYTES:
        reason = f"{pixel_bytes} bytes of RLE for {needed} bytes of pixels"
        return RejectedFile(file, "too large", reason, *ids)
    least = needed // _RLE_RATIO if is_rle else 0 if syntax.is_deflated or syntax.is_compressed else needed
    if pixel_bytes < least:
        reason = f"{least} bytes of pixels expected, {max(pixel_bytes, 0)} found"
        return RejectedFile(file, "truncated", reason, *ids)
    presentation = {
        str(_get(dataset, keyword, "")).strip().upper()
        for keyword in ("PhotometricInterpretation", "PresentationLUTShape")
    }
    inverted = bool(presentation & {"MONOCHROME1", "INVERSE"})
    return Instance(
        file=file,
        patient_id=unicodedata.normalize("NFC", _text(dataset, "PatientID")),
        series_uid=str(_get(dataset, "SeriesInstanceUID")),
        sop_uid=str(_get(dataset, "SOPInstanceUID")),
        shape=(rows, columns),
        inverted=inverted,
        phantom=str(_get(dataset, "QualityControlImage", "")).strip().upper() == "YES",
        compressed=syntax.is_compressed,
        frames=tuple(_frame(dataset, index, inverted) for index in range(num_frames)),
        study_uid=str(_get(dataset, "StudyInstanceUID", "") or ""),
        study_date=str(_get(dataset, "StudyDate", "") or _get(dataset, "AcquisitionDate", "") or ""),
        series_number=None if (number := _number(_get(dataset, "SeriesNumber"))) is None else int(number),
        acquired_s=_time_of_day(_get(dataset, "AcquisitionTime") or str(_get(dataset, "AcquisitionDateTime", ""))[8:]),
        agent_s=_time_of_day(_get(dataset, "ContrastBolusStartTime")),
        patient_readings=tuple(text.candidates(_undeclared(dataset, "PatientID"))[1:]),
        may_hold_text=_may_hold_text(dataset),
    )


def _may_hold_text(dataset: Dataset) -> bool:
    """Returns whether text may be burned into the pixels, see `Instance`."""
    bits = _number(_get(dataset, "BitsStored")) or _number(_get(dataset, "BitsAllocated")) or 16
    said = str(_get(dataset, "BurnedInAnnotation", "")).strip().upper() == "YES"
    return said or bits <= 8 or "SECONDARY" in _texts(_get(dataset, "ImageType"))


def _frame(dataset: Dataset, index: int, inverted: bool) -> Frame:
    per_frame = _get(dataset, "PerFrameFunctionalGroupsSequence") or ()
    shared = _get(dataset, "SharedFunctionalGroupsSequence") or ()
    groups = [*per_frame[index : index + 1], *shared[:1]]

    def find(group: str, keyword: str, classic_keyword: str | None = None) -> Any:
        for item in groups:
            inner = item.get(group)
            if inner and keyword in inner[0]:
                return inner[0][keyword].value
        return _get(dataset, classic_keyword or keyword)

    rows = int(_get(dataset, "Rows"))
    spacing, repaired = _spacing(
        find("PixelMeasuresSequence", "PixelSpacing"), _number(_get(dataset, "ReconstructionDiameter")), rows
    )
    slope, intercept = (
        _number(find("PixelValueTransformationSequence", keyword)) for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    center, width = (_number(find("FrameVOILUTSequence", keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    function = find("FrameVOILUTSequence", "VOILUTFunction")
    window, voi_lut = _voi_lut(find("FrameVOILUTSequence", "VOILUTSequence"), dataset.original_encoding[1], inverted)
    attributes = Attributes(
        description=_text(dataset, "SeriesDescription"),
        image_type=_texts(find("MRImageFrameTypeSequence", "FrameType", "ImageType")),
        echo_time_ms=_number(find("MREchoSequence", "EffectiveEchoTime", "EchoTime")) or None,
        repetition_time_ms=_number(find("MRTimingAndRelatedParametersSequence", "RepetitionTime")) or None,
        inversion_time_ms=_number(find("MRModifierSequence", "InversionTimes", "InversionTime")) or None,
        agent=_agent(dataset, find("ContrastBolusUsageSequence", "ContrastBolusAgentAdministered")),
        acquisition_contrast=str(find("MRImageFrameTypeSequence", "AcquisitionContrast") or ""),
        scanning_sequence=_texts(_get(dataset, "ScanningSequence")),
        b_value=_number(find("MRDiffusionSequence", "DiffusionBValue")),
        protocol=" ".join(filter(None, (_text(dataset, keyword) for keyword in ("ProtocolName", "SequenceName")))),
        sequence_variant=_texts(_get(dataset, "SequenceVariant")),
        body_part=_text(dataset, "BodyPartExamined"),
        study_description=_text(dataset, "StudyDescription"),
    )
    cosines = _numbers(find("PlaneOrientationSequence", "ImageOrientationPatient"))
    corner = _numbers(find("PlanePositionSequence", "ImagePositionPatient"))
    return Frame(
        number=index + 1,
        attributes=_shared(attributes),
        plane=_shared(tuple(round(x, 2) for x in cosines)),
        spacing=spacing,
        window=window or window_range(center, width, str(function or "LINEAR"), inverted),
        rescale=(slope or 1.0, intercept or 0.0),
        position_mm=_position(cosines, corner),
        repaired=repaired,
        voi_lut=_shared(voi_lut),
    )


def _voi_lut(items: Any, is_little_endian: bool | None, inverted: bool) -> tuple[tuple[float, float] | None, bytes]:
    """Returns what `Frame` tells of a VOI lookup table; None and nothing where there is none that can be applied."""
    if not items:
        return None, b""
    descriptor, data = _numbers(items[0].get("LUTDescriptor")), items[0].get("LUTData")
    if isinstance(data, bytes):
        entries = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if is_little_endian else ">u2")
    else:
        entries = np.array(_numbers(data))
    if len(descriptor) != 3 or not len(entries) == (descriptor[0] or _MAX_LUT) >= 2:
        return None, b""
    low, high = descriptor[1], descriptor[1] + len(entries) - 1
    if inverted:  # as `read_pixels` negates the pixels, and dark is bright
        low, high, entries = -high, -low, entries.max() - entries[::-1]
    return (low, high), entries.astype("<u2").tobytes()


def _get(dataset: Dataset, keyword: str, default: Any = None) -> Any:
    """Returns an element's value as `Dataset.get` does; what slices of a series share is converted once."""
    element = dataset.get_item(_TAGS[keyword]) if keyword in _TAGS else None  # no other is read
    if element is None:
        return default
    if not isinstance(element, RawDataElement):
        return element.value
    if keyword.endswith("Sequence") or element.VR == "SQ" or len(element.value or b"") > _MAX_SHARED_BYTES:
        return dataset.get(keyword, default)
    # Where a value lies in its file changes nothing, and would make each file's another.
    encoding = dataset.original_character_set
    encodings = (encoding,) if isinstance(encoding, str) else tuple(encoding)
    return _convert(RawDataElement(*element[:4], 0, *element[5:]), encodings)


@functools.lru_cache(maxsize=8192)
def _convert(element: RawDataElement, encodings: tuple[str, ...]) -> Any:
    return convert_raw_data_element(element, encoding=list(encodings)).value


@functools.lru_cache(maxsize=256)
def _shared(value: Hashable) -> Any:
    """Returns a value, the same object for equal ones: it is sent and held once for many slices."""
    return value


def _text(dataset: Dataset, keyword: str) -> str:
    """Returns an element's text without blanks around it; its encoding is guessed where the header tells none."""
    raw = _undeclared(dataset, keyword)
    return text.decode(raw) if raw else str(_get(dataset, keyword, "") or "").strip()


def _undeclared(dataset: Dataset, keyword: str) -> bytes:
    """Returns an element's bytes where they are no ASCII and the header does not tell their encoding; else none."""
    element = dataset.get_item(keyword)
    declared = str(_get(dataset, "SpecificCharacterSet") or "ISO_IR 6")
    if not isinstance(element, RawDataElement) or declared != "ISO_IR 6":
        return b""
    raw = (element.value or b"").strip(b" \0")
    return b"" if raw.isascii() else raw


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, _values(value)))


def _agent(dataset: Dataset, administered: Any) -> str:
    """Returns what the header says of the agent; enhanced objects say of each frame whether it was administered."""
    if str(administered or "").upper() == "NO":
        return ""
    in_sequence = "in sequence" if _get(dataset, "ContrastBolusAgentSequence") else ""
    return _text(dataset, "ContrastBolusAgent") or in_sequence


def _spacing(value: Any, field_mm: float | None, rows: int) -> tuple[tuple[float, float] | None, str]:
    """Returns row and column spacing, mm, None if there is none that can be, and what was put right, in words.

    A comma may stand for the backslash between the two ("0.47,0.47") or for the decimal point ("0,47\\0,47"). Where
    there is no spacing the reconstructed field of view `field_mm` tells it; one that contradicts it is none.
    """
    spacing, repaired = _numbers(value), ""
    if not spacing and "," in str(value):
        parts = [str(part) for part in _values(value)]
        parts = [part.replace(",", ".") for part in parts] if len(parts) == 2 else str(value).split(",")
        spacing, repaired = _numbers(parts), "PixelSpacing is written with a comma"
    if len(spacing) != 2 and field_mm:
        spacing, repaired = [field_mm / rows] * 2, "PixelSpacing is taken from the field of view"
    possible = len(spacing) == 2 and all(FIELD_MM[0] <= rows * x <= FIELD_MM[1] for x in spacing)
    contradicted = field_mm and possible and not 0.4 < rows * spacing[0] / field_mm < 2.5
    return ((spacing[0], spacing[1]), repaired) if possible and not contradicted else (None, "")


def _time_of_day(value: Any) -> float:
    """Returns the seconds since midnight of HHMMSS.FFFFFF; NaN where it is none."""
    digits = re.fullmatch(r"(\d\d):?(\d\d):?(\d\d(?:\.\d*)?).*", str(value or "").strip())
    return 3600.0 * int(digits[1]) + 60 * int(digits[2]) + float(digits[3]) if digits else math.nan


class _File(io.BufferedReader):
    """A file opened to be read; refuses to be read to its end at once where it is deflated and too large.

    pydicom inflates a file of a deflated syntax in one go, and reads to the end for nothing else.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns so many bytes, or the rest; raises a ValueError if that would inflate to too much."""
        content = super().read(size)
        if size is None or size < 0:
            inflate, left, length = zlib.decompressobj(-zlib.MAX_WBITS), content, 0
            while left:
                length += len(inflate.decompress(left, _CHUNK_BYTES))
                left = inflate.unconsumed_tail
                if length > 2 * MAX_PIXELS:
                    raise ValueError(
                        f"deflated, of more than {2 * MAX_PIXELS} bytes: unpack it yourself, or raise --max_pixels"
                    )
        return content


def _check_codestreams(dataset: Dataset, instance: Instance) -> None:
    """Raises a ValueError if a compressed frame claims more pixels than the header: codecs take memory for them."""
    rows, columns = instance.shape
    for frame in generate_frames(dataset.PixelData, number_of_frames=len(instance.frames)):
        if (coded := _coded_pixels(frame)) > rows * columns:
            raise ValueError(f"a compressed frame of {coded} pixels, in an image of {rows} × {columns}")


def _coded_pixels(frame: bytes) -> int:
    """Returns how many values a JPEG, JPEG-LS or JPEG 2000 codestream claims to hold; 0 where it does not say."""
    start = frame.find(b"\xff\x4f\xff\x51")  # SOC and SIZ, perhaps behind the boxes of a JP2 file
    if start >= 0 and len(frame) >= start + 42:
        right, bottom, left, top, components = struct.unpack_from(">8x4I16xH", frame, start)
        return max(right - left, 0) * max(bottom - top, 0) * components
    at = 2 if frame.startswith(b"\xff\xd8") else len(frame)
    while at + 10 <= len(frame):
        marker, length = struct.unpack_from(">xBH", frame, at)
        if marker == 0xFF:  # a fill byte
            at += 1
        elif (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:  # start of frame
            rows, columns, components = struct.unpack_from(">5xHHB", frame, at)
            return rows * columns * components
        else:
            at += 2 + length
    return 0


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
    return float(np.array(_normal(cosines)) @ np.array(corner))


def _normal(cosines: Sequence[float]) -> tuple[float, float, float]:
    (a, b, c), (d, e, f) = cosines[:3], cosines[3:]
    return b * f - c * e, c * d - a * f, a * e - b * d


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
    return numbers if all(map(math.isfinite, numbers)) else []


def _number(value: Any) -> float | None:
    """Returns the first of possibly several values (windows come in alternatives), None where there is none."""
    numbers = _numbers(value)
    return numbers[0] if numbers else None
