import csv
import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_trees import BIRTH, DATE, HOSPITAL, NAME, ROOT, burn, dataset, head, make_tree, save, set_pixels, write_csv
from PIL import Image, ImageDraw, ImageFont

from lesion import files, workers
from lesion.dataset import SEQUENCES, burned_in_text, preprocess, pseudonyms, render, store
from lesion.dataset import prepare as preparing
from lesion.dicom import read, scan
from lesion.dicom.folder import Options, find, tables_of_new_patients
from lesion.dicom.read import RejectedFile
from lesion.errors import UserError


def prepare(tree, output=None, **options):
    output = output or tree.parent / "data"
    preparing.prepare(tree, output, tree / "lesion_private", Options(**options))
    return output


def rejects(tree):
    with (tree / "lesion_private" / pseudonyms.REJECTS_FILE).open() as stream:
        return {row["file"]: row["reason"] for row in csv.DictReader(stream)}


def snapshot(folder):
    """All files but those of the private folder."""
    files = (path for path in sorted(folder.rglob("*")) if pseudonyms.FOLDER not in path.parts)
    return {path: path.read_bytes() for path in files if path.is_file()}


def first_file(tree, kind="flair", patient=0, number=1):
    return tree / f"{NAME}_{patient}" / kind / f"IM{number:04d}"


def edit(path, **fields):
    ds = pydicom.dcmread(path)
    for keyword, value in fields.items():
        setattr(ds, keyword, value)
    ds.save_as(path)


