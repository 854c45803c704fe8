"""Intervals against pROC (tests/goldens/proc.R), against published examples, and at their limits."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import cohort, second_model
from scipy import special, stats

from lesion import metrics
from lesion.metrics import estimates as est
from lesion.metrics import intervals

GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "proc.json").read_text())


@pytest.mark.parametrize("golden", GOLDEN["cohorts"], ids=["27 patients", "35, many ties", "100"])
def test_auc_variance_covariance_and_test_are_those_of_proc(golden):
    label = np.array(golden["label"]).astype(int)
    scores = [np.array(golden[name]) for name in ("first", "second")]
    found = [est.estimates(label, score, np.arange(label.size), label.size)["auc"] for score in scores]
    assert [own.value for own in found] == pytest.approx(golden["auc"], rel=1e-12)
    assert [own.variance for own in found] == pytest.approx(golden["variance"], rel=1e-12)
    assert found[0].influence @ found[1].influence == pytest.approx(golden["covariance"][0], rel=1e-9)
    test = metrics.delong(label, *scores)
    assert test.z == pytest.approx(golden["z"][0], rel=1e-9)
    assert 2 * stats.norm.sf(abs(test.z)) == pytest.approx(golden["p"][0])
    assert test.p == pytest.approx(2 * stats.t.sf(abs(test.z), test.df)) and golden["p"][0] <= test.p
    for own in found:  # symmetric on the logit scale
        low, high = est.ends(own)
        assert special.logit(low) + special.logit(high) == pytest.approx(2 * special.logit(own.value))


@pytest.mark.parametrize("golden", GOLDEN["shares"], ids=lambda golden: f"{golden['hits']} of {golden['total']}")
def test_shares_have_the_score_interval_of_r(golden):
    hits, total = golden["hits"], golden["total"]
    one_a_patient = est.share("accuracy", (np.arange(total) < hits).astype(float), np.ones(total))
    want = golden["interval"] if total >= 6 else (np.nan, np.nan)  # with fewer patients it does not hold
    assert est.ends(one_a_patient) == pytest.approx(want, abs=1e-9, nan_ok=True)
    assert metrics.wilson(hits / total, total) == pytest.approx(golden["interval"], abs=1e-9)


def paired(both, first_only, second_only, neither):
    """Two models' shares of right calls, from the patients that both, one or none called right."""
    counts = both, first_only, second_only, neither
    calls = (np.repeat(right, counts).astype(float) for right in ((1, 1, 0, 0), (1, 0, 1, 0)))
    return tuple(est.share("accuracy", right, np.ones(right.size)) for right in calls)


@pytest.mark.parametrize(
    ("counts", "want"),
    [((36, 12, 2, 0), (0.0569, 0.3404)), ((2, 2, 2, 2), (-0.4027, 0.4027)), ((0, 30, 0, 0), (0.8395, 1.0))],
    ids=["Newcombe 1998", "nothing to tell", "every pair differs"],
)
def test_differences_of_shares_are_newcombes(counts, want):
    first, second = paired(*counts)
    assert est.difference_ends(first, second) == pytest.approx(want, abs=1e-4)
    assert est.difference_ends(second, first) == pytest.approx([-end for end in reversed(want)], abs=1e-4)


def test_an_auc_without_errors_has_the_lower_bound_of_newcombes_fifth_method():
    label = np.arange(20) % 2
    found = est.estimates(label, label.astype(float), np.arange(20), 20)["auc"]
    low, high = est.ends(found)
    variance = low * (1 - low) * (1 + 9 * (1 - low) / (2 - low) + 9 * low / (1 + low)) / 100
    assert high == 1 and 1 - low == pytest.approx(stats.norm.ppf(0.975) * np.sqrt(variance))
    assert intervals.auc_score_interval(0.0, 10, 10) == pytest.approx((0, 1 - low))
    low, high = est.difference_ends(found, found)
    assert low < 0 < high and high == pytest.approx(-low)
    nothing = est.estimates(label, np.full(20, 0.5), np.arange(20), 20)["auc"]
    low, high = est.ends(nothing)
    assert low < 0.35 and high > 0.65


def test_with_as_many_slices_a_patient_the_variance_is_obuchowskis():
    label, first, patient = cohort(4, 14, max_slices=1)
    rng, num = np.random.default_rng(0), 5
    label, patient = np.repeat(label, num), np.repeat(np.arange(14), num)
    score = np.clip(np.repeat(first, num) + 0.2 * rng.normal(size=label.size), 0, 1)
    positive, negative = score[label == 1], score[label == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = 0.0
    for rows, members in ((wins.mean(1), patient[label == 1]), (wins.mean(0), patient[label == 0])):
        sums = np.array([rows[members == p].sum() - num * wins.mean() for p in np.unique(members)])
        variance += sums.size / (sums.size - 1) * (sums**2).sum() / rows.size**2
    found = est.estimates(label, score, patient, 14)["auc"]
    assert (found.value, found.variance) == pytest.approx((wins.mean(), variance))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), num_patients=st.integers(2, 30), decimals=st.integers(0, 3), signal=st.floats(0, 9))
def test_no_interval_leaves_its_range_or_misses_its_score(seed, num_patients, decimals, signal):
    columns = cohort(seed, num_patients, signal=signal, decimals=decimals)
    other = second_model(columns, seed, decimals=decimals)
    for level, scores in metrics.differences(columns, other).items():
        if level in ("slice", "patient"):
            for score, own in metrics.evaluate(*columns)[level].items():
                change = scores[score]
                assert np.isnan(own["low"]) or 0 <= own["low"] <= own["value"] <= own["high"] <= 1
                assert np.isnan(change["low"]) or -1 <= change["low"] <= change["value"] <= change["high"] <= 1
    # Copies of a patient's rows are no new patients: they make no interval narrower.
    copied = [np.repeat(column, 3) for column in metrics.patient_means(*columns)]
    ours, once = metrics.evaluate(*copied)["slice"]["auc"], metrics.evaluate(*columns)["patient"]["auc"]
    assert ours["value"] == pytest.approx(once["value"])
    assert np.isnan(ours["low"]) or (ours["low"] < once["low"] + 1e-9 and ours["high"] > once["high"] - 1e-9)


def test_the_corrected_interval_is_wider_than_that_of_independent_folds():
    scores = np.array([0.8, 0.7, 0.9, 0.75, np.nan, 0.85])
    low, high = metrics.corrected_interval(scores, 5)
    known = scores[np.isfinite(scores)]
    error = known.std(ddof=1) * np.sqrt(1 / 5 + 1 / 4)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 4, known.mean(), error))
    assert metrics.corrected_interval(np.array([1.0, 0.2]), 2) == (0, 1)
    assert np.isnan(metrics.corrected_interval(np.array([0.5]), 5)).all()
