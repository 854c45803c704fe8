import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import cohort, shuffled
from scipy import stats
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from lesion import metrics


def plain_error(label, probability, borders):
    """Bin by bin, row by row."""
    error = 0.0
    for k in range(len(borders) - 1):
        rows = [i for i in range(len(label)) if borders[k] < probability[i] <= borders[k + 1]]
        rows += [i for i in range(len(label)) if k == 0 and probability[i] == 0]
        if rows:
            error += len(rows) / len(label) * abs(np.mean(probability[rows]) - np.mean(label[rows]))
    return error


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), bins=st.integers(1, 15), decimals=st.integers(0, 3))
def test_error_and_points_are_those_of_the_plain_way_and_of_sklearn(seed, bins, decimals):
    label, probability, patient = cohort(seed, 20, decimals=decimals)
    got = metrics.calibration_error(label, probability, bins=bins)
    assert got == pytest.approx(plain_error(label, probability, np.linspace(0, 1, bins + 1)), abs=1e-12)
    points = metrics.reliability(label, probability, patient, bins=bins)
    assert points.rows.sum() == label.size
    assert got == pytest.approx(np.abs(points.predicted - points.observed) @ points.rows / label.size, abs=1e-12)
    observed, predicted = calibration_curve(label, probability, n_bins=bins)
    np.testing.assert_allclose((points.observed, points.predicted), (observed, predicted), atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_scores_are_sklearns_and_do_not_depend_on_the_order_of_rows(seed):
    columns = cohort(seed, decimals=2)
    got = metrics.calibration_scores(*columns, num_draws=40, seed=seed)
    label, probability, _ = metrics.patient_means(*columns)
    for level, (y, p) in {"slice": columns[:2], "patient": (label, probability)}.items():
        assert got[level]["brier"]["value"] == pytest.approx(reference.brier_score_loss(y, p))
        assert got[level]["brier_share"] == pytest.approx(reference.brier_score_loss(y, np.full(y.size, y.mean())))
        assert got[level]["brier"]["low"] <= got[level]["brier"]["value"] <= got[level]["brier"]["high"]
    again = metrics.calibration_scores(*shuffled(columns, seed), num_draws=40, seed=seed)
    assert again["slice"]["ece"] == pytest.approx(got["slice"]["ece"])
    assert list(again["slice"]["brier"].values()) == pytest.approx(list(got["slice"]["brier"].values()))
    assert again["chance"] == pytest.approx(got["chance"])


def test_the_parts_add_up_to_the_brier_score_of_the_bins_means():
    label, probability, _ = cohort(5, 40)
    parts = metrics.brier_parts(label, probability)
    bins = np.minimum((np.ceil(probability * 10) - 1).clip(0), 9).astype(int)
    means = np.array([probability[bins == k].mean() for k in bins])
    want = reference.brier_score_loss(label, means)
    assert parts["reliability"] - parts["resolution"] + parts["uncertainty"] == pytest.approx(want)


def test_slope_and_intercept_are_found_and_hold_the_truth_about_as_often_as_they_say():
    rng, inside = np.random.default_rng(0), []
    for _ in range(200):
        logit = rng.normal(0, 1.5, 100)
        label = (rng.random(100) < 1 / (1 + np.exp(0.5 - logit))).astype(int)
        got = metrics.recalibration(label, 1 / (1 + np.exp(-2 * logit)))  # says it twice as firmly
        inside.append(got["slope"]["low"] <= 0.5 <= got["slope"]["high"])
    assert 0.9 <= np.mean(inside) <= 0.99
    shifted = metrics.recalibration(label, 1 / (1 + np.exp(-logit)))["intercept"]
    assert shifted["low"] < -0.5 < shifted["high"]
    separated = metrics.recalibration(np.arange(20) % 2, 0.2 + 0.6 * (np.arange(20) % 2))
    assert np.isnan(separated["slope"]["value"])


def test_wilson_is_scipys_and_slices_of_one_patient_count_as_one():
    for hits, total in ((0, 5), (3, 7), (40, 40)):
        want = stats.binomtest(hits, total).proportion_ci(method="wilson")
        assert metrics.wilson(hits / total, total) == pytest.approx((want.low, want.high))
    assert np.isnan(metrics.wilson(0.0, 0)).all()
    label, probability, patient = np.array([1, 1, 0, 0]), np.full(4, 0.6), np.arange(4)
    alone = metrics.reliability(label, probability, patient)
    assert alone.effective.tolist() == alone.rows.tolist() == [4]
    copied = metrics.reliability(*(np.repeat(column, 9) for column in (label, probability, patient)))
    assert (copied.low, copied.high, copied.effective) == (alone.low, alone.high, alone.effective)
    assert copied.rows.tolist() == [36]


def test_the_chance_level_covers_calibrated_models_as_often_as_it_says_and_no_overconfident_one():
    rng, inside = np.random.default_rng(0), 0
    for trial in range(150):
        probability = rng.beta(0.8, 0.8, 60)
        label = (rng.random(60) < probability).astype(int)
        got = metrics.calibration_scores(label, probability, np.arange(60), num_draws=200, seed=trial)
        inside += got["patient"]["ece"] <= got["chance"]["high"]
    assert 0.89 <= inside / 150 <= 0.99
    label = np.arange(200) % 2
    sure = np.where(rng.random(200) < 0.75, label, 1 - label) * 0.98 + 0.01  # says 99 %, is right in 75
    got = metrics.calibration_scores(label, sure, np.arange(200), num_draws=200)
    assert got["patient"]["ece"] > 3 * got["chance"]["high"]


def test_edges_hold_what_is_on_them_and_wrong_columns_raise():
    assert metrics.calibration_error([0, 1], [0.0, 1.0]) == 0
    points = metrics.reliability([0, 1, 1], [0.0, 0.5, 1.0], [0, 1, 2], bins=2)
    assert points.rows.tolist() == [2, 1] and points.right.tolist() == [0.5, 1]
    assert np.isnan(metrics.calibration_scores([1], [0.5], ["a"], num_draws=0)["chance"]["high"])
    with pytest.raises(ValueError, match="at least one bin"):
        metrics.reliability([0, 1], [0.1, 0.2], [0, 1], bins=0)
    with pytest.raises(ValueError, match="within"):
        metrics.calibration_error([0, 1], [0.1, 1.2])


def test_the_intercept_gives_the_observed_share():
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.02, 0.98, 400)
    label = (rng.random(400) < metrics.shifted(probability, 1.5)).astype(int)
    intercept = metrics.recalibration(label, probability)["intercept"]["value"]
    assert metrics.shifted(probability, intercept).mean() == pytest.approx(label.mean()) and abs(intercept - 1.5) < 0.4