@pytest.mark.slow
def test_command_line_and_privacy(tree):
    """Nothing that names a patient is in any file, file name, picture or line of the program."""
    answers = [(f"MRN00{i}", reader, "glioma") for i in range(4) for reader in ("Dr PLANTEDREADER", "LIUYANG")]
    write_csv(tree / "readers.csv", ("patient_id", "reader", "label"), *answers)
    command = [sys.executable, "-m", "launch.prepare", f"--input={tree}", f"--output={tree.parent / 'data'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    output = tree.parent / "data"
    words = [*NAME.split("^"), BIRTH, HOSPITAL, DATE, "MRN00", ROOT, "PLANTEDREADER", "LIUYANG"]
    written = {path.relative_to(output).as_posix(): data for path, data in snapshot(output).items()}
    for word in words:
        assert word not in done.stdout + done.stderr
        for spelling in {word.encode(), word.encode("utf-16-le"), hashlib.sha256(word.encode()).hexdigest().encode()}:
            assert not [path for path, data in written.items() if spelling in data or spelling in path.encode()]
    for path in output.rglob("*.png"):
        with Image.open(path) as image:
            assert set(image.info) <= {"dpi"}
    for sequence in SEQUENCES:
        slices = store.load_slices(output, sequence)
        assert len(slices.image) == 12
        assert not slices.image[:, :12, :12].any()  # burned-in text began in that corner
        assert sorted(set(slices.label)) == [0, 1]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0
    assert "up to date" in again.stdout
    assert {path.relative_to(output).as_posix(): data for path, data in snapshot(output).items()} == written
    assert {p.name for p in tree.parent.iterdir()} == {"dicom", "data"}


@pytest.mark.slow
def test_text_touching_the_head_is_not_in_the_pictures(tmp_path, monkeypatch):
    """The same tree with and without text gives the same pictures, but for what is filled in."""
    monkeypatch.setattr(preprocess, "MAX_FILLED", 1.0)  # on so small a slice two lines of text cover more
    clean, dirty = (make_tree(tmp_path / name, 2, 2, kinds=("flair",)) for name in ("clean", "dirty"))
    for tree in (clean, dirty):
        (tree / "lesion_private").mkdir()
        (tree / "lesion_private" / pseudonyms.KEY_FILE).write_text("ab" * 32)
        for path in tree.glob("*/*/IM*"):
            ds = pydicom.dcmread(path)
            image = head(128, seed=10 * int(ds.PatientID[-1]) + ds.InstanceNumber)
            set_pixels(ds, (burn(image, f"\n\n  {NAME}\n {DATE}") if tree == dirty else image).astype(np.uint16))
            ds.save_as(path)
    a, b = (store.load_slices(prepare(tree, tree.parent / f"{tree.name}_out"), "flair") for tree in (clean, dirty))
    difference = np.abs(a.image.astype(int) - b.image)
    assert (difference > 40).mean() < 0.05


@pytest.mark.slow
def test_the_same_key_gives_the_same_pseudonyms_another_key_others(flair_tree):
    first = prepare(flair_tree)
    second = prepare(flair_tree, flair_tree.parent / "second")
    info, other = store.load_info(first), store.load_info(second)
    assert info["fingerprint"] == other["fingerprint"]
    heights = store.load_slices(first, "flair").position_mm
    assert sorted(set(heights.tolist())) == [0, 6.5, 13]  # from the patient's lowest slice, not the scanner's origin
    shutil.rmtree(flair_tree / "lesion_private")
    third = prepare(flair_tree, flair_tree.parent / "third")
    ids = [set(store.load_slices(folder, "flair").patient) for folder in (first, second, third)]
    assert ids[0] == ids[1]
    assert not ids[0] & ids[2]
    with (flair_tree / "lesion_private" / pseudonyms.TABLE_FILE).open() as stream:
        table = {row["pseudonym"]: row["original"] for row in csv.DictReader(stream)}
    assert {table[p] for p in ids[2]} == {f"MRN00{i}" for i in range(4)}
    assert (flair_tree / "lesion_private" / pseudonyms.KEY_FILE).stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_answers_of_readers_are_kept_under_pseudonyms_and_leave_the_fingerprint_alone(flair_tree):
    alone = store.load_info(prepare(flair_tree))
    rows = [("MRN002", "Zhou", "Glioma"), ("MRN000", "Adam", "0"), ("MRN002", "Adam", "encephalitis")]
    rows += [("MRN003", "simulated reader 9", "glioma")]
    write_csv(flair_tree / "readers.csv", ("patient_id", "reader", "label"), *rows, ("MRN001", "Zhou", ""))
    output = prepare(flair_tree, flair_tree.parent / "second")
    info = store.load_info(output)
    assert (info["fingerprint"], info["readers"]) == (
        alone["fingerprint"],
        {"reader_1": 1, "reader_2": 2, "simulated_reader_3": 1},
    )
    assert "readers" not in alone and not (flair_tree.parent / "data" / store.READERS_FILE).exists()
    with (flair_tree / "lesion_private" / pseudonyms.TABLE_FILE).open() as stream:
        table = {row["pseudonym"]: row["original"] for row in csv.DictReader(stream)}
    with (output / store.READERS_FILE).open() as stream:
        got = [(table[row["patient"]], table[row["reader"]], row["label"]) for row in csv.DictReader(stream)]
    assert sorted(got) == [
        ("MRN000", "Adam", "0"),
        ("MRN002", "Adam", "0"),
        ("MRN002", "Zhou", "1"),
        ("MRN003", "simulated reader 9", "1"),
    ]
    with pytest.raises(UserError, match="other inputs"):
        prepare(flair_tree)  # the dataset without readers


@pytest.mark.slow
def test_a_dataset_of_phantoms_is_marked(flair_tree):
    for path in flair_tree.glob("*/*/IM*"):
        edit(path, QualityControlImage="YES")
    assert store.load_info(prepare(flair_tree))["phantom"] is True
    edit(first_file(flair_tree), QualityControlImage="NO")
    assert store.load_info(prepare(flair_tree, flair_tree.parent / "b"))["phantom"] == "mixed"


@pytest.mark.slow
def test_a_tree_mixed_with_everything_else(tree, pydicom_files):
    expected = store.load_info(prepare(tree, tree.parent / "alone"))
    shutil.copytree(pydicom_files, tree / "other")
    uids = [pydicom.dcmread(p).SOPInstanceUID for p in sorted(tree.glob("PLANTED*/*/IM*"))]
    write_csv(tree / "slices.csv", ("sop_instance_uid", "frame"), *((uid, "") for uid in uids))
    info = store.load_info(prepare(tree))
    assert info["sequences"] == expected["sequences"]
    assert info["fingerprint"] == expected["fingerprint"]
    assert info["skipped"]["modality CT"] > 10
    assert "truncated" in rejects(tree)["other/MR_truncated.dcm"]
    assert sum("duplicate" in reason for reason in rejects(tree).values()) >= 6


@pytest.mark.slow
def test_broken_files_are_rejected_and_the_rest_goes_on(tree):
    first_file(tree).write_bytes(b"garbage" * 100)
    path = first_file(tree, number=2)
    path.write_bytes(path.read_bytes()[:-5000])
    shutil.copy(first_file(tree, number=3), tree / "copy")
    uids = [pydicom.dcmread(p, force=True).get("SOPInstanceUID") for p in tree.glob("*/*/IM*")]
    write_csv(tree / "slices.csv", ("sop_instance_uid",), *((u,) for u in uids if u), (f"{ROOT}.101.1",))
    info = store.load_info(prepare(tree))
    assert info["rejected"] == {"not DICOM": 1, "truncated": 1, "duplicate": 1}
    assert info["sequences"]["flair"]["encephalitis"] == {"patients": 2, "slices": 4}
    assert len(rejects(tree)) == 3
    assert info["listed_slices_not_found"] == 2


@pytest.mark.slow
def test_broken_files_excuse_their_own_rows_and_no_others(tree):
    for path in (tree / f"{NAME}_3").glob("*/IM*"):
        path.write_bytes(path.read_bytes()[:-5000])  # a patient of whom nothing is whole
    assert store.load_info(prepare(tree))["labeled_patients_without_slices"] == 1
    uids = [pydicom.dcmread(p).SOPInstanceUID for p in tree.glob("*/*/IM*")]
    write_csv(tree / "slices.csv", ("sop_instance_uid",), *((u,) for u in uids), ("1.2.3",))
    with pytest.raises(UserError, match=r"slices.csv row .* \(1 such\)"):
        prepare(tree, tree.parent / "second")
    (tree / "README").write_text("")  # might be the slice
    assert store.load_info(prepare(tree, tree.parent / "third"))["listed_slices_not_found"] == 10
    (tree / "patients.csv").write_text((tree / "patients.csv").read_text() + "X,glioma\n")
    match = r"row 6: no MR image .* or mend one of 1 files \(not DICOM\), which rejects.csv of --survey names"
    with pytest.raises(UserError, match=match):  # an id may be a name, and a file be called after one
        prepare(tree, tree.parent / "fourth")


@pytest.mark.slow
def test_a_second_copy_serves_where_the_first_is_broken(tmp_path):
    tree = make_tree(tmp_path / "dicom", slices=2, kinds=("flair",))
    whole = store.load_info(prepare(tree))
    shutil.copy(first_file(tree), tree / "zcopy")
    ds = pydicom.dcmread(first_file(tree))
    ds.file_meta.TransferSyntaxUID = pydicom.uid.RLELossless
    ds.PixelData = pydicom.encaps.encapsulate([b"no segments" * 99])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(first_file(tree))
    info = store.load_info(prepare(tree, tree.parent / "second"))
    assert info["fingerprint"] == whole["fingerprint"]
    assert info["rejected"] == {"duplicate": 1, "undecodable pixels": 1}


def eight_bits(tree, written=()):
    """Makes all images 8-bit exports; over the heads of the files `written` stands a name, 5 % of the head."""
    for path in tree.glob("*/*/IM*"):
        ds = pydicom.dcmread(path)
        image = np.clip(ds.pixel_array / 4, 0, 230)
        if path in written:
            drawn = Image.new("L", image.shape[::-1])
            ImageDraw.Draw(drawn).text((25, 55), "ZHANG WEI", fill=250, font=ImageFont.load_default(14))
            image = np.maximum(image, np.asarray(drawn))
        set_pixels(ds, image.astype(np.uint8))
        ds.save_as(path)


@pytest.mark.slow
def test_a_slice_with_a_name_over_the_head_is_left_out_to_be_looked_at(flair_tree, capsys):
    written = {first_file(flair_tree), *(first_file(flair_tree, patient=3, number=n) for n in (1, 2, 3))}
    eight_bits(flair_tree, written)
    print(preparing.prepare(flair_tree, flair_tree.parent / "data", flair_tree / pseudonyms.FOLDER))
    private = flair_tree / pseudonyms.FOLDER
    reasons = {flair_tree / name: reason for name, reason in rejects(flair_tree).items()}
    assert reasons.keys() == written and all("look at it: frame 1: text" in reason for reason in reasons.values())
    info = store.load_info(flair_tree.parent / "data")
    assert (info["ocr"], info["rejected"], len(store.load_slices(flair_tree.parent / "data", "flair").image)) == (
        "used",
        {"look at it": 4},
        8,
    )
    told = capsys.readouterr().out
    assert "4 slices are left out" in told and pseudonyms.TEXT_FILE in told and NAME not in told
    assert "text was read (OCR)" in (flair_tree.parent / "data" / "README.md").read_text()
    assert "text lies over the head" in (private / "series_found.csv").read_text()  # of the fourth patient
    assert (private / pseudonyms.TEXT_FILE).stat().st_mode & 0o077 == 0
    with Image.open(private / pseudonyms.TEXT_FILE) as picture:
        assert np.asarray(picture).min() < 50 and picture.width > 1000


def test_without_the_reader_8_bit_input_is_refused_or_not_read(flair_tree, monkeypatch):
    eight_bits(flair_tree)
    monkeypatch.setattr(burned_in_text, "has_reader", lambda: False)
    with pytest.raises(UserError, match=r"(?s)lesion\[ocr\].*--noocr"):
        prepare(flair_tree)
    assert not (flair_tree.parent / "data").exists()
    output = prepare(flair_tree, ocr=False)
    assert store.load_info(output)["ocr"] == "not used"
    assert "OCR was not used" in (output / "README.md").read_text()
    with pytest.raises(UserError, match="other inputs"):
        prepare(flair_tree)


def test_only_what_may_hold_text_is_read(flair_tree, monkeypatch):
    def refuse(image):
        raise AssertionError("read")

    monkeypatch.setattr(burned_in_text, "read", refuse)
    assert store.load_info(prepare(flair_tree))["ocr"] == "not needed"
    for fields in ({"BurnedInAnnotation": "YES"}, {"ImageType": ["DERIVED", "SECONDARY"]}, {"BitsStored": 8}):
        edit(first_file(flair_tree), **fields)
        header = read.read_header(str(flair_tree), str(first_file(flair_tree).relative_to(flair_tree)))
        assert header.may_hold_text
        edit(first_file(flair_tree), BurnedInAnnotation="NO", ImageType=["ORIGINAL", "PRIMARY"], BitsStored=16)


def test_a_series_without_a_head_is_left_out_and_listed(flair_tree):
    empty = np.full((128, 128), 300.0)
    for path in first_file(flair_tree, patient=1).parent.iterdir():
        ds = pydicom.dcmread(path)
        set_pixels(ds, burn(empty, value=400 + ds.InstanceNumber).astype(np.uint16))
        ds.save_as(path)
    info = store.load_info(prepare(flair_tree))
    assert info["sequences"]["flair"]["glioma"] == {"patients": 1, "slices": 3}
    listed = (flair_tree / pseudonyms.FOLDER / "series_found.csv").read_text()
    assert listed.count("no head is found in its pictures") == 1


@pytest.mark.slow
def test_linked_folders_are_read_once(flair_tree):
    whole = store.load_info(prepare(flair_tree))
    (flair_tree / f"{NAME}_0").rename(flair_tree.parent / "elsewhere")
    (flair_tree / f"{NAME}_0").symlink_to(flair_tree.parent / "elsewhere")
    (flair_tree / "round").symlink_to(flair_tree)
    info = store.load_info(prepare(flair_tree, flair_tree.parent / "second"))
    assert info["fingerprint"] == whole["fingerprint"]
    assert info["rejected"] == {}


def test_what_cannot_be_followed_or_read_is_a_row_of_the_rejects(flair_tree, monkeypatch):
    (flair_tree / "dangling").symlink_to(flair_tree / "nowhere")
    (flair_tree / "circle").symlink_to("circle")
    (flair_tree / "closed").mkdir()
    os.mkfifo(flair_tree / "pipe")
    closed, scandir = str(flair_tree / "closed"), os.scandir

    def guarded(path="."):  # root may read all, so that modes show nothing
        if path == closed:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    info = store.load_info(prepare(flair_tree))
    assert info["rejected"] == {"broken link": 2, "may not be read": 1}
    assert set(rejects(flair_tree)) == {"dangling", "circle", "closed"}
    with pytest.raises(UserError, match=r"a file is broken \(broken link\)"):
        prepare(flair_tree, flair_tree.parent / "strict", strict=True)


def test_a_file_that_may_not_be_read_is_rejected(flair_tree, monkeypatch):
    def guarded(path, *args):
        if Path(path) == first_file(flair_tree):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *args)

    opened = io.FileIO
    monkeypatch.setattr(io, "FileIO", guarded)
    assert store.load_info(prepare(flair_tree))["rejected"] == {"unreadable header": 1}


