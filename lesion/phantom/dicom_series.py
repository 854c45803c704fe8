"""Writes the phantom's DICOM files: headers as three vendors' scanners write them, text burned into the corners.

Names, birth dates and study dates are invented and planted on purpose, in the header and in the pixels, to test their
removal. Quality Control Image (0028,0300) is YES in every file: DICOM's mark of a
phantom.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from lesion.phantom import simulate
from lesion.phantom.anatomy import FRONT_MM
from lesion.phantom.simulate import GAP_MM, THICKNESS_MM, TILT_DEG, WHITE_SIGNAL

SURNAMES = "ZHANG WANG LI ZHAO CHEN LIU YANG HUANG ZHOU WU XU SUN HU ZHU GAO LIN HE GUO MA LUO".split()
GIVEN_NAMES = "WEI FANG NA MIN JING LEI JUN YANLI TAO CHAO XIULAN PING GANG GUIYING HONG LONG BIN QIANG YU MEI".split()
AGENT = "Gadobutrol"

# Series descriptions of each vendor by sequence and kind of pulse, its model, and the suffix of its file names.
VENDORS = {
    "GE MEDICAL SYSTEMS": {
        "model": "DISCOVERY MR750",
        "suffix": "",
        "flair": "Ax T2 FLAIR",
        "ce_t1wi/gre": "Ax T1 FSPGR +C",
        "ce_t1wi/se": "Ax T1 SE +C",
        "t2wi": "Ax T2 FRFSE",
    },
    "SIEMENS": {
        "model": "Skyra",
        "suffix": ".dcm",
        "flair": "t2_tirm_tra_dark-fluid",
        "ce_t1wi/gre": "t1_fl2d_tra_KM",
        "ce_t1wi/se": "t1_se_tra_KM",
        "t2wi": "t2_tse_tra",
    },
    "Philips Medical Systems": {
        "model": "Ingenia",
        "suffix": "",
        "flair": "FLAIR_longTR",
        "ce_t1wi/gre": "T1W_FFE_GD",
        "ce_t1wi/se": "T1W_SE_GD",
        "t2wi": "T2W_TSE",
    },
}


class Identity(NamedTuple):
    """The invented patient that a header names: dates as YYYYMMDD, time as HHMMSS, age in years at the study."""

    patient_id: str
    name: str
    birth_date: str
    study_date: str
    study_time: str
    sex: str
    age: int
    weight_kg: int


def draw_identity(rng: np.random.Generator, patient_id: str, sex: str, age: int) -> Identity:
    """Draws a patient's identity; sex and age are given, since they must be balanced within each class."""
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
    )


def write_series(
    folder: Path, identity: Identity, plan: simulate.ScanPlan, scan: simulate.Scan, number: int, entropy: str
) -> list[str]:
    """Writes one classic MR instance per slice; returns their SOPInstanceUIDs, from below upwards.

    Args:
        folder: existing folder of the patient.
        identity: identity of the patient.
        plan: plan of the scan.
        scan: simulated scan.
        number: number of the series in the scan, from 1.
        entropy: text from which all UIDs derive; equal texts give equal UIDs.
    """
    target = folder / f"SE{number:04d}"
    target.mkdir()
    overlay = draw_overlay(plan.matrix, identity, number)
    uids = []
    for index, image in enumerate(scan.series[number - 1].pixels):
        ds = _header(identity, plan, scan, number, index, entropy)
        pixels = np.where(overlay, np.uint16(4095), image)  # text is drawn at the top of the 12-bit range
        ds.SmallestImagePixelValue, ds.LargestImagePixelValue = int(pixels.min()), int(pixels.max())
        ds.PixelData = pixels.astype("<u2").tobytes()
        ds.save_as(target / f"IM{index + 1:04d}{VENDORS[plan.vendor]['suffix']}", enforce_file_format=True)
        uids.append(str(ds.SOPInstanceUID))
    return uids


