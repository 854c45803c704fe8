from pathlib import Path

import pydicom
import pytest
from dicom_trees import make_tree


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "dicom")


@pytest.fixture(scope="session")
def pydicom_files():
    return Path(pydicom.__file__).parent / "data" / "test_files"