def test_a_source_that_may_not_be_written_is_told_before_the_work(flair_tree, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr(preparing, "find", None)  # not reached
    for work in (prepare, lambda tree: preparing.survey(tree, tree / "lesion_private")):
        with pytest.raises(UserError, match=r"cannot write to .*: name another folder with --private=DIR"):
            work(flair_tree)


def test_an_output_that_may_not_be_written_is_told_before_the_work(flair_tree, monkeypatch):
    (flair_tree.parent / "closed").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path))
    monkeypatch.setattr(preparing, "find", None)  # not reached
    with pytest.raises(UserError, match=r"cannot write to .*closed: name another folder with --output=DIR"):
        prepare(flair_tree, flair_tree.parent / "closed" / "data")


def test_a_file_name_that_is_not_utf_8_is_among_the_rejects(flair_tree):
    (flair_tree / os.fsdecode("病人".encode("gbk"))).write_bytes(b"garbage")
    prepare(flair_tree)
    assert "\\udcb2\\udca1" in "".join(rejects(flair_tree))


@pytest.mark.slow
def test_undecodable_pixels_are_rejected(tmp_path):
    """GDCM aborts its process on these; the slice is also the one that the page of series shows."""
    tree = make_tree(tmp_path / "dicom", patients=2, slices=2, kinds=("flair",))
    ds = pydicom.dcmread(first_file(tree, number=2))
    ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    ds.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + b"no codestream" * 9])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.save_as(first_file(tree, number=2))
    info = store.load_info(prepare(tree))
    assert info["rejected"] == {"undecodable pixels": 1}
    with pytest.raises(UserError, match=r"broken \(undecodable pixels\): .*rejects.csv names it"):
        prepare(tree, tree.parent / "strict", strict=True)
    assert [Path(file).name for file in rejects(tree)] == ["IM0002"]


