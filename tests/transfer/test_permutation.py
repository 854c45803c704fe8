import numpy as np
import pytest
import tiny

from lesion import files, models
from lesion.transfer import permutation


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the test on made-up features of the tiny slices, with few shuffles."""
    made = tiny.config(mode="frozen")
    monkeypatch.setitem(models.MODELS, "tiny", tiny.SPEC)
    monkeypatch.setattr(permutation, "NUM_SHUFFLES", 39)
    setup = tiny.setup(made, tmp_path)

    def begin(x, name):
        monkeypatch.setattr(permutation, "frozen_features", lambda config, setup: x[:, None])
        return permutation.run_permutation(made, setup, tmp_path / name)

    return begin, setup.slices, tmp_path


@pytest.mark.slow
def test_a_pattern_is_told_from_shuffled_labels_and_the_names_of_patients_are_not(run, rng):
    begin, slices, folder = run
    noise = rng.normal(size=(40, 6))
    found = begin(noise + 4 * slices.label[:, None], "pattern")
    assert found["patient"]["p"] == 1 / 40 and found["patient"]["true"] == 1
    for level in ("slice", "patient"):
        assert found[level]["low"] < found[level]["mean"] < 0.6 and found[level]["high"] < 1
    rows = files.read_csv(folder / "pattern" / permutation.FILE)
    assert [int(row["shuffle"]) for row in rows] == list(range(-1, 39))
    assert begin(noise, "pattern") is None  # it is finished
    names = np.repeat(rng.normal(size=(10, 30)), 4, axis=0)
    assert begin(names, "names")["slice"]["p"] > 0.05


def test_whole_patients_are_tested_by_a_head_that_did_not_see_them(rng):
    patient = np.repeat(np.arange(12), 3)
    label, x = patient % 2, np.repeat(np.eye(12), 3, axis=0)
    score = permutation.cross_validate(x, label, patient, 3, 0)
    assert permutation.aucs(label, score, patient)[0] < 0.6
    assert permutation.cross_validate(x, label, patient, 3, 0).tolist() == score.tolist()
