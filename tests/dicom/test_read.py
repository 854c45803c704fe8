import os
import shutil
import struct
import subprocess
import sys

import gdcm
import numpy as np
import pydicom
import pytest
from dicom_trees import dataset, head, save, set_pixels
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from lesion.dataset import preprocess
from lesion.dicom import read
from lesion.dicom.rules import Rules


def read_file(folder, name="image"):
    """Header and pixels."""
    header = read.read_header(str(folder), name)
    return header, read.read_pixels(str(folder), header)


GDCM_SYNTAXES = {
    "RLE": gdcm.TransferSyntax.RLELossless,
    "JPEG lossless, first order": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "JPEG lossless": gdcm.TransferSyntax.JPEGLosslessProcess14,
    "JPEG-LS": gdcm.TransferSyntax.JPEGLSLossless,
    "JPEG 2000": gdcm.TransferSyntax.JPEG2000Lossless,
}


@pytest.mark.parametrize("syntax", GDCM_SYNTAXES)
def test_lossless_codecs_give_the_same_pixels(tmp_path, syntax):
    pixels = head(64).astype(np.uint16)
    source, target = save(dataset(pixels), tmp_path / "plain"), tmp_path / "image"
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(GDCM_SYNTAXES[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(target).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(read_file(tmp_path)[1][0], pixels)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_native_syntaxes_give_the_same_pixels(tmp_path, syntax, dtype):
    pixels = (head(64) / 4 - (60 if dtype == np.int16 else 0)).astype(dtype)
    ds = dataset(pixels)
    if syntax == ExplicitVRBigEndian:  # words are swapped, of 8-bit pixels too
        ds.PixelData = pixels.view(np.uint16).byteswap().tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(
        tmp_path / "image",
        ds,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
    )
    np.testing.assert_array_equal(read_file(tmp_path)[1][0], pixels)


@pytest.mark.parametrize(
    "name",
    ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"],
)
def test_pydicoms_variants_of_one_image_agree(pydicom_files, name):
    expected = read_file(pydicom_files, "MR_small.dcm")[1]
    np.testing.assert_array_equal(read_file(pydicom_files, f"MR_small_{name}.dcm")[1], expected)


def test_no_file_of_pydicom_raises(pydicom_files):
    files = [str(path.relative_to(pydicom_files)) for path in pydicom_files.rglob("*") if path.is_file()]
    headers = {file: read.read_header(str(pydicom_files), file) for file in files}
    assert headers["dicomdirtests/DICOMDIR"] == read.SkippedFile("dicomdirtests/DICOMDIR", "DICOMDIR index")
    assert headers["CT_small.dcm"] == read.SkippedFile("CT_small.dcm", "modality CT")
    assert headers["MR_truncated.dcm"].kind == "truncated"
    assert isinstance(headers["dicomdirtests/98892003/MR1/4919"], read.Instance)
    for header in headers.values():
        if isinstance(header, read.Instance):
            assert read.read_pixels(str(pydicom_files), header).shape[1:] == header.shape


def test_other_files_are_skipped_and_broken_ones_rejected(tmp_path):
    for name, content in {"notes.txt": b"x", ".DS_Store": b"x", "IM1": b"", "a.dcm": b"\0" * 999}.items():
        (tmp_path / name).write_bytes(content)
    kinds = {p.name: type(read.read_header(str(tmp_path), p.name)) for p in tmp_path.iterdir()}
    assert kinds == {
        "notes.txt": read.SkippedFile,
        ".DS_Store": read.SkippedFile,
        "IM1": read.RejectedFile,
        "a.dcm": read.RejectedFile,
    }


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_a_truncated_file_is_rejected(tmp_path, share):
    path = save(dataset(head(64).astype(np.uint16)), tmp_path / "image")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert isinstance(read.read_header(str(tmp_path), "image"), read.RejectedFile)


def test_a_file_without_preamble(tmp_path):
    pixels = head(64).astype(np.uint16)
    path = save(dataset(pixels), tmp_path / "image")
    ds = pydicom.dcmread(path)
    del ds.file_meta
    ds.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    path.write_bytes(path.read_bytes()[132:] if path.read_bytes()[128:132] == b"DICM" else path.read_bytes())
    np.testing.assert_array_equal(read_file(tmp_path)[1][0], pixels)


@given(slope=st.floats(0.01, 50), intercept=st.floats(-2000, 2000))
def test_rescale_and_inversion(tmp_path_factory, slope, intercept):
    folder = tmp_path_factory.mktemp("rescale")
    pixels = np.arange(256, dtype=np.int16).reshape(16, 16) - 100
    slope, intercept = round(slope, 4), round(intercept, 4)
    fields = dict(RescaleSlope=slope, RescaleIntercept=intercept, WindowCenter=10, WindowWidth=120)
    save(dataset(pixels, **fields), folder / "plain")
    save(dataset(pixels, **fields, PhotometricInterpretation="MONOCHROME1"), folder / "inverted")
    (header, values), (mirrored, negative) = read_file(folder, "plain"), read_file(folder, "inverted")
    np.testing.assert_allclose(values[0], pixels * slope + intercept, rtol=1e-5, atol=1e-2)
    np.testing.assert_array_equal(values, -negative)
    a = preprocess.to_uint8(values, header.frames[0].window).astype(int)
    b = preprocess.to_uint8(negative, mirrored.frames[0].window).astype(int)
    assert np.abs(a + b - 255).max() <= 1  # rounding to even, at halves
    shutil.rmtree(folder)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("slope", [2, -2])
@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE"])
def test_padding_is_as_dark_as_the_darkest(tmp_path, photometric, slope, shape):
    pixels = np.arange(1, 257, dtype=np.int16).reshape(16, 16)
    pixels[0] = -1000
    fields = dict(PixelPaddingValue=-1000, RescaleSlope=slope, RescaleIntercept=5, PresentationLUTShape=shape)
    save(dataset(pixels, **fields, PhotometricInterpretation=photometric), tmp_path / "image")
    header, values = read_file(tmp_path)
    sign = -1 if photometric == "MONOCHROME1" or shape == "INVERSE" else 1
    assert header.inverted is (sign < 0)
    np.testing.assert_array_equal(values[0, 1:], sign * (pixels[1:] * slope + 5.0))
    np.testing.assert_array_equal(values[0, 0], values[0, 1:].min())


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("kind", "bits"), [("US", 16), ("OW", 16), ("US", 8)])
def test_lookup_tables_are_applied_as_pydicom_does(tmp_path, kind, bits, photometric):
    pixels = np.arange(-100, 156, dtype=np.int16).reshape(16, 16)
    entries = {"ModalityLUTSequence": np.arange(200) ** 2 // 160, "VOILUTSequence": 255 - np.arange(180)[::-1]}
    ds = dataset(pixels, PhotometricInterpretation=photometric)
    for (keyword, table), first in zip(entries.items(), (-50, 20), strict=True):
        item = Dataset()
        item.add_new("LUTDescriptor", "SS", [len(table), first, bits])
        item.add_new("LUTData", kind, table.tolist() if kind == "US" else table.astype("<u2").tobytes())
        setattr(ds, keyword, Sequence([item]))
    save(ds, tmp_path / "image")
    header, values = read_file(tmp_path)
    sign = -1 if photometric == "MONOCHROME1" else 1
    mapped = apply_modality_lut(pixels, pydicom.dcmread(tmp_path / "image"))
    np.testing.assert_array_equal(values[0] * sign, mapped)
    (frame,) = header.frames
    ours = preprocess.to_uint8(values[0], frame.window, frame.voi_lut)
    shown = apply_voi_lut(mapped.astype(np.int32), pydicom.dcmread(tmp_path / "image")).astype(float)
    expected = (shown - 76) / 179 * 255
    assert np.abs(ours - (expected if sign > 0 else 255 - expected)).max() <= 0.51


@pytest.mark.parametrize("fields", [{}, {"LUTDescriptor": [9, 0, 16]}, {"LUTDescriptor": [3], "LUTData": [1, 2, 3]}])
def test_a_broken_lookup_table_is_none(tmp_path, fields):
    item = Dataset()
    for keyword, value in {"LUTDescriptor": [3, 0, 16], "LUTData": [5, 6]}.items():
        item.add_new(keyword, "US", fields.get(keyword, value))
    ds = dataset(head(32).astype(np.uint16), WindowCenter=50, WindowWidth=100, VOILUTSequence=Sequence([item]))
    save(ds, tmp_path / "image")
    (frame,) = read_file(tmp_path)[0].frames
    assert frame.window == read.window_range(50, 100) and not frame.voi_lut


@given(center=st.integers(-500, 500), width=st.integers(2, 900), function=st.sampled_from(["LINEAR", "LINEAR_EXACT"]))
def test_a_window_is_that_of_pydicom(center, width, function):
    values = np.arange(-600, 600, dtype=np.int16)
    ds = Dataset()
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = center, width, function
    ds.PhotometricInterpretation, ds.BitsStored, ds.PixelRepresentation = "MONOCHROME2", 16, 1
    shown = apply_windowing(values, ds)
    expected = (shown + 32768) / 65535 * 255
    ours = preprocess.to_uint8(values, read.window_range(center, width, function))
    assert np.abs(ours - expected).max() <= 0.51


@pytest.mark.parametrize("window", [(None, 5), (5, None), (40, 0), (40, -3), (40, 1)])
def test_an_impossible_window_is_none(window):
    assert read.window_range(*window) is None


def test_the_same_bytes_are_read_by_the_encoding_of_their_own_file(tmp_path):
    names = {}
    for encoding, codec in {"ISO_IR 192": "utf-8", "ISO_IR 100": "latin-1"}.items():
        name = "ü".encode().decode(codec)
        save(dataset(np.zeros((4, 4), np.uint16), patient=name, SpecificCharacterSet=encoding), tmp_path / codec)
        names[codec] = read.read_header(str(tmp_path), codec).patient_id
    assert names == {"utf-8": "ü", "latin-1": "Ã¼"}


def test_slices_of_a_series_hold_their_attributes_once(tmp_path):
    for number in (1, 2):
        save(dataset(np.zeros((4, 4), np.uint16), number=number), tmp_path / str(number))
    first, second = (read.read_header(str(tmp_path), name).frames[0] for name in "12")
    assert first.attributes is second.attributes
    assert first.position_mm != second.position_mm


def test_an_enhanced_multi_frame_object(tmp_path):
    pixels = np.stack([head(32, seed=i) for i in range(3)]).astype(np.uint16)
    ds = dataset(pixels[0], spacing=(9, 9))
    set_pixels(ds, pixels)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    ds.NumberOfFrames, ds.SeriesDescription = 3, ""
    del ds.EchoTime, ds.RepetitionTime, ds.InversionTime, ds.PixelSpacing

    def group(**values):
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        return Sequence([item])

    shared = Dataset()
    shared.PixelMeasuresSequence = group(PixelSpacing=[0.9, 0.8])
    shared.MRTimingAndRelatedParametersSequence = group(RepetitionTime=9000)
    shared.MRModifierSequence = group(InversionTimes=[2300])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for i in range(3):
        frame = Dataset()
        frame.MREchoSequence = group(EffectiveEchoTime=[120, 120, 20][i])
        frame.PlanePositionSequence = group(ImagePositionPatient=[0, 0, 5 * i])
        frame.PixelValueTransformationSequence = group(RescaleSlope=i + 1, RescaleIntercept=0, RescaleType="US")
        frame.FrameVOILUTSequence = group(WindowCenter=100 * (i + 1), WindowWidth=50)
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    save(ds, tmp_path / "image")
    header, values = read_file(tmp_path)
    assert [frame.number for frame in header.frames] == [1, 2, 3]
    assert [Rules().sequence_alone(frame.attributes) for frame in header.frames] == ["flair", "flair", None]
    assert {frame.spacing for frame in header.frames} == {(0.9, 0.8)}
    assert [frame.position_mm for frame in header.frames] == [0, 5, 10]
    assert header.frames[1].window == pytest.approx((175, 224))
    np.testing.assert_allclose(values, pixels * np.array([1, 2, 3])[:, None, None])


@pytest.mark.parametrize(
    ("fields", "spacing_mm"),
    [
        ({}, 1.9),
        ({"PixelSpacing": None}, None),
        ({"PixelSpacing": [0, 0]}, None),
        ({"PixelSpacing": [90, 90]}, None),
        ({"PixelSpacing": None, "ReconstructionDiameter": 230}, 230 / 128),
        ({"PixelSpacing": [1.9, 1.9], "ReconstructionDiameter": 20}, None),
    ],
)
def test_a_spacing_that_cannot_be_is_none(tmp_path, fields, spacing_mm):
    save(dataset(head(128).astype(np.uint16), **fields), tmp_path / "image")
    (frame,) = read.read_header(str(tmp_path), "image").frames
    assert (frame.spacing and frame.spacing[0]) == (spacing_mm and pytest.approx(spacing_mm))


def write_bomb(folder, compressed=None, **fields):
    """An MR image whose header claims `fields`; with a compressed frame, or a data set that is deflated."""
    ds = dataset(head(64).astype(np.uint16), **fields)
    if compressed is not None:
        ds.file_meta.TransferSyntaxUID, frame = compressed
        ds.PixelData = pydicom.encaps.encapsulate([frame])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    save(ds, folder / "image")
    return str(folder), "image"


@pytest.mark.parametrize("compressed", [None, (JPEG2000Lossless, b"\xff\x4f\xff\x51" + bytes(60))])
@pytest.mark.parametrize(
    "fields",
    [
        {"NumberOfFrames": 2**31 - 1},
        {"NumberOfFrames": 2**17, "Rows": 1, "Columns": 1},  # each a frame in memory
        {"Rows": 2**16 - 1, "Columns": 2**16 - 1},
    ],
)
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path, fields, compressed):
    header = read.read_header(*write_bomb(tmp_path, compressed, **fields))
    assert header.kind == "too large" and header.patient_id == "P1" and header.sop_uid


def test_the_limit_can_be_set_and_other_processes_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "MAX_PIXELS", read.MAX_PIXELS)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    save(dataset(np.zeros((128, 64), np.uint16)), tmp_path / "image")
    for limit, kind in ((128 * 64 - 1, "too large"), (128 * 64, None)):
        read.set_max_pixels(limit)
        assert getattr(read.read_header(str(tmp_path), "image"), "kind", None) == kind
        code = "from lesion.dicom import read; print(read.MAX_PIXELS)"
        told = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True)
        assert told.stdout.strip() == str(limit)