def test_tables_choose_slices_and_sequences(tree):
    uid = pydicom.dcmread(first_file(tree)).SOPInstanceUID
    others = [pydicom.dcmread(first_file(tree, patient=p)).SOPInstanceUID for p in (1, 2)]
    write_csv(tree / "slices.csv", ("sop_instance_uid", "frame"), (uid, "1"), *((u, "") for u in others))
    (tree / "patients.csv").write_text("\ufeffLabel;patient_id\n Glioma ;MRN000\n0;MRN001\n;MRN002\n")
    write_csv(tree / "series.csv", ("series_instance_uid", "sequence"), (f"{ROOT}.101", "T2WI"))
    info = store.load_info(prepare(tree))
    assert info["sequences"]["t2wi"]["glioma"] == {"patients": 1, "slices": 1}
    assert info["sequences"]["flair"]["encephalitis"] == {"patients": 1, "slices": 1}
    assert info["sequences"]["flair"]["unlabeled"] == {"patients": 1, "slices": 1}
    assert info["patients"] == {"encephalitis": 1, "glioma": 1, "unlabeled": 1}
    assert store.load_slices(tree.parent / "data", "flair").label.tolist().count(-1) == 1


BAD_TABLES = {  # fault: (file, its content, words of the message)
    "no table": ("patients.csv", None, "no patients.csv"),
    "no column": ("patients.csv", "id,label\nMRN000,glioma\n", "no column 'patient_id'"),
    "an empty table": ("patients.csv", "", "no column"),
    "third class": ("patients.csv", "patient_id,label\nMRN000,abscess\n", "row 2: the label is neither"),
    "two labels": ("patients.csv", "patient_id,label\nMRN000,glioma\nMRN000,0\n", "row 3: .* another label"),
    "nobody": ("patients.csv", "patient_id,label\nMRN000,glioma\nMRN001,0\nX,1\n", "row 4: no MR image"),
    "unknown slice": ("slices.csv", "sop_instance_uid\n1.2.3\n", "slices.csv row 2"),
    "unknown frame": ("slices.csv", f"sop_instance_uid,frame\n{ROOT}.101.1,2\n", "slices.csv row 2"),
    "frame 0": ("slices.csv", f"sop_instance_uid,frame\n{ROOT}.101.1,0\n", "row 2: frame is not"),
    "an endless frame": ("slices.csv", f"sop_instance_uid,frame\n1.2,{'9' * 5000}\n", "row 2: frame is not"),
    "no slices": ("slices.csv", "sop_instance_uid\n", "lists no slice"),
    "unknown sequence": (
        "series.csv",
        f"series_instance_uid,sequence\n{ROOT}.101,dwi\n",
        "row 2: the sequence is unknown",
    ),
    "unknown series": ("series.csv", "series_instance_uid,sequence\n1.2,flair\n", "series.csv row 2"),
    "a reader of nobody": ("readers.csv", "patient_id,reader,label\nX,Li,1\n", "readers.csv row 2: no MR image"),
    "a reader's third class": ("readers.csv", "patient_id,reader,label\nMRN000,Li,both\n", "row 2: the label"),
    "a reader twice": ("readers.csv", "patient_id,reader,label\nMRN000,Li,1\nMRN000,Li,1\n", "row 3: this reader"),
    "nobody reads": ("readers.csv", "patient_id,reader,label\nMRN000,,1\n", "row 2: reader is empty"),
    "readers say nothing": ("readers.csv", "patient_id,reader,label\nMRN000,Li,\n", "no answer of a reader"),
    "an open quote": ("patients.csv", 'patient_id,label\nMRN000,0\n"MRN001,1\nMRN002,1\n', "row 3: unexpected end"),
    "a binary table": ("patients.csv", "\udcff\x00", "no text in UTF-8"),
}


