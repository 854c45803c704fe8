import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_up import cohort
from sklearn import metrics as reference

from lesion import metrics


def sklearn_scores(label, probability):
    called = probability > 0.5
    return {
        "accuracy": reference.accuracy_score(label, called),
        "auc": reference.roc_auc_score(label, probability),
        "f1_weighted": reference.f1_score(label, called, average="weighted", zero_division=0),
        "f1_positive": reference.f1_score(label, called, zero_division=0),
        "sensitivity": reference.recall_score(label, called),
        "specificity": reference.recall_score(label, called, pos_label=0),
    }


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), num_patients=st.integers(2, 40), decimals=st.integers(0, 4))
def test_values_equal_sklearn_ties_included(seed, num_patients, decimals):
    label, probability, patient = cohort(seed, num_patients, decimals=decimals)
    got = metrics.evaluate(label, probability, patient, num_resamples=20)
    mean_label, mean, _ = metrics.patient_means(label, probability, patient)
    for level, want in (
        ("slice", sklearn_scores(label, probability)),
        ("patient", sklearn_scores(mean_label, mean)),
    ):
        assert set(got[level]) == set(metrics.SCORES)
        for name, value in want.items():
            assert got[level][name]["value"] == pytest.approx(value, abs=1e-12), (level, name)
            assert got[level][name]["low"] <= got[level][name]["value"] <= got[level][name]["high"]
    assert (got["num_slices"], got["num_patients"]) == (label.size, num_patients)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
@example(seed=186)  # two patients whose means are equal but for the rounding
def test_the_order_of_rows_does_not_matter(seed):
    columns = cohort(seed)
    order = np.random.default_rng(seed).permutation(columns[0].size)
    first = metrics.evaluate(*columns, num_resamples=50)
    second = metrics.evaluate(*(column[order] for column in columns), num_resamples=50)
    for level in ("slice", "patient"):
        for name in metrics.SCORES:
            for end in ("value", "low", "high"):
                assert first[level][name][end] == pytest.approx(second[level][name][end], abs=1e-12)


def test_every_resample_equals_sklearn_on_the_drawn_slices():
    """The bilinear shortcut against the plain way: copy the drawn patients' slices and score them."""
    label, probability, patient = cohort(3, num_patients=12, decimals=1)
    name = np.unique(patient)
    counts = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), 30)
    want = []
    for count in counts:
        rows = np.concatenate(
            [np.flatnonzero(patient == p) for p, c in zip(name, count, strict=True) for _ in range(c)]
        )
        if np.unique(label[rows]).size == 2:
            want.append(sklearn_scores(label[rows], probability[rows]))
    got = metrics.evaluate(label, probability, patient, num_resamples=30, seed=0)
    assert got["num_degenerate"] == 30 - len(want)
    for score in metrics.SCORES:
        low, high = np.percentile([scores[score] for scores in want], (2.5, 97.5))
        value = got["slice"][score]["value"]
        assert got["slice"][score]["low"] == pytest.approx(min(low, value))
        assert got["slice"][score]["high"] == pytest.approx(max(high, value))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Accuracy of a coin with p = .8 a patient, 40 patients of 5 equal slices; slices as units: ~60 %."""
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        label, right = np.arange(40) % 2, rng.random(40) < 0.8
        probability = np.where(right == (label == 1), 0.9, 0.1)
        rows = np.repeat(np.arange(40), 5)
        got = metrics.evaluate(label[rows], probability[rows], rows, num_resamples=300, seed=trial)
        hits += got["slice"]["accuracy"]["low"] <= 0.8 <= got["slice"]["accuracy"]["high"]
    assert 0.88 <= hits / 200 <= 0.99


def test_it_is_fast_and_repeats_itself():
    columns = cohort(1, num_patients=175, max_slices=16)
    assert columns[0].size > 1200
    start = time.perf_counter()
    first = metrics.evaluate(*columns)
    assert time.perf_counter() - start < 2
    assert first == metrics.evaluate(*columns)
    assert first != metrics.evaluate(*columns, seed=1)


def test_one_class_is_undefined_not_invented():
    got = metrics.evaluate([1, 1, 1], [0.9, 0.2, 0.8], ["a", "a", "b"])
    assert got["slice"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert got["slice"]["sensitivity"]["value"] == pytest.approx(2 / 3)
    for name in ("auc", "specificity"):
        assert np.isnan(list(got["slice"][name].values())).all()
    assert np.isnan(got["slice"]["accuracy"]["low"])
    assert got["num_degenerate"] == got["num_resamples"]
    with pytest.raises(ValueError, match="both classes"):
        metrics.roc_points([1, 1], [0.1, 0.2])


@pytest.mark.parametrize(
    ("label", "probability", "patient", "message"),
    [
        ([0, 1], [0.5], ["a", "b"], "three columns"),
        ([[0, 1]], [[0.5, 0.5]], [["a", "b"]], "three columns"),
        ([], [], [], "no predictions"),
        ([0, -1], [0.5, 0.5], ["a", "b"], "unlabelled"),
        ([0, 1], [0.5, np.nan], ["a", "b"], "finite"),
        ([0, 1], [0.5, 1.5], ["a", "b"], "within"),
        ([0, 1], [0.5, 0.5], ["a", "a"], "both labels"),
    ],
)
def test_wrong_columns_raise(label, probability, patient, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(label, probability, patient)


def test_roc_runs_from_corner_to_corner_and_encloses_the_auc():
    label, probability, patient = cohort(2)
    false_positive, true_positive = metrics.roc_points(label, probability)
    assert (false_positive[0], true_positive[0], false_positive[-1], true_positive[-1]) == (0, 0, 1, 1)
    area = np.trapezoid(true_positive, false_positive)
    assert area == pytest.approx(
        metrics.evaluate(label, probability, patient, num_resamples=2)["slice"]["auc"]["value"]
    )