@pytest.mark.parametrize("fields", [{"Rows": 0}, {"Columns": 0}, {"NumberOfFrames": -3}])
def test_an_image_without_a_pixel_is_refused(tmp_path, fields):
    assert read.read_header(*write_bomb(tmp_path, **fields)).kind == "incomplete header"


def test_a_deflated_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    ds = dataset(np.zeros((64, 64), np.uint16))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.DataSetTrailingPadding = bytes(2**22)
    path = save(ds, tmp_path / "image")
    assert path.stat().st_size < 2**14 and read_file(tmp_path)[1].shape == (1, 64, 64)
    monkeypatch.setattr(read, "MAX_PIXELS", 2**20)
    monkeypatch.setattr(read, "_CHUNK_BYTES", 2**16)
    header = read.read_header(str(tmp_path), "image")
    assert header.kind == "unreadable header" and "deflated, of more than 2097152 bytes" in header.reason


def test_rle_that_stands_for_too_much_or_too_little_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "_SLACK_BYTES", 2**10)
    long, short = b"\x81\0" * 2**14, b"\x81\0" * 8
    assert read.read_header(*write_bomb(tmp_path, (RLELossless, long))).kind == "too large"
    assert read.read_header(*write_bomb(tmp_path, (RLELossless, short), Rows=1024, Columns=1024)).kind == "truncated"


SIZE = 10**5  # pixels a side
CODESTREAMS = {  # syntax, the beginning of a codestream
    "JPEG 2000": (JPEG2000Lossless, struct.pack(">4HI3I16xH", 0xFF4F, 0xFF51, 41, 0, SIZE, SIZE, 0, 0, 1)),
    "JPEG": (JPEGLosslessSV1, b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc3" + struct.pack(">HBHHB", 11, 16, 65535, 65535, 1)),
    "JPEG-LS": (JPEGLSLossless, b"\xff\xd8\xff\xf7" + struct.pack(">HBHHB", 11, 16, 65535, 65535, 1)),
}


@pytest.mark.parametrize("name", CODESTREAMS)
def test_a_codestream_that_is_larger_than_its_image_is_refused(tmp_path, name):
    syntax, frame = CODESTREAMS[name]
    folder, file = write_bomb(tmp_path, (syntax, frame + bytes(64)))
    header = read.read_header(folder, file)
    with pytest.raises(ValueError, match=r"a compressed frame of .* pixels, in an image of 64 × 64"):
        read.read_pixels(folder, header)
