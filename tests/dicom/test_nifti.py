import gzip
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_trees import ROOT, dataset, save, write_csv
from hypothesis import given
from hypothesis import strategies as st
from nibabel import orientations
from scipy.spatial.transform import Rotation

from lesion.dicom import nifti, read
from lesion.dicom.nifti import read_nifti, scan_nifti
from lesion.errors import UserError

SHAPE = (5, 20, 16)  # slices, rows, columns
SPACING_MM = (1.5, 1.2, 4.0)  # of columns, rows, slices
LPS = np.diag([-1.0, -1, 1, 1])


def volume():
    """As DICOM has it [slices, rows, columns]: textured, a mark at the patient's right, in front, in one slice."""
    pixels = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.uint16)
    pixels[1, 2:5, 1:4] = 3000
    return pixels


def rotation(degrees):
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def affine_lps(degrees=(0, 0, 0)):
    """From (column, row, slice) to DICOM's mm."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees) @ np.diag(SPACING_MM)
    affine[:3, 3] = -40, -60, 7
    return affine


def write(path, pixels, codes="LPS", degrees=(0, 0, 0), dtype=None):
    """Writes [slices, rows, columns] as NIfTI whose voxel axes point to `codes`, nearly: the rest is the rotation."""
    data, affine = pixels.transpose(2, 1, 0), LPS @ affine_lps(degrees)
    turn = orientations.ornt_transform(orientations.axcodes2ornt("LPS"), orientations.axcodes2ornt(codes))
    stored = orientations.apply_orientation(data, turn)
    affine = affine @ orientations.inv_ornt_aff(turn, data.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(stored.astype(dtype or pixels.dtype), affine), path)
    return path


def scan_one(folder):
    write_csv(folder / "images.csv", ("file", "patient_id", "sequence"), ("v.nii.gz", "P1", "flair"))
    return scan_nifti(folder)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (10, 0, 0), (-6, 8, 10)])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "ASR", "PIL", "IRP", "SAL"])
def test_slices_lie_as_those_of_dicom(tmp_path, codes, degrees):
    pixels, affine = volume(), affine_lps(degrees)
    cosines = [*(affine[:3, 0] / SPACING_MM[0]), *(affine[:3, 1] / SPACING_MM[1])]
    for index, plane in enumerate(pixels):
        ds = dataset(plane, "P1", "1", index + 1, spacing=(SPACING_MM[1], SPACING_MM[0]))
        ds.ImageOrientationPatient = [f"{x:.9f}" for x in cosines]
        ds.ImagePositionPatient = [f"{x:.9f}" for x in affine[:3, 3] + index * affine[:3, 2]]
        ds.SOPInstanceUID = f"{ROOT}.{index}"
        save(ds, tmp_path / f"IM{index}")
    write(tmp_path / "v.nii.gz", pixels, codes, degrees)
    (instance,), sequences, rejected = scan_one(tmp_path)
    assert (instance.sop_uid, instance.patient_id, sequences, rejected) == ("v.nii.gz", "P1", {"P1/flair": "flair"}, [])
    turned = read_nifti(str(tmp_path), instance)
    assert turned.dtype == np.float32 and turned.shape == (len(instance.frames), *instance.shape)
    for index, frame in enumerate(instance.frames):
        header = read.read_header(str(tmp_path), f"IM{index}")
        np.testing.assert_array_equal(turned[index], read.read_pixels(str(tmp_path), header)[0])
        np.testing.assert_allclose(frame.plane, header.frames[0].plane, atol=0.011)  # of two decimals, rounded twice
        assert frame.position_mm == pytest.approx(header.frames[0].position_mm, abs=1e-4)
        assert frame.spacing == pytest.approx(header.frames[0].spacing) and frame.number == index + 1
        assert instance.shape == header.shape and read.is_axial(frame.plane)


LAYOUTS = {
    "BIDS": {
        "sub-01/anat/sub-01_FLAIR.nii.gz": "sub-01/flair",
        "sub-01/anat/sub-01_acq-ax_T2w.nii": "sub-01/t2wi",
        "sub-01/anat/sub-01_run-2_T2w.nii": "sub-01/t2wi/2",
        "sub-01/anat/sub-01_ce-gad_T1w.nii.gz": "sub-01/ce_t1wi",
        "sub-02/ses-a/anat/sub-02_ses-a_FLAIR.nii.gz": "sub-02/ses-a/flair",
        "sub-02/ses-b/anat/sub-02_ses-b_FLAIR.nii.gz": "sub-02/ses-b/flair",
        "sub-01/anat/sub-01_T1w.nii.gz": None,
        "sub-01/anat/sub-01_part-phase_T2w.nii.gz": None,
        "sub-01/dwi/sub-01_dwi.nii.gz": None,
        "derivatives/x/sub-01/anat/sub-01_FLAIR.nii.gz": None,
        ".git/sub-03/anat/sub-03_FLAIR.nii.gz": None,
    },
    "BraTS 2020": {
        "BraTS20_Training_001/BraTS20_Training_001_t1ce.nii": "BraTS20_Training_001/ce_t1wi",
        "BraTS20_Training_001/BraTS20_Training_001_flair.nii": "BraTS20_Training_001/flair",
        "BraTS20_Training_001/BraTS20_Training_001_t2.nii": "BraTS20_Training_001/t2wi",
        "BraTS20_Training_001/BraTS20_Training_001_t1.nii": None,
        "BraTS20_Training_001/BraTS20_Training_001_seg.nii": None,
    },
    "BraTS 2023": {
        "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1c.nii.gz": "BraTS-GLI-00001-000/ce_t1wi",
        "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t2f.nii.gz": "BraTS-GLI-00001-000/flair",
        "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t2w.nii.gz": "BraTS-GLI-00001-000/t2wi",
        "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1n.nii.gz": None,
        # Two time points of one patient.
        "BraTS-GLI-00002-000/BraTS-GLI-00002-000-t2f.nii.gz": "BraTS-GLI-00002/000/flair",
        "BraTS-GLI-00002-001/BraTS-GLI-00002-001-t2f.nii.gz": "BraTS-GLI-00002/001/flair",
    },
    "TCIA": {
        "HGG/P 7/t1Gd.nii.gz": "P 7/ce_t1wi",
        "HGG/P 7/x_T2_FLAIR.nii.gz": "P 7/flair",
        "HGG/P 7/x_T1_FLAIR.nii.gz": None,
        "HGG/P 7/T2.nii": "P 7/t2wi",
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    for file in LAYOUTS[layout]:
        write(tmp_path / file, volume())
    instances, sequences, rejected = scan_nifti(tmp_path)
    expected = {file: series for file, series in LAYOUTS[layout].items() if series}
    assert {instance.file: instance.series_uid for instance in instances} == expected and not rejected
    assert all(instance.series_uid.startswith(f"{instance.patient_id}/") for instance in instances)
    assert all(series.removesuffix("/2").endswith(f"/{sequence}") for series, sequence in sequences.items())
    assert sequences.keys() == set(expected.values())


def test_what_is_not_clear_is_left_out_and_told(tmp_path):
    for file in ("P1/a_flair.nii", "P1/b_flair.nii", "P1/a_t2.nii", "P2/t2.nii", "P2/t2.nii.gz", "sub-1/x/T2.nii"):
        write(tmp_path / file, volume())
    instances, _, rejected = scan_nifti(tmp_path)
    assert [instance.file for instance in instances] == ["P2/t2.nii", "sub-1/x/T2.nii"]
    assert {file.file: file.kind for file in rejected} == {
        **dict.fromkeys(("P1/a_flair.nii", "P1/a_t2.nii", "P1/b_flair.nii"), "not clear which file counts"),
        "P2/t2.nii.gz": "duplicate",
    }
    # The table goes before the layout.
    write_csv(tmp_path / "images.csv", ("file", "patient_id", "sequence"), ("P2/t2.nii", "P3", "flair"))
    assert {instance.file: instance.series_uid for instance in scan_nifti(tmp_path)[0]} == {
        "P2/t2.nii": "P3/flair",
        "sub-1/x/T2.nii": "x/t2wi",
    }
    write(tmp_path / "other" / "x" / "flair.nii", volume())
    with pytest.raises(UserError, match="would be one patient"):
        scan_nifti(tmp_path)


def test_broken_volumes_are_rejected(tmp_path):
    image = np.zeros((4, 5, 6), np.float32)
    skewed = np.array([[1, 1, 0, 0], [0, 0.01, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    cases = [
        (np.zeros((4, 5, 6, 2), np.float32), np.eye(4), "4-D, 2 volumes"),
        (image.astype(np.complex64), np.eye(4), "in colour or complex"),
        (image.astype([("R", "u1"), ("G", "u1"), ("B", "u1")]), np.eye(4), "in colour"),
        (image, None, "tells no orientation"),
        (image, skewed, "is no orientation"),
        (image, np.diag([1, 5, 1, 1]), "5.0 mm apart"),
        (image, np.eye(4), "Error"),  # cut short below
    ]
    for number, (data, affine, _) in enumerate(cases):
        path = tmp_path / f"P{number}" / "t2.nii"
        path.parent.mkdir()
        nibabel.save(nibabel.Nifti1Image(data, affine), path)
    path.write_bytes(path.read_bytes()[:200])
    instances, _, rejected = scan_nifti(tmp_path)
    assert not instances
    for file, (_, _, word) in zip(rejected, cases, strict=True):
        assert word in file.reason and file.patient_id


@pytest.mark.parametrize(
    ("at", "value", "words"), [(42, b"\xff\x7f" * 3, "is the header broken"), (108, b"\0\0\0\x7f", "begin")]
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path, at, value, words, suffix):
    content = bytearray(write(tmp_path / "P1" / "t2.nii", volume()).read_bytes())
    (tmp_path / "P1" / "t2.nii").unlink()
    content[at : at + len(value)] = value
    (tmp_path / "P1" / f"t2{suffix}").write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    instances, _, rejected = scan_nifti(tmp_path)
    assert not instances and words in rejected[0].reason


def test_voxels_without_a_value_are_dark_and_single_slices_are_volumes(tmp_path):
    pixels = volume().astype(np.float32) - 50
    pixels[0, 0, 0], pixels[1, 1, 1] = np.nan, np.inf
    write(tmp_path / "v.nii.gz", pixels)
    (instance,), _, _ = scan_one(tmp_path)
    read_back = read_nifti(tmp_path, instance)
    assert read_back[0, 0, 0] == read_back[1, 1, 1] == read_back.min() == -50
    nibabel.save(nibabel.Nifti1Image(np.arange(6, dtype=np.float32).reshape(2, 3), LPS), tmp_path / "v.nii.gz")
    (instance,), _, _ = scan_one(tmp_path)
    np.testing.assert_array_equal(read_nifti(tmp_path, instance), [[[0, 3], [1, 4], [2, 5]]])


@pytest.mark.parametrize("codes", ["LPS", "RAS", "ASR"])
def test_masks_choose_slices(tmp_path, codes):
    mask = np.zeros(SHAPE)
    mask[1, 2:5, 1:4], mask[2, 0, 0], mask[4, -1, -1] = 4, 1, 1  # 9 voxels, then corners
    write(tmp_path / "P1" / "P1-t2f.nii.gz", volume(), "RAS", (-6, 8, 10))
    write(tmp_path / "P1" / "P1-seg.nii.gz", mask, codes, (-6, 8, 10), np.uint8)
    write(tmp_path / "P1" / "P1_brain_mask.nii.gz", mask, codes)
    (instance,), _, _ = scan_nifti(tmp_path)
    path = nifti.find_masks(tmp_path, [instance])[instance.sop_uid]
    assert path.name == "P1-seg.nii.gz"
    voxel_mm2 = SPACING_MM[0] * SPACING_MM[1]
    for area_mm2, slices in ((0, [2, 3, 5]), (voxel_mm2 * 0.99, [2, 3, 5]), (voxel_mm2 * 8.9, [2]), (99, [])):
        assert nifti.mask_slices(str(tmp_path), instance, path, area_mm2) == slices
    nibabel.save(
        nibabel.Nifti1Image(mask.astype(np.uint8), np.diag([1, 1, 1, 1]) + 500 * np.eye(4, k=3)), tmp_path / "far.nii"
    )
    with pytest.raises(UserError, match="outside of its image"):
        nifti.mask_slices(tmp_path, instance, "far.nii", 0)
    with pytest.raises(UserError, match="a mask cannot be used"):
        nifti.mask_slices(tmp_path, instance, "missing.nii", 0)


def test_masks_of_a_bids_tree_are_found_by_patient_and_visit(tmp_path):
    for visit in "ab":
        write(tmp_path / f"sub-1/ses-{visit}/anat/sub-1_ses-{visit}_FLAIR.nii.gz", volume())
    masks = tmp_path / "derivatives" / "lesions" / "sub-1" / "ses-b" / "anat"
    write(masks / "sub-1_ses-b_label-lesion_mask.nii.gz", volume())
    write(masks / "sub-1_ses-b_desc-brain_mask.nii.gz", volume())
    instances, _, _ = scan_nifti(tmp_path)
    found = nifti.find_masks(tmp_path / "derivatives", instances)
    assert {sop_uid: path.name for sop_uid, path in found.items()} == {
        "sub-1/ses-b/anat/sub-1_ses-b_FLAIR.nii.gz": "sub-1_ses-b_label-lesion_mask.nii.gz"
    }
    write(masks / "sub-1_ses-b_dseg.nii.gz", volume())
    with pytest.raises(UserError, match="two masks"):
        nifti.find_masks(tmp_path / "derivatives", instances)


def test_labels_come_from_a_column_of_participants(tmp_path):
    with pytest.raises(UserError, match="instead, columns patient_id,label"):
        nifti.read_participants(tmp_path, "dx")
    path = tmp_path / "participants.tsv"
    path.write_text("participant_id\tage\tDx\nsub-1\t50\tGlioma\n2\t\tencephalitis\nsub-3\t50\tn/a\nsub-4\t7\t\n")
    assert nifti.read_participants(tmp_path, "Dx") == {"sub-1": 1, "sub-2": 0, "sub-3": -1, "sub-4": -1}
    with pytest.raises(UserError, match="row 2: age is none of encephalitis, glioma"):
        nifti.read_participants(tmp_path, "age")
    with pytest.raises(UserError, match="no column 'sex'"):
        nifti.read_participants(tmp_path, "sex")


@given(st.lists(st.tuples(st.integers(0, 359), st.integers(0, 255)), max_size=6), st.integers(0, 4000))
def test_no_bytes_crash_the_reader(changes, length):
    with tempfile.TemporaryDirectory() as name:
        path = write(Path(name) / "P1" / "t2.nii", volume())
        content = bytearray(path.read_bytes())
        for index, value in changes:
            content[index] = value
        path.write_bytes(content[:length])
        instances, _, rejected = scan_nifti(Path(name))
        assert len(instances) + len(rejected) == 1
