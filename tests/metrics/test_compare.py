import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import cohort, second_model, shuffled
from scipy import stats

from lesion import metrics


def plain_delong(label, first, second):
    """Structural components by comparing every pair, O(mn), and their covariance matrices (DeLong et al. 1988)."""
    positive, negative = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    v10, v01 = [], []
    for p in (first, second):
        wins = (p[positive][:, None] > p[negative]) + 0.5 * (p[positive][:, None] == p[negative])
        v10.append(wins.mean(1))
        v01.append(wins.mean(0))
    s = np.cov(v10) / len(positive) + np.cov(v01) / len(negative)
    return np.mean(v10, 1), s[0, 0] + s[1, 1] - 2 * s[0, 1]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), num_patients=st.integers(6, 40), decimals=st.integers(1, 3))
def test_delong_is_that_of_all_pairs_and_swaps_its_sign(seed, num_patients, decimals):
    label, first, _ = columns = cohort(seed, num_patients, max_slices=1, decimals=decimals)
    _, second, _ = second_model(columns, seed, decimals=decimals)
    (auc_a, auc_b), variance = plain_delong(label, first, second)
    got, swapped = metrics.delong(label, first, second), metrics.delong(label, second, first)
    assert (got.first, got.second) == pytest.approx((auc_a, auc_b))
    if variance > 1e-12:
        assert got.z == pytest.approx((auc_a - auc_b) / np.sqrt(variance), abs=1e-6)
        assert (swapped.z, swapped.p) == pytest.approx((-got.z, got.p))
    order = np.random.default_rng(seed).permutation(label.size)
    assert metrics.delong(label[order], first[order], second[order]) == pytest.approx(got, nan_ok=True)
    same = metrics.delong(label, first, first**3)
    assert (same.difference, same.z, same.p) == (0, 0, 1)


def test_delong_by_hand():
    """Gliomas .8 .4 .6, encephalitides .5 .3 against .7 .6 .2, .65 .1: the components are multiples of 1/2, 1/3."""
    label = np.array([1, 1, 1, 0, 0])
    got = metrics.delong(label, np.array([0.8, 0.4, 0.6, 0.5, 0.3]), np.array([0.7, 0.6, 0.2, 0.65, 0.1]))
    # V10: 1, 1/2, 1 against 1, 1/2, 1/2; V01: 2/3, 1 against 1/3, 1. Differences 0, 0, 1/2 and 1/3, 0.
    variance = (1 / 12) / 3 + (1 / 18) / 2
    assert (got.first, got.second, got.difference) == pytest.approx((5 / 6, 2 / 3, 1 / 6))
    assert got.z == pytest.approx((1 / 6) / np.sqrt(variance)) == pytest.approx(1 / np.sqrt(2))


def test_delong_gives_no_answer_where_there_is_none():
    label = np.array([0, 0, 1, 1])
    perfect, nothing = np.array([0.1, 0.2, 0.8, 0.9]), np.full(4, 0.5)
    got = metrics.delong(label, perfect, nothing)
    assert (got.first, got.second, got.difference) == (1, 0.5, 0.5) and np.isnan([got.p, got.z]).all()
    assert np.isnan(metrics.delong(label[1:], perfect[1:], nothing[1:]).p)  # one encephalitis: no variance
    assert np.isnan(metrics.delong(np.ones(3), perfect[1:], nothing[1:])).all()


def test_delong_rejects_a_true_null_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        label, shared = np.arange(80) % 2, rng.normal(size=80)
        first, second = (stats.norm.cdf(label + shared + rng.normal(size=80)) for _ in range(2))
        hits += metrics.delong(label, first, second).p < 0.05
    assert 0.02 <= hits / 400 <= 0.085


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_swapping_models_flips_the_sign_and_the_order_of_rows_does_not_matter(seed):
    first = cohort(seed, 15, decimals=2)
    second = second_model(first, seed, decimals=2)
    got = metrics.differences(first, second)
    swapped = metrics.differences(second, shuffled(first, seed))
    same = metrics.differences(first, shuffled(first, seed))
    for level in ("slice", "patient"):
        for score in metrics.SCORES:
            a, b, c = (result[level][score] for result in (got, swapped, same))
            assert (a["value"], a["low"]) == pytest.approx((-b["value"], -b["high"]), abs=1e-12, nan_ok=True)
            assert c["value"] == pytest.approx(0, abs=1e-12) and not c["low"] > 0 and not c["high"] < 0
            assert a.get("p") == pytest.approx(b.get("p"), nan_ok=True) and c.get("p", 1) == 1