def test_a_cohort_of_one_class_is_taken_and_told(flair_tree, capsys):
    (flair_tree / "patients.csv").write_text("patient_id,label,Sex,group\nMRN000,glioma,F,Li\nMRN001,,M,\n")
    text = preparing.prepare(flair_tree, flair_tree.parent / "data", flair_tree / pseudonyms.FOLDER)
    assert "no patient with encephalitis has a slice" in text and "Li" not in text + capsys.readouterr().out
    cells = sorted(tuple(row.items()) for row in store.load_patients(flair_tree.parent / "data").values())
    assert cells == [(("sex", "F"), ("group", "group_1")), (("sex", "M"), ("group", ""))]


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables_are_one_line_and_leave_nothing(tree, name):
    file, content, words = BAD_TABLES[name]
    (tree / file).unlink(missing_ok=True)
    if content is not None:
        (tree / file).write_bytes(content.encode(errors="surrogateescape"))
    before = snapshot(tree.parent)
    with pytest.raises(UserError, match=words) as error:
        prepare(tree)
    assert "\n" not in str(error.value)
    assert snapshot(tree.parent) == before


def test_bad_folders(tree, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        prepare(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        prepare(tmp_path / "empty")
    shutil.copy(tree / "patients.csv", tmp_path / "empty")
    with pytest.raises(UserError, match="no readable DICOM MR"):
        prepare(tmp_path / "empty")
    with pytest.raises(UserError, match="contains the DICOM tree"):
        prepare(tree, tree.parent)
    with pytest.raises(UserError, match="meant to be shared"):
        preparing.prepare(tree, tree.parent / "data", tree.parent / "data" / "private")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="no dataset of this program"):
        prepare(tree, tmp_path / "full")


def test_strict_stops_at_a_broken_header(tree):
    first_file(tree).write_bytes(b"")
    with pytest.raises(UserError, match=r"a file is broken \(not DICOM\)") as error:
        prepare(tree, strict=True)
    assert NAME not in str(error.value) and str(tree / "lesion_private" / "rejects.csv") in str(error.value)
    assert rejects(tree) == {str(first_file(tree).relative_to(tree)): "not DICOM: empty file"}
    assert not (tree.parent / "data").exists()


def test_strict_ends_its_processes_before_it_stops(flair_tree, monkeypatch):
    """One that is still at work when Python ends prints a traceback."""
    private, ended = flair_tree / pseudonyms.FOLDER, []
    found = find(flair_tree, private, scan.list_files(flair_tree, ()), tables_of_new_patients(flair_tree), Options())

    def broken(*args, **kwargs):
        try:
            yield [], [RejectedFile("a", "undecodable pixels", "")], "nothing"
        finally:
            ended.append(True)

    monkeypatch.setattr(workers, "parallel_map", broken)
    with pytest.raises(UserError, match="undecodable pixels") as error:
        render.render_all(found.series, strict=True)
    assert ended and error


def test_other_inputs_are_not_prepared_over_a_dataset(flair_tree):
    output = prepare(flair_tree)
    before = snapshot(output)
    save(dataset(head().astype(np.uint16), "NEW", "77"), flair_tree / "new")
    with pytest.raises(UserError, match="other inputs"):
        prepare(flair_tree)
    os.remove(flair_tree / "new")
    prepare(flair_tree)
    assert snapshot(output) == before


@pytest.mark.slow
@pytest.mark.parametrize("step", ["write", "draw", "private"])
def test_a_full_disk_leaves_nothing(flair_tree, monkeypatch, step):
    def full(*args, **kwargs):
        raise RuntimeError("RESOURCE: No space left on device") if step == "write" else OSError(errno.ENOSPC, "full")

    targets = {
        "write": (store, "write"),
        "draw": (preparing.qc_figures, "draw_cohort"),
        "private": (pseudonyms, "save"),
    }
    monkeypatch.setattr(*targets[step], full)
    before = snapshot(flair_tree.parent)
    with pytest.raises(OSError) as error:  # noqa: PT011 (errno is looked at)
        prepare(flair_tree)
    assert error.value.errno == errno.ENOSPC
    assert snapshot(flair_tree.parent) == before
    assert {p.name for p in flair_tree.parent.iterdir()} == {"dicom"}


@pytest.mark.slow
def test_of_two_runs_at_once_the_second_is_refused(flair_tree, monkeypatch):
    output = flair_tree.parent / "data"
    other = prepare(flair_tree, flair_tree.parent / "other")
    monkeypatch.setattr(preparing.qc_figures, "draw_cohort", lambda *args, **kwargs: other.rename(output))
    with pytest.raises(UserError, match="data was made by another run meanwhile"):
        prepare(flair_tree)
    prepare(flair_tree)  # says that it is up to date
    assert {path.name for path in output.parent.iterdir()} == {"dicom", "data"}


def test_a_dataset_in_a_folder_of_a_group_is_open_to_it_and_the_private_folder_is_not(flair_tree, tmp_path):
    (tmp_path / "group").mkdir()
    (tmp_path / "group").chmod(0o2775)
    before = os.umask(0o002)
    try:
        output = prepare(flair_tree, tmp_path / "group" / "data")
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode for path in [output, *output.rglob("*")]}
    assert all(mode & 0o2070 == 0o2070 for path, mode in modes.items() if path.is_dir())
    assert all(mode & 0o060 == 0o060 for mode in modes.values())
    private = flair_tree / "lesion_private"
    assert not any(path.stat().st_mode & 0o077 for path in [private, *private.iterdir()])


