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
    got = metrics.evaluate(label, probability, patient)
    mean_label, mean, _ = metrics.patient_means(label, probability, patient)
    for level, want in (
        ("slice", sklearn_scores(label, probability)),
        ("patient", sklearn_scores(mean_label, mean)),
    ):
        assert set(got[level]) == set(metrics.SCORES)
        for name, value in want.items():
            assert got[level][name]["value"] == pytest.approx(value, abs=1e-12), (level, name)
    assert (got["num_slices"], got["num_patients"]) == (label.size, num_patients)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
@example(seed=186)  # two patients whose means are equal but for the rounding
def test_the_order_of_rows_does_not_matter(seed):
    columns = cohort(seed)
    order = np.random.default_rng(seed).permutation(columns[0].size)
    first = metrics.evaluate(*columns)
    second = metrics.evaluate(*(column[order] for column in columns))
    for level in ("slice", "patient"):
        for name in metrics.SCORES:
            for end in ("value", "low", "high"):
                assert first[level][name][end] == pytest.approx(second[level][name][end], abs=1e-12)


def test_it_is_fast_and_repeats_itself():
    columns = cohort(1, num_patients=175, max_slices=16)
    assert columns[0].size > 1200
    start = time.perf_counter()
    first = metrics.evaluate(*columns)
    assert time.perf_counter() - start < 2
    assert first == metrics.evaluate(*columns)


def test_one_class_is_undefined_not_invented():
    got = metrics.evaluate([1, 1, 1], [0.9, 0.2, 0.8], ["a", "a", "b"])
    assert got["slice"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert got["slice"]["sensitivity"]["value"] == pytest.approx(2 / 3)
    for name in ("auc", "specificity"):
        assert np.isnan(list(got["slice"][name].values())).all()
    assert np.isnan(got["patient"]["sensitivity"]["low"])  # of two patients no interval holds
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
    assert area == pytest.approx(metrics.evaluate(label, probability, patient)["slice"]["auc"]["value"])
