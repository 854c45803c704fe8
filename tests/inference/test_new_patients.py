import csv

import numpy as np
import pytest
from dicom_trees import HOSPITAL, NAME, dataset, head, make_tree, save
from PIL import Image

from lesion.dataset import prepare, pseudonyms, store
from lesion.errors import UserError
from lesion.inference import new_patients


@pytest.mark.slow
def test_slices_are_those_of_a_dataset_and_what_does_not_fit_is_flagged(tree, tmp_path):
    private = tree / pseudonyms.FOLDER
    prepare.prepare(tree, tmp_path / "data", private)
    prepared = store.load_slices(tmp_path / "data", "flair")
    (tree / "patients.csv").unlink()
    pixels = head().astype(np.uint16)
    save(dataset(pixels, "OTHER", "71", 1, "t2wi", QualityControlImage="YES"), tree / "other" / "IM1")
    save(dataset(np.full_like(pixels, 300), "BLANK", "72", 1), tree / "blank" / "IM1")
    save(dataset(pixels, "CT", "73", 1, Modality="CT"), tree / "ct" / "IM1")
    found = new_patients.read_folder(tree, "flair", private)
    usable = [new for new in found.slices if not new.flag]
    assert {new.slice for new in usable} == set(prepared.slice_id)
    for new in usable:
        (i,) = np.flatnonzero(prepared.slice_id == new.slice)
        assert new.patient == prepared.patient[i]
        np.testing.assert_array_equal(new.image, prepared.image[i])
    heights = [new.position_mm for new in found.slices if new.patient == usable[0].patient]
    assert heights == sorted(heights)
    key = pseudonyms.read_key(private)
    other, blank = (pseudonyms.pseudonym(key, "patient", name) for name in ("OTHER", "BLANK"))
    assert found.flags == {
        other: "no flair slice that could be read, there is t2wi",
        blank: "no slice to ask about: no head is found in its pictures",
    }
    assert found.phantom == {other} and found.skipped["modality CT"] == 1 and not found.slices_listed
    assert not any(word in str(found) for word in (NAME, HOSPITAL, "MRN00"))
    with open(private / pseudonyms.TABLE_FILE, newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert len({row[0] for row in rows}) == len(rows) > len(found.slices)  # those of the dataset's other sequences too


def test_slices_csv_is_heeded(tmp_path):
    tree = make_tree(tmp_path / "dicom", patients=2, kinds=("flair",))
    uid = dataset(head().astype(np.uint16), "MRN000", "01", 2).SOPInstanceUID
    (tree / "slices.csv").write_text(f"sop_instance_uid\n{uid}\n")
    found = new_patients.read_folder(tree, "flair", tmp_path / "private")
    assert len(found.slices) == 1 and len(found.flags) == 1 and found.slices_listed
    assert Image.fromarray(found.slices[0].image).size == (224, 224)
    with pytest.raises(UserError, match="there is no folder"):
        new_patients.read_folder(tmp_path / "none", "flair", tmp_path / "private")