def test_one_person_under_two_ids_is_refused_and_named_in_the_private_folder_only(flair_tree):
    for path in (flair_tree / f"{NAME}_0").glob("*/IM*"):
        edit(path, PatientID="MRN009", SOPInstanceUID=pydicom.dcmread(path).SOPInstanceUID + ".9")
        shutil.copy(path, flair_tree / f"again_{path.name}")
        edit(path, PatientID="MRN000", SOPInstanceUID=pydicom.dcmread(path).SOPInstanceUID.removesuffix(".9"))
    with pytest.raises(UserError, match="3 slices with the same pixels: one person") as error:
        prepare(flair_tree)
    assert "MRN00" not in str(error.value).replace(str(flair_tree), "")
    rows = (flair_tree / pseudonyms.FOLDER / "same_pixels.csv").read_text().split()
    assert rows[1:] == ["MRN000,MRN009,3"]


@pytest.mark.slow
def test_what_was_sent_twice_counts_once(flair_tree):
    whole = store.load_info(prepare(flair_tree))
    shutil.copytree(flair_tree / f"{NAME}_0", flair_tree / "again")
    for path in (flair_tree / "again").glob("*/IM*"):
        ds = pydicom.dcmread(path)
        edit(path, SeriesInstanceUID=ds.SeriesInstanceUID + ".7", SOPInstanceUID=ds.SOPInstanceUID + ".7")
    info = store.load_info(prepare(flair_tree, flair_tree.parent / "second"))
    assert info["sequences"] == whole["sequences"] and info["same_pixels"] == 3


