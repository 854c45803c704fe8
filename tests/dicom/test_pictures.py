import tempfile
from pathlib import Path

import numpy as np
import pytest
from dicom_trees import head, write_csv
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lesion.dataset.preprocess import plan_series
from lesion.dicom import pictures
from lesion.dicom.pictures import NOMINAL_SIDE_MM, scan_pictures
from lesion.errors import UserError

HEADER = ("file", "patient_id", "sequence")
GREY8 = head(100).astype(np.uint8)[:, :60]
GREY16 = (head(100) * 60).astype(np.uint16)[:, :60]


def save(picture, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


def rgb(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def transparent(grey):
    alpha = np.where(np.arange(60) < 5, 0, 255) * np.ones((100, 1))
    return np.concatenate([rgb(grey), alpha[..., None]], axis=2).astype(np.uint8)


def turned():
    exif = Image.Exif()
    exif[274] = 6  # to be shown a quarter turn clockwise
    return {"exif": exif}


TAKEN = {  # name: (picture, options, expected pixels)
    "8.png": (GREY8, {}, GREY8),
    "16.png": (GREY16, {}, GREY16),
    "16.tif": (GREY16, {"compression": "tiff_deflate"}, GREY16),
    "white_is_zero.tif": (65535 - GREY16, {"tiffinfo": {262: 0}}, GREY16),
    "rgb.png": (rgb(GREY8), {}, GREY8),
    "rgb.tiff": (rgb(GREY8), {}, GREY8),
    "palette.png": (Image.fromarray(GREY8).convert("P"), {}, GREY8),
    "transparent.png": (transparent(GREY8), {}, np.where(np.arange(60) < 5, 0, GREY8)),
    "LOUD.PNG": (GREY8, {}, GREY8),
    "turned.png": (GREY8, turned(), np.rot90(GREY8, -1)),
}


def test_pixels_are_those_of_the_picture(tmp_path):
    for name, (picture, options, _) in TAKEN.items():
        save(picture, tmp_path / "in" / name, **options)
    save(GREY8, tmp_path / "in" / "grey.jpg", quality=95)
    save(rgb(GREY8), tmp_path / "in" / "rgb.JPEG", quality=95)
    rows = [(f"in\\{name}", "P1", "FLAIR", i) for i, name in enumerate([*TAKEN, "grey.jpg", "rgb.JPEG"])]
    write_csv(tmp_path / "images.csv", (*HEADER, "position"), *rows)
    instances, sequences, rejected = scan_pictures(tmp_path)
    assert not rejected and sequences == {"P1/flair": "flair"} and len(instances) == len(rows)
    for index, instance in enumerate(instances):
        pixels, (frame,) = pictures.read_picture(str(tmp_path), instance), instance.frames
        name = Path(instance.file).name
        assert pixels.dtype == np.float32 and pixels.shape == (1, *instance.shape)
        assert instance.sop_uid == instance.file == f"in/{name}" and instance.patient_id == "P1"
        assert frame.position_mm == index and frame.spacing == (NOMINAL_SIDE_MM / 100,) * 2
        if name in TAKEN:
            np.testing.assert_array_equal(pixels[0], TAKEN[name][2], err_msg=name)
        else:
            assert np.abs(pixels[0] - GREY8).mean() < 4


def test_a_head_is_found_with_the_nominal_spacing(tmp_path):
    save((head(256) / 4).astype(np.uint8), tmp_path / "a.png")
    write_csv(tmp_path / "images.csv", HEADER, ("a.png", "P1", "t2wi"))
    (instance,), _, _ = scan_pictures(tmp_path)
    assert np.isnan(instance.frames[0].position_mm)
    assert plan_series(pictures.read_picture(tmp_path, instance), instance.frames[0].spacing, [None]).region == "brain"


def test_what_cannot_be_used_is_rejected_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    coloured = rgb(GREY8)
    coloured[50, 30] = 255, 0, 0
    pages = [Image.fromarray(GREY8)] * 2
    for name, picture, options in [
        ("good.png", GREY8, {}),
        ("coloured.png", coloured, {}),
        ("float.tif", GREY8.astype(np.float32), {}),
        ("pages.tif", pages[0], {"save_all": True, "append_images": pages[1:]}),
        ("bits.png", Image.fromarray(GREY8 > 99), {}),
        ("bomb.png", np.zeros((200, 200), np.uint8), {}),
        *((f"cut.{ending}", GREY8, {}) for ending in ("png", "jpg", "tif")),
    ]:
        save(picture, tmp_path / name, **options)
    for path in tmp_path.glob("cut.*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    (tmp_path / "text.png").write_text("no picture")
    names = sorted(path.name for path in tmp_path.iterdir())
    write_csv(tmp_path / "images.csv", HEADER, *((name, "P1", "flair") for name in names))
    instances, _, rejected = scan_pictures(tmp_path)
    assert [instance.file for instance in instances] == ["good.png"]
    assert [file.file for file in rejected] == [name for name in names if name != "good.png"]
    assert all(file.sop_uid == file.file and file.patient_id == "P1" for file in rejected)
    assert {file.file: "in colour" in file.reason for file in rejected if file.kind == "in colour"} == {
        "coloured.png": True
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("b.png", "P1", "flair")], "row 2: there is no such file"),
        ([("a.png", "P1", "flair"), ("../a.png", "P1", "flair")], "row 3: the file lies outside"),
        ([("/etc/passwd", "P1", "flair")], "row 2: the file lies outside"),
        ([("a.png", "P1", "t1")], "row 2: the sequence is unknown"),
        ([("a.png", "P1", "flair"), ("./a.png", "P2", "flair")], "row 3: this file stands further up"),
        ([("a.png", "", "flair")], "row 2: patient_id is empty"),
        ([("a.png", "P1", "flair", "top")], "row 2: the position is no number"),
        ([("images.csv", "P1", "flair")], "row 2: the file is none of"),
        ([], "names no file"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, rows, message):
    save(GREY8, tmp_path / "in" / "a.png")
    save(GREY8, tmp_path / "a.png")
    write_csv(tmp_path / "in" / "images.csv", (*HEADER, "position"), *rows)
    with pytest.raises(UserError, match=message) as error:
        scan_pictures(tmp_path / "in")
    assert "\n" not in str(error.value)


def test_pictures_without_a_table_get_advice(tmp_path):
    assert pictures.advice(tmp_path) == "" and scan_pictures(tmp_path) == ([], {}, [])
    save(GREY8, tmp_path / "NAME" / "a.png")
    advice = pictures.advice(tmp_path)
    assert "file,patient_id,sequence" in advice and "\n" not in advice and "NAME" not in advice
    write_csv(tmp_path / "images.csv", HEADER, ("NAME/a.png", "P1", "flair"))
    assert pictures.advice(tmp_path) == ""


@given(st.data())
def test_no_bytes_crash_the_reader(data):
    with tempfile.TemporaryDirectory() as name:
        path = save(GREY16, Path(name) / f"a.{data.draw(st.sampled_from(['png', 'tif']))}")
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 5))):
            content[data.draw(st.integers(0, min(300, len(content)) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        write_csv(Path(name) / "images.csv", HEADER, (path.name, "P1", "flair"))
        instances, _, rejected = scan_pictures(Path(name))
        assert len(instances) + len(rejected) == 1
