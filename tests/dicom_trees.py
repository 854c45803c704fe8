"""Small DICOM trees: a drawn head, not anatomy, with what a scanner writes around it."""

import csv

import numpy as np
from PIL import Image, ImageDraw
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

NAME, BIRTH, HOSPITAL, DATE = "PLANTEDNAME^ZHANGWEI", "19610203", "PLANTEDHOSPITAL", "20190817"
ROOT = "1.2.826.0.1.3680043.8.498.7"
STYLES = {  # series description, TE, TR, TI, agent
    "flair": ("Ax T2 FLAIR", 140, 9000, 2250, ""),
    "ce_t1wi": ("t1_se_tra_KM", 12, 600, None, "Gadovist"),
    "t2wi": ("T2W_TSE", 100, 4500, None, ""),
}


def head(size=128, at=0.0, seed=0, air=8.0):
    """A scalp ring, dark skull, textured brain: float [size, size]; `at` from -1 to 1 is the slice's height."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j] * 1.25
    r = np.hypot(x / 0.8, y) / np.sqrt(1 - 0.6 * at * at)
    image = np.where(r < 1, 500.0, 0) * ~((r > 0.82) & (r < 0.93))
    image += np.where(r < 0.82, 150 * np.sin(9 * x) * np.cos(7 * y), 0)
    return np.abs(image + rng.normal(0, air, image.shape))


def burn(image, text=NAME, value=None):
    """The same with white text in the upper left corner."""
    mask = Image.new("L", image.shape[::-1])
    ImageDraw.Draw(mask).text((2, 1), text, fill=255)
    return np.where(np.asarray(mask) > 127, value or image.max() * 1.2, image)


def dataset(pixels, patient="P1", series="1", number=1, kind="flair", spacing=(1.9, 1.9), **fields):
    """A classic MR image of one slice, uint16 or int16 pixels [rows, columns]; `fields` override attributes."""
    description, te, tr, ti, agent = STYLES[kind]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = f"{ROOT}.1{series}.{number}"
    ds.SeriesInstanceUID, ds.StudyInstanceUID = f"{ROOT}.1{series}", f"{ROOT}.9{series}"
    ds.PatientID, ds.PatientName, ds.PatientBirthDate = patient, NAME, BIRTH
    ds.InstitutionName, ds.StudyDate, ds.SeriesDate = HOSPITAL, DATE, DATE
    ds.Modality, ds.SeriesDescription, ds.InstanceNumber = "MR", description, number
    ds.EchoTime, ds.RepetitionTime, ds.InversionTime = te, tr, ti
    ds.ContrastBolusAgent = agent
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 6.5 * number], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = list(spacing)
    set_pixels(ds, pixels)
    for keyword, value in fields.items():
        setattr(ds, keyword, value)
    return ds


def set_pixels(ds, pixels):
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()


def save(ds, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def write_csv(path, *rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def make_tree(folder, patients=4, slices=3, kinds=("flair", "ce_t1wi", "t2wi"), size=128):
    """Half encephalitis, half glioma; patient folders named after them, names burned into every slice."""
    rows = [("patient_id", "label")]
    for p in range(patients):
        rows.append((f"MRN00{p}", ("encephalitis", "glioma")[p % 2]))
        for k, kind in enumerate(kinds):
            for s in range(1, slices + 1):
                pixels = burn(head(size, at=(s - 2) / 4, seed=100 * p + 10 * k + s)).astype(np.uint16)
                ds = dataset(pixels, rows[-1][0], f"{p}{k + 1}", s, kind)
                save(ds, folder / f"{NAME}_{p}" / f"{kind}" / f"IM{s:04d}")
    write_csv(folder / "patients.csv", *rows)
    return folder
