import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from lesion.metrics import external


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=30))
def test_no_threshold_has_a_greater_youden_index(rows):
    label, probability = (np.array(column) for column in zip(*rows, strict=True))
    label, probability = label.astype(int), probability / 6
    if np.unique(label).size < 2:
        with pytest.raises(ValueError, match="both classes"):
            external.youden_threshold(label, probability)
        return

    def youden(threshold):
        scores = external.scores_at(label, probability, threshold)
        return scores["sensitivity"]["value"] + scores["specificity"]["value"] - 1

    best = external.youden_threshold(label, probability)
    assert 0 <= best <= 1 and not np.isin(best, probability[probability > 0])
    assert youden(best) == pytest.approx(max(youden(t) for t in np.linspace(-1 / 12, 13 / 12, 15)))


def test_the_intercept_is_that_of_a_regression_with_offset():
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.02, 0.98, 400)
    label = (rng.random(400) < expit(logit(probability) + 1.5)).astype(int)
    shift = external.intercept_shift(label, probability)
    assert external.shifted(probability, shift).mean() == pytest.approx(label.mean())
    # a regression on the logit itself, unpenalised, finds about the same intercept and a slope of about 1
    fit = LogisticRegression(C=1e6).fit(logit(probability)[:, None], label)
    assert abs(fit.intercept_[0] - shift) < 0.15 and abs(shift - 1.5) < 0.3
    with pytest.raises(ValueError, match="both classes"):
        external.intercept_shift(np.ones(3), np.full(3, 0.5))


def test_scores_at_a_threshold_by_hand():
    scores = external.scores_at(np.array([1, 1, 1, 0]), np.array([0.9, 0.4, 0.3, 0.3]), 0.3)  # 0.3 is not above it
    assert scores["sensitivity"]["value"] == pytest.approx(2 / 3) and scores["specificity"]["value"] == 1
    assert scores["accuracy"] == pytest.approx({"value": 0.75, "low": 0.3006, "high": 0.9544}, abs=1e-4)
    one_class = external.scores_at(np.array([1]), np.array([0.9]), 0.5)["specificity"]
    assert np.isnan(list(one_class.values())).all()
