import io

import numpy as np
import pytest
from dicom_trees import dataset, head, save
from PIL import Image

from lesion.dataset import preprocess, render, slice_file
from lesion.dicom.folder import Options, find, tables_of_new_patients
from lesion.dicom.scan import list_files
from lesion.errors import UserError


def test_a_slice_of_a_series_of_one_is_as_in_a_dataset(tmp_path):
    path = save(dataset(head(at=0.1).astype(np.uint16), QualityControlImage="YES"), tmp_path / "IM1")
    found = slice_file.read_slice(path)
    user, listing = tables_of_new_patients(tmp_path), list_files(tmp_path, ())
    judged = find(tmp_path, tmp_path / "private", listing, user, Options()).series
    ((picture,),) = render.render_all(judged).slices
    assert found.sequence == "flair" and found.phantom and "flair" in found.description
    np.testing.assert_array_equal(found.image, np.asarray(Image.open(io.BytesIO(picture.png))))


def test_pictures_are_taken_as_they_are_or_made_square(tmp_path, rng):
    grey = rng.integers(0, 255, (224, 224), np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    found = slice_file.read_slice(tmp_path / "a.png")
    np.testing.assert_array_equal(found.image, grey)
    assert found.sequence is None and not found.phantom
    Image.fromarray(np.full((50, 100), 200, np.uint8)).save(tmp_path / "b.png")
    other = slice_file.read_slice(tmp_path / "b.png").image
    assert other.shape == (preprocess.SIZE,) * 2 and not other[:50].any() and (other[80:140] == 200).all()


def test_anything_else_is_an_error_of_one_line(tmp_path):
    (tmp_path / "words.txt").write_text("no picture")
    save(dataset(head().astype(np.uint16), Modality="CT"), tmp_path / "ct.dcm")
    for name, message in (("words.txt", "not DICOM"), ("ct.dcm", "modality CT"), ("none", "there is no file")):
        with pytest.raises(UserError, match=message):
            slice_file.read_slice(tmp_path / name)
