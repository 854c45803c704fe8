import shutil

import numpy as np
import pydicom
import pytest
from dicom_trees import NAME, head, make_tree, write_csv
from PIL import Image
from test_nifti import write

from lesion.dicom import scan, tables
from lesion.dicom.folder import Options, find, read_tables, tables_of_new_patients
from lesion.errors import UserError


def read(folder, **options):
    private = folder / "lesion_private"
    listing = scan.list_files(folder, (private,))
    return find(folder, private, listing, tables_of_new_patients(folder), Options(**options))


def used(found):
    return sorted((series.patient_id, series.sequence, series.num_frames()) for series in found.series if series.used)


def test_an_archive_is_read_like_the_folder_it_was_made_of(flair_tree):
    whole = used(read(flair_tree))
    folder = flair_tree / f"{NAME}_0"
    shutil.make_archive(str(flair_tree / "MRN000"), "zip", folder.parent, folder.name)
    shutil.rmtree(folder)
    (flair_tree / "notes.7z").write_bytes(b"7z")
    found = read(flair_tree)
    assert used(found) == whole
    assert ("notes.7z", "archive not read") in {file[:2] for file in found.scanned.rejected}
    assert used(read(flair_tree)) == whole  # unpacked before
    named = read(flair_tree, patient_from_folder=True)
    assert {patient for patient, _, _ in used(named)} == {"MRN000", *(f"{NAME}_{i}" for i in (1, 2, 3))}


@pytest.mark.parametrize(("file", "kind"), [(f"{NAME}.zip", "archive not read"), (f"{NAME}.png", "unreadable picture")])
def test_strict_stops_at_whatever_is_broken_and_names_no_file(flair_tree, file, kind):
    (flair_tree / file).write_bytes(b"no such thing")
    if file.endswith("png"):
        write_csv(flair_tree / "images.csv", ("file", "patient_id", "sequence"), (file, "MRN000", "t2wi"))
    assert [rejected.kind for rejected in read(flair_tree).scanned.rejected] == [kind]
    with pytest.raises(scan.FilesError, match=rf"a file is broken \({kind}\)") as error:
        read(flair_tree, strict=True)
    assert NAME not in str(error.value).replace(str(flair_tree), "")


def test_an_emptied_patient_id_is_told_and_folders_may_name_patients(flair_tree):
    for path in flair_tree.glob("*/*/IM*"):
        ds = pydicom.dcmread(path)
        ds.PatientID = ""
        ds.save_as(path)
    with pytest.raises(UserError, match=r"PatientID is missing or empty in 12 .* --patient=folder"):
        read(flair_tree)
    assert len(used(read(flair_tree, patient_from_folder=True))) == 4


def test_pictures_and_dicom_go_in_together(flair_tree):
    for index in range(2):
        Image.fromarray(np.clip(head(100, seed=index) / 4, 0, 255).astype(np.uint8)).save(flair_tree / f"{index}.png")
    before = read(flair_tree)
    assert len(used(before)) == 4  # without a table they are no slices
    rows = [(f"{index}.png", "MRN000", "t2wi") for index in range(2)]
    write_csv(flair_tree / "images.csv", ("file", "patient_id", "sequence"), *rows)
    found = read(flair_tree)
    assert ("MRN000", "t2wi", 2) in used(found) and len(used(found)) == 5
    assert len(found.scanned.skipped) == len(before.scanned.skipped) - 1  # two pictures less, one table more


def test_a_folder_of_pictures_without_a_table_is_told_how_to_write_one(tmp_path):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="file,patient_id,sequence"):
        read(tmp_path)


def test_masks_choose_the_slices_of_nifti(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 200, (5, 40, 36)).astype(np.uint16)
    mask = np.zeros_like(pixels)
    mask[2, 4:12, 4:12], mask[3, 4, 4] = 1, 1
    for patient in ("sub-01", "sub-02"):
        write(tmp_path / "bids" / patient / "anat" / f"{patient}_FLAIR.nii.gz", pixels)
        write(tmp_path / "masks" / patient / f"{patient}_mask.nii.gz", mask, dtype=np.uint8)
    chosen = read(tmp_path / "bids", masks=tmp_path / "masks").series
    assert [[member.chosen for member in series.members] for series in chosen] == [[(3,)], [(3,)]]
    with pytest.raises(UserError, match="--masks="):
        read(tmp_path / "bids", masks=tmp_path / "bids")


def test_ids_of_the_tables_are_those_of_the_images(flair_tree):
    for path in flair_tree.glob("*/*/IM*"):
        ds = pydicom.dcmread(path)
        ds.PatientID = ds.PatientID.replace("MRN00", "100")
        ds.save_as(path)
    (flair_tree / "patients.csv").write_text("patient_id,label\n1000.0,glioma\n1001,\n")
    user = tables.read_tables(flair_tree)
    private = flair_tree / "lesion_private"
    found = find(flair_tree, private, scan.list_files(flair_tree, (private,)), user, Options())
    assert found.user.labels == {"1000": 1, "1001": -1}


def test_a_folder_of_one_patient_is_read(tmp_path):
    assert len(used(read(make_tree(tmp_path / "one", patients=1)))) == 3


def test_labels_of_participants_without_a_scan_are_left_out(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 200, (5, 40, 36)).astype(np.uint16)
    write(tmp_path / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz", pixels)
    (tmp_path / "participants.tsv").write_text("participant_id\tdiagnosis\nsub-01\tglioma\nsub-02\tencephalitis\n")
    options = Options(labels_column="diagnosis")
    listing, private = scan.list_files(tmp_path, ()), tmp_path / "lesion_private"
    assert find(tmp_path, private, listing, read_tables(tmp_path, options), options).user.labels == {"sub-01": 1}
