import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lesion.dataset import store
from lesion.errors import UserError


def record(i, rng):
    pixels = rng.integers(0, 256, (224, 224), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return store.Record(f"s{i:03d}", f"p{i // 4}", i % 3 - 1, stream.getvalue(), (0.7, 0.8), "", 6.5 * i), pixels


@pytest.fixture
def written(tmp_path, rng):
    made = [record(i, rng) for i in range(12)]
    store.write(tmp_path, "flair", [r for r, _ in reversed(made)])
    (tmp_path / store.INFO_FILE).write_text('{"sequences": {"flair": {}}}')
    return tmp_path, made


def test_slices_come_back_sorted_and_exact(written):
    folder, made = written
    slices = store.load_slices(folder, "flair")
    np.testing.assert_array_equal(slices.image, np.stack([pixels for _, pixels in made]))
    assert slices.image.dtype == np.uint8
    assert slices.label.tolist() == [r.label for r, _ in made]
    assert slices.label.dtype == np.int32
    assert slices.patient.tolist() == [r.patient for r, _ in made]
    assert slices.slice_id.tolist() == [r.slice_id for r, _ in made]
    np.testing.assert_allclose(slices.spacing_mm, [(0.7, 0.8)] * 12)
    np.testing.assert_array_equal(slices.position_mm, np.arange(12, dtype=np.float32) * 6.5)
    assert slices.spacing_mm.dtype == slices.position_mm.dtype == np.float32


@pytest.mark.slow
def test_writing_and_reading_need_no_tensorflow_and_print_nothing(written):
    code = f"""
import sys
from lesion.dataset import store
store.load_slices({str(written[0])!r}, "flair")
store.write(__import__("pathlib").Path({str(written[0] / "second")!r}), "t2wi",
    [store.Record("s", "p", 1, open({str(written[0] / "a.png")!r}, "rb").read(), (1, 1), "", 0.0)])
assert not {{"tensorflow", "jax", "torch"}} & set(sys.modules)
"""
    (written[0] / "a.png").write_bytes(written[1][0][0].image)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    names = {path.name for path in (written[0] / "second").iterdir()}
    assert names == {"cohort"}


@pytest.mark.parametrize(
    ("sequence", "words"), [("t2wi", "nobody"), ("dwi", "unknown"), ("../cohort", "unknown"), ("", "unknown")]
)
def test_a_sequence_that_is_not_there(written, sequence, words):
    with pytest.raises(UserError, match=words):
        store.load_slices(written[0], sequence)


def test_a_dataset_of_another_version_is_told(written):
    (written[0] / "cohort/flair" / store.FORMAT).rename(written[0] / "cohort/flair/1.0.0")
    with pytest.raises(UserError, match=r"another version .* launch\.prepare"):
        store.load_slices(written[0], "flair")


def test_no_dataset(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=r"launch\.prepare"):
            store.load_slices(folder, "flair")
    (tmp_path / store.INFO_FILE).write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        store.load_info(tmp_path)


def test_what_is_told_of_patients_is_kept_and_a_group_s_name_is_not(tmp_path):
    assert store.load_patients(tmp_path) == {}
    store.write_patients(tmp_path, {"p1": {}, "p2": {}})
    assert not (tmp_path / store.PATIENTS_FILE).exists()
    told = {"p3": {"group": "Li", "site": "A, B"}, "p1": {"group": "", "site": ""}, "p2": {"group": "Wu", "site": ""}}
    store.write_patients(tmp_path, told | {"p4": told["p3"], "p5": {"fold": "1"}})
    loaded = store.load_patients(tmp_path)
    assert {name: cells["group"] for name, cells in loaded.items()} == {
        "p1": "", "p2": "group_1", "p3": "group_2", "p4": "group_2", "p5": ""
    }  # fmt: skip
    assert loaded["p3"] == {"group": "group_2", "site": "A, B", "fold": ""}
    for damaged in ("patient,fold\np1,x\n", "name\nx\n", b"\xff"):
        (tmp_path / store.PATIENTS_FILE).write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
        with pytest.raises(UserError, match="is damaged"):
            store.load_patients(tmp_path)
