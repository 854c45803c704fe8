import numpy as np
import pytest

from lesion import benchmarks
from lesion.benchmarks import phantom
from lesion.errors import UserError


@pytest.fixture
def sample(rng):
    """x [N, D] whose first column is the label with noise, 30 patients of 4 slices."""
    patient = np.repeat([f"p{k:02d}" for k in range(30)], 4)
    label = np.repeat(np.arange(30) % 2, 4).astype(np.int32)
    x = rng.standard_normal((120, 6))
    x[:, 0] += 6 * label
    return x, label, patient


def test_a_pattern_is_found_and_noise_is_not(sample):
    x, label, patient = sample
    assert phantom.evaluate(x, label, patient).slice_auc > 0.95
    assert phantom.evaluate(x[:, 1:], label, patient).slice_auc < 0.75


def test_features_of_the_patient_do_not_leak(rng):
    # Columns that name the patient tell nothing about the patients of the test fold.
    patient = np.repeat([f"p{k:02d}" for k in range(30)], 4)
    label = np.repeat(rng.permutation(30) % 2, 4)
    x = np.repeat(rng.standard_normal((30, 40)), 4, axis=0)
    assert phantom.evaluate(x, label, patient).slice_auc < 0.8


@pytest.mark.parametrize(
    ("field", "number"),
    [(None, 0), ("", 0), ("1.5", 1.5), ("045Y", 45), ("20190102", 20190102), ("M", ord("M"))],
)
def test_header_values_become_numbers(field, number):
    assert phantom._number(field) == number


def test_the_table_in_text_and_markdown():
    results = {s: {"ImageNet features": phantom.Result(0.9, 0.951)} for s in ("flair", "t2wi")}
    rows = phantom.table(results)
    assert benchmarks.render(rows, markdown=True).splitlines()[2] == "| ImageNet features | 0.90 / 0.95 | 0.90 / 0.95 |"
    assert benchmarks.render(rows).splitlines()[0] == "slice AUC / patient AUC  flair        t2wi"


@pytest.mark.slow
def test_reading_a_cohort_gives_slices_and_finite_shortcuts(phantom_dicom, monkeypatch):
    read, kept = phantom.render.render_all, []  # the same pictures both times: they are made once

    def once(series, **kwargs):
        kept.extend([] if kept else [read(series, **kwargs)])
        return kept[0]

    monkeypatch.setattr(phantom.render, "render_all", once)
    with pytest.raises(UserError, match="4 patients with encephalitis"):
        phantom.load(phantom_dicom)
    monkeypatch.setattr(phantom, "NUM_FOLDS", 2)
    samples = phantom.load(phantom_dicom)
    for sample in samples.values():
        assert sample.slices.image.shape == (24, 224, 224)
        assert len(sample.shortcuts) == 24
        assert np.isfinite(sample.shortcuts).all()
