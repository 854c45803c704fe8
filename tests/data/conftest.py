from pathlib import Path

import pydicom
import pytest
from dicom_trees import make_tree


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "dicom")


@pytest.fixture
def flair_tree(tmp_path):
    """Where one sequence shows what is to be shown."""
    return make_tree(tmp_path / "dicom", kinds=("flair",))


@pytest.fixture(scope="session")
def pydicom_files():
    return Path(pydicom.__file__).parent / "data" / "test_files"