def test_differences_are_those_of_evaluate_and_their_p_those_of_the_tests():
    first = cohort(3, 20)
    second = second_model(first, 3)
    got = metrics.differences(first, second)
    ours, theirs = (metrics.evaluate(*columns) for columns in (first, second))
    for level in ("slice", "patient"):
        for score in metrics.SCORES:
            want = ours[level][score]["value"] - theirs[level][score]["value"]
            assert got[level][score]["value"] == pytest.approx(want, abs=1e-12)
    (label, own, _), (_, other, _) = (metrics.patient_means(*columns) for columns in (first, second))
    right = [(probability > 0.5) == label for probability in (own, other)]
    assert got["patient"]["auc"]["p"] == metrics.delong(label, own, other).p
    assert got["patient"]["accuracy"]["p"] == metrics.mcnemar(*right).p
    assert got["patient"]["specificity"]["p"] == metrics.mcnemar(*(calls[label == 0] for calls in right)).p
    assert "p" not in got["slice"]["auc"]


def test_only_patients_of_both_are_compared_and_the_rest_is_counted():
    label, probability, patient = cohort(1, 20)
    early, late = patient < "p015", patient >= "p004"
    got = metrics.differences(
        (label[early], probability[early], patient[early]), (label[late], 1 - probability[late], patient[late])
    )
    assert (got["num_patients"], got["num_left_out"]) == (11, 9)
    both = early & late
    want = metrics.evaluate(label[both], probability[both], patient[both])["slice"]["auc"]["value"]
    assert got["slice"]["auc"]["first"] == pytest.approx(want)
    with pytest.raises(ValueError, match="no patient in common"):
        metrics.differences((label, probability, patient), (label, probability, np.char.add(patient, "x")))
    with pytest.raises(ValueError, match="20 patients have another label"):
        metrics.differences((label, probability, patient), (1 - label, probability, patient))


def test_one_class_defines_no_difference_of_aucs_and_no_p():
    got = metrics.differences(([1, 1], [0.9, 0.2], ["a", "b"]), ([1, 1], [0.9, 0.8], ["a", "b"]))
    assert got["patient"]["accuracy"]["value"] == pytest.approx(-0.5)
    assert np.isnan([got["patient"]["auc"][k] for k in ("value", "low", "high", "p")]).all()
    assert got["patient"]["accuracy"]["p"] == 1 and np.isnan(got["patient"]["specificity"]["p"])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_mcnemar_is_the_binomial_test_of_those_that_differ(pairs):
    first, second = np.array(pairs).T
    got = metrics.mcnemar(first, second)
    assert (got.both, got.first_only, got.second_only, got.neither) == tuple(
        sum(pair == want for pair in pairs) for want in ((True, True), (True, False), (False, True), (False, False))
    )
    less, total = min(got.first_only, got.second_only), got.first_only + got.second_only
    assert got.p == pytest.approx(min(1.0, 2 * stats.binom.cdf(less, total, 0.5)))
    assert metrics.mcnemar(second, first).p == got.p and metrics.mcnemar(first, first).p == 1


def test_holm_by_hand():
    np.testing.assert_allclose(metrics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(metrics.holm([0.01, np.nan, 0.03]), [0.02, np.nan, 0.03])
    assert metrics.holm([]).size == 0 and metrics.holm([0.7, 0.8]).tolist() == [1, 1]
    for broken in (lambda: metrics.holm([[0.1]]), lambda: metrics.mcnemar([True], [True, False])):
        with pytest.raises(ValueError, match="want"):
            broken()


def test_means_over_models_draw_each_patient_for_all_of_them_at_once():
    first = cohort(6, 40)
    second = second_model(first, 6)
    scores = [metrics.evaluate(*columns)["slice"] for columns in (first, second)]
    for score, entry in metrics.mean_scores([first]).items():  # of one model: the very interval of `metrics.evaluate`
        assert entry == pytest.approx(scores[0][score]), score
    for score, entry in metrics.mean_scores([first, second]).items():
        assert entry["value"] == pytest.approx((scores[0][score]["value"] + scores[1][score]["value"]) / 2)
    # Models of the same predictions, patients in another order: the interval is that of one.
    twice = metrics.mean_scores([first, shuffled(first, 0)])["auc"]
    assert twice == pytest.approx(scores[0]["auc"])