def draw_overlay(size: int, identity: Identity, series_number: int) -> np.ndarray:
    """Draws name, id and dates into the corners, as old workstations burn them in; returns bool [size, size]."""
    image = Image.new("1", (size, size))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(max(10, size // 42))
    pad = size // 85
    date, born = ("/".join((d[:4], d[4:6], d[6:])) for d in (identity.study_date, identity.birth_date))
    time = ":".join((identity.study_time[:2], identity.study_time[2:4], identity.study_time[4:]))
    corners = {
        (pad, pad, "la"): f"{identity.name.replace('^', ' ')}\n{identity.patient_id}\n{born} {identity.sex}",
        (size - pad, pad, "ra"): f"{date}\n{time}",
        (pad, size - pad, "ld"): f"Se {series_number}",
    }
    for (x, y, anchor), text in corners.items():
        step = (size // 36) * (-1 if anchor.endswith("d") else 1)
        for row, line in enumerate(text.split("\n")):
            draw.text((x, y + row * step), line, fill=1, font=font, anchor=anchor)
    return np.asarray(image)


def _header(
    identity: Identity, plan: simulate.ScanPlan, scan: simulate.Scan, number: int, index: int, entropy: str
) -> Dataset:
    """Returns the data set of the slice at `index` of a series, without its pixels."""
    vendor, (sequence, pulse, pixels) = VENDORS[plan.vendor], scan.series[number - 1]

    def uid(*parts: object) -> UID:
        return generate_uid(entropy_srcs=[entropy, identity.patient_id, *map(str, parts)])

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = uid("instance", number, index)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = generate_uid(entropy_srcs=["lesion phantom"])
    ds.file_meta.ImplementationVersionName = "LESION_PHANTOM"
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = identity.study_date
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = identity.study_time
    ds.AccessionNumber = f"A{identity.study_date}{identity.study_time[:4]}"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "MR", plan.vendor, vendor["model"]
    ds.InstitutionName, ds.ReferringPhysicianName = "PHANTOM GENERAL HOSPITAL", "DOE^JANE"
    ds.StudyDescription = "MR HEAD"
    description = vendor[sequence if sequence in vendor else f"{sequence}/{pulse.kind}"]
    ds.SeriesDescription = ds.ProtocolName = description
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = identity.name, identity.patient_id, identity.birth_date
    ds.PatientSex, ds.PatientAge, ds.PatientWeight = identity.sex, f"{identity.age:03d}Y", identity.weight_kg
    if sequence == "ce_t1wi":
        ds.ContrastBolusAgent, ds.ContrastBolusRoute = AGENT, "IV"
        ds.ContrastBolusVolume = round(0.1 * identity.weight_kg, 1)  # 0.1 mmol/kg of a 1 mmol/ml solution
    ds.ScanningSequence = {"se": "SE", "ir": ["SE", "IR"], "gre": "GR"}[pulse.kind]
    ds.SequenceVariant = "SK" if pulse.echo_train > 1 else "NONE"
    ds.ScanOptions, ds.MRAcquisitionType = "", "2D"
    ds.SliceThickness, ds.SpacingBetweenSlices = THICKNESS_MM, THICKNESS_MM + GAP_MM
    ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength = pulse.repetition_ms, pulse.echo_ms, pulse.echo_train
    if pulse.kind == "ir":
        ds.InversionTime = pulse.inversion_ms
    ds.FlipAngle, ds.MagneticFieldStrength, ds.ImagingFrequency = pulse.flip_deg, 3.0, 127.74
    ds.NumberOfAverages, ds.ReceiveCoilName, ds.PatientPosition = 1, "8HRBRAIN", "HFS"
    ds.AcquisitionMatrix = [0, plan.acquired, plan.phase_lines, 0]
    ds.InPlanePhaseEncodingDirection = "COL"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study"), uid("series", number)
    ds.FrameOfReferenceUID = uid("frame")
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "1", number, index + 1
    tilt, z_mm, spacing_mm = np.deg2rad(TILT_DEG), float(scan.z_mm[index]), plan.fov_mm / plan.matrix
    down, normal = np.array([0, np.cos(tilt), np.sin(tilt)]), np.array([0, -np.sin(tilt), np.cos(tilt)])
    half = spacing_mm * (plan.matrix - 1) / 2
    corner = np.array([-half, 0, 0]) + (-FRONT_MM - half) * down + z_mm * normal
    ds.ImagePositionPatient = [f"{value:.4f}" for value in corner]
    ds.ImageOrientationPatient = [f"{value:.6f}" for value in (1, 0, 0, *down)]
    ds.SliceLocation = f"{z_mm:.4f}"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[1:]
    ds.PixelSpacing = [f"{spacing_mm:.6f}"] * 2
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.QualityControlImage, ds.BurnedInAnnotation = "YES", "YES"
    white = round(WHITE_SIGNAL[sequence] * plan.gain)
    ds.WindowCenter, ds.WindowWidth = white // 2, white
    return ds