@pytest.mark.slow
def test_the_dataset_keeps_hashes_of_source_pixels_and_says_so(flair_tree):
    first, second = prepare(flair_tree), flair_tree.parent / "second"
    shutil.rmtree(flair_tree / pseudonyms.FOLDER)  # another key, as another hospital has
    rows = [
        {row["sha256"]: row["slice_id"] for row in files.read_csv(folder / store.SOURCE_FILE)}
        for folder in (first, prepare(flair_tree, second))
    ]
    assert set(rows[0]) == set(rows[1]) and not set(rows[0].values()) & set(rows[1].values())
    assert set(rows[0].values()) == set(store.load_slices(first, "flair").slice_id)
    assert "source_pixels.csv" in (first / "README.md").read_text()
    store.copy_source_digests(first, flair_tree)
    assert (flair_tree / store.SOURCE_FILE).read_bytes() == (first / store.SOURCE_FILE).read_bytes()


@pytest.mark.slow
def test_the_private_table_grows_and_two_datasets_have_one_key(flair_tree):
    prepare(flair_tree)
    uid = pydicom.dcmread(first_file(flair_tree)).SOPInstanceUID
    write_csv(flair_tree / "slices.csv", ("sop_instance_uid",), (uid,))
    prepare(flair_tree, flair_tree.parent / "second")
    rows = pseudonyms.read_table(flair_tree / pseudonyms.FOLDER)
    assert sum(row.kind == "slice" for row in rows) == 12 and sum(row.kind == "patient" for row in rows) == 4


def test_the_figures_are_of_a_usable_size(flair_tree):
    output = prepare(flair_tree)
    for name in ("preprocessing.png", "cohort.png"):
        assert Image.open(io.BytesIO((output / name).read_bytes())).size[0] == 1200
    json.loads((output / "cohort.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("named", [False, True])
def test_other_planes_are_left_out_unless_the_user_names_them(tmp_path, named):
    tree = make_tree(tmp_path / "dicom", kinds=("t2wi",))
    sagittal = dict(ImageOrientationPatient=[0, 1, 0, 0, 0.1, -0.99], ImagePositionPatient=[4, 0, 0])
    for p in range(2):
        pixels = head(128, seed=p).astype(np.uint16)
        save(dataset(pixels, f"MRN00{p}", f"7{p}", 1, "t2wi", **sagittal), tree / f"sagittal_{p}")
    if named:
        write_csv(tree / "series.csv", ("series_instance_uid", "sequence"), (f"{ROOT}.170", "t2wi"))
    output = prepare(tree)
    assert len(store.load_slices(output, "t2wi").image) == 12 + named
    assert store.load_info(output)["skipped"]["MR, sagittal or coronal"] == 2 - named
