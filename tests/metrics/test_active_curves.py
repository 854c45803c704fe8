import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lesion import metrics


def test_band_over_runs_is_the_t_interval():
    curves = np.random.default_rng(0).normal(size=(7, 4))
    band = metrics.mean_band(curves)
    want = stats.t.interval(0.95, 6, curves.mean(0), stats.sem(curves))
    np.testing.assert_allclose(band.mean, curves.mean(0))
    np.testing.assert_allclose((band.low, band.high), want)
    assert (band.num_units == 7).all()


def test_band_over_folds_takes_folds_as_units_and_is_wider():
    rng = np.random.default_rng(0)
    fold = np.repeat(np.arange(5), 3)
    curves = rng.normal(size=(5, 1)).repeat(3, 0) + 0.01 * rng.normal(size=(15, 1))
    band = metrics.mean_band(curves, fold)
    assert (band.num_units == 5).all()
    means = curves.reshape(5, 3).mean(1)
    half = stats.t.ppf(0.975, 4) * np.sqrt(means.var(ddof=1) * (1 / 5 + 1 / 4))
    np.testing.assert_allclose(band.high - band.mean, half)
    naive = metrics.mean_band(curves)
    assert band.high - band.low > 2 * (naive.high - naive.low)
    order = rng.permutation(15)
    shuffled = metrics.mean_band(curves[order], fold[order])
    np.testing.assert_allclose(band.low, shuffled.low)


def test_band_survives_missing_values_and_single_runs():
    band = metrics.mean_band(np.array([[0.5, np.nan, np.nan], [0.7, 0.6, np.nan]]))
    np.testing.assert_allclose(band.mean, [0.6, 0.6, np.nan])
    assert np.isnan(band.low[1:]).all()
    assert band.num_units.tolist() == [2, 1, 0]
    for wrong in (np.zeros(3), np.zeros((0, 3))):
        with pytest.raises(ValueError, match="want curves"):
            metrics.mean_band(wrong)
    with pytest.raises(ValueError, match="one fold"):
        metrics.mean_band(np.zeros((3, 2)), np.zeros(2))


@given(shift=st.floats(-0.5, 0.5), seed=st.integers(0, 100))
def test_a_pair_cancels_what_makes_a_fold_easy(shift, seed):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(10, 3))
    band = metrics.paired_difference(base + shift, base, np.repeat(np.arange(5), 2))
    np.testing.assert_allclose([band.low, band.mean, band.high], np.full((3, 3), shift), atol=1e-9)
    with pytest.raises(ValueError, match="pairs must match"):
        metrics.paired_difference(base, base[:5])


def test_area_and_cost_to_reach_by_hand():
    cost, value = np.array([10.0, 20, 40]), np.array([0.5, 0.7, 0.9])
    assert metrics.area_under_curve(cost, value, 10, 40) == pytest.approx((0.6 * 10 + 0.8 * 20) / 30)
    assert metrics.area_under_curve(cost, value, 15, 30) == pytest.approx((0.65 * 5 + 0.75 * 10) / 15)
    assert metrics.area_under_curve(cost, value, 40, 40) == 0.9
    assert [metrics.cost_to_reach(cost, value, t) for t in (0.4, 0.7, 0.95)] == [10, 20, np.inf]
    assert metrics.shared_budget([cost, cost + 5]) == (15, 40)
