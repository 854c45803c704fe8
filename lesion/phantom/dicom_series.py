"""The phantom's DICOM files: headers as two vendors' scanners write them, and text burned into the corners.

Names, birth dates and study dates are invented and planted on purpose, in the header and in the pixels: what removes
them later can be tested against them. Quality Control Image (0028,0300) is YES in every file: DICOM's mark of a
phantom.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from lesion.phantom.scanner import Pulse

SURNAMES = "ZHANG WANG LI ZHAO CHEN LIU YANG HUANG ZHOU WU XU SUN HU ZHU GAO LIN HE GUO MA LUO".split()
GIVEN_NAMES = "WEI FANG NA MIN JING LEI JUN YANLI TAO CHAO XIULAN PING GANG GUIYING HONG LONG BIN QIANG YU MEI".split()
AGENT = "Gadobutrol"

# Series descriptions, one column a vendor: keys are sequence and kind of pulse.
VENDORS = {
    "GE MEDICAL SYSTEMS": {
        "model": "DISCOVERY MR750",
        "ending": "",
        "flair": "Ax T2 FLAIR",
        "ce_t1wi/gre": "Ax T1 FSPGR +C",
        "ce_t1wi/se": "Ax T1 SE +C",
        "t2wi": "Ax T2 FRFSE",
    },
    "SIEMENS": {
        "model": "Skyra",
        "ending": ".dcm",
        "flair": "t2_tirm_tra_dark-fluid",
        "ce_t1wi/gre": "t1_fl2d_tra_KM",
        "ce_t1wi/se": "t1_se_tra_KM",
        "t2wi": "t2_tse_tra",
    },
}


class Identity(NamedTuple):
    """Who the header says this is; all invented.

    Attributes:
        patient_id: PatientID, also in `patients.csv`.
        name: DICOM person name.
        birth_date: YYYYMMDD.
        study_date: YYYYMMDD.
        study_time: HHMMSS.
        sex: F or M.
        age: years at the study.
        weight_kg: body weight.
        vendor: key of `VENDORS`.
    """

    patient_id: str
    name: str
    birth_date: str
    study_date: str
    study_time: str
    sex: str
    age: int
    weight_kg: int
    vendor: str


class Series(NamedTuple):
    """One series to write.

    Attributes:
        number: SeriesNumber.
        sequence: flair, ce_t1wi or t2wi.
        pulse: its timing.
        pixels: uint16 [Z, rows, columns].
        spacing_mm: of the pixels.
        z_mm: [Z], height of the slices in the head's frame.
        front_mm: y (to the front) of the middle of the field of view.
        tilt_deg: turn of the slices about the left-right axis.
        thickness_mm: slice thickness.
        gap_mm: between slices.
        phase_lines: acquired lines.
        acquired_matrix: acquired samples a line.
        window: centre and width.
    """

    number: int
    sequence: str
    pulse: Pulse
    pixels: np.ndarray
    spacing_mm: float
    z_mm: np.ndarray
    front_mm: float
    tilt_deg: float
    thickness_mm: float
    gap_mm: float
    phase_lines: int
    acquired_matrix: int
    window: tuple[int, int]


def draw_identity(rng: np.random.Generator, patient_id: str, vendor: str, sex: str, age: int) -> Identity:
    """An invented patient; vendor, sex and age are given, since they must be balanced within each class."""
    study_year, birth_month = int(rng.integers(2015, 2020)), int(rng.integers(1, 13))
    return Identity(
        patient_id,
        f"{rng.choice(SURNAMES)}^{rng.choice(GIVEN_NAMES)}",
        f"{study_year - age:04d}{birth_month:02d}{rng.integers(1, 28):02d}",
        f"{study_year:04d}12{rng.integers(1, 31):02d}",
        f"{rng.integers(8, 18):02d}{rng.integers(60):02d}{rng.integers(60):02d}",
        sex,
        age,
        int(rng.integers(48, 95)),
        vendor,
    )


def write_series(folder: Path, who: Identity, series: Series, entropy: str) -> list[str]:
    """Writes one classic MR object a slice; returns their SOPInstanceUIDs, from below upwards.

    Args:
        folder: the patient's, exists.
        who: the patient.
        series: pixels and geometry.
        entropy: what all UIDs derive from; equal entropy gives equal UIDs.
    """
    vendor = VENDORS[who.vendor]
    target = folder / f"SE{series.number:04d}"
    target.mkdir()
    overlay = burned_in_text(series.pixels.shape[1], who, series.number)
    uids = []
    for k in range(len(series.pixels)):
        header = _header(who, series, k, entropy)
        pixels = np.where(overlay, np.uint16(4095), series.pixels[k])  # text is drawn at the top of the 12-bit range
        header.SmallestImagePixelValue, header.LargestImagePixelValue = int(pixels.min()), int(pixels.max())
        header.PixelData = pixels.astype("<u2").tobytes()
        header.save_as(target / f"IM{k + 1:04d}{vendor['ending']}", enforce_file_format=True)
        uids.append(str(header.SOPInstanceUID))
    return uids


def burned_in_text(size: int, who: Identity, number: int) -> np.ndarray:
    """bool [size, size]: name, id, dates in the corners, as old workstations burn them in."""
    image = Image.new("1", (size, size))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(max(10, size // 42))
    pad = size // 85
    date = "/".join((who.study_date[:4], who.study_date[4:6], who.study_date[6:]))
    born = "/".join((who.birth_date[:4], who.birth_date[4:6], who.birth_date[6:]))
    time = ":".join((who.study_time[:2], who.study_time[2:4], who.study_time[4:]))
    corners = {
        (pad, pad, "la"): f"{who.name.replace('^', ' ')}\n{who.patient_id}\n{born} {who.sex}",
        (size - pad, pad, "ra"): f"{date}\n{time}",
        (pad, size - pad, "ld"): f"Se {number}",
    }
    for (x, y, anchor), text in corners.items():
        lines = text.split("\n")
        step = (size // 36) * (-1 if anchor.endswith("d") else 1)
        for row, line in enumerate(lines):
            draw.text((x, y + row * step), line, fill=1, font=font, anchor=anchor)
    return np.asarray(image)


def _header(who: Identity, series: Series, k: int, entropy: str) -> Dataset:
    vendor, pulse = VENDORS[who.vendor], series.pulse

    def uid(*parts: object) -> UID:
        return generate_uid(entropy_srcs=[entropy, who.patient_id, *map(str, parts)])

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = uid("instance", series.number, k)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = generate_uid(entropy_srcs=["lesion phantom"])
    ds.file_meta.ImplementationVersionName = "LESION_PHANTOM"
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = who.study_date
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = who.study_time
    ds.AccessionNumber = f"A{who.study_date}{who.study_time[:4]}"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "MR", who.vendor, vendor["model"]
    ds.InstitutionName, ds.ReferringPhysicianName = "PHANTOM GENERAL HOSPITAL", "DOE^JANE"
    ds.StudyDescription = "MR HEAD"
    kind = series.sequence if series.sequence in vendor else f"{series.sequence}/{pulse.kind}"
    ds.SeriesDescription = ds.ProtocolName = vendor[kind]
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = who.name, who.patient_id, who.birth_date
    ds.PatientSex, ds.PatientAge, ds.PatientWeight = who.sex, f"{who.age:03d}Y", who.weight_kg
    if series.sequence == "ce_t1wi":
        ds.ContrastBolusAgent, ds.ContrastBolusRoute = AGENT, "IV"
        ds.ContrastBolusVolume = round(0.1 * who.weight_kg, 1)  # 0.1 mmol/kg of a 1 mmol/ml solution
    ds.ScanningSequence = {"se": "SE", "ir": ["SE", "IR"], "gre": "GR"}[pulse.kind]
    ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = (
        "SK" if pulse.echo_train > 1 else "NONE",
        "",
        "2D",
    )
    ds.SliceThickness, ds.SpacingBetweenSlices = series.thickness_mm, series.thickness_mm + series.gap_mm
    ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength = pulse.repetition_ms, pulse.echo_ms, pulse.echo_train
    if pulse.kind == "ir":
        ds.InversionTime = pulse.inversion_ms
    ds.FlipAngle, ds.MagneticFieldStrength, ds.ImagingFrequency = pulse.flip_deg, 3.0, 127.74
    ds.NumberOfAverages, ds.ReceiveCoilName, ds.PatientPosition = 1, "8HRBRAIN", "HFS"
    ds.AcquisitionMatrix = [0, series.acquired_matrix, series.phase_lines, 0]
    ds.InPlanePhaseEncodingDirection = "COL"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study"), uid("series", series.number)
    ds.FrameOfReferenceUID = uid("frame")
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "1", series.number, k + 1
    tilt = np.deg2rad(series.tilt_deg)
    down, normal = np.array([0, np.cos(tilt), np.sin(tilt)]), np.array([0, -np.sin(tilt), np.cos(tilt)])
    half = series.spacing_mm * (series.pixels.shape[1] - 1) / 2
    corner = np.array([-half, 0, 0]) + (-series.front_mm - half) * down + float(series.z_mm[k]) * normal
    ds.ImagePositionPatient = [f"{value:.4f}" for value in corner]
    ds.ImageOrientationPatient = [f"{value:.6f}" for value in (1, 0, 0, *down)]
    ds.SliceLocation = f"{float(series.z_mm[k]):.4f}"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = series.pixels.shape[1:]
    ds.PixelSpacing = [f"{series.spacing_mm:.6f}"] * 2
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.QualityControlImage, ds.BurnedInAnnotation = "YES", "YES"
    ds.WindowCenter, ds.WindowWidth = series.window
    return ds
