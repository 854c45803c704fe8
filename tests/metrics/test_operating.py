import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion import metrics

GOLDENS = Path(__file__).parents[1] / "goldens"


@pytest.mark.parametrize("prevalence", [None, 0.1])
def test_net_benefit_is_that_of_dcurves(prevalence):
    golden = json.loads((GOLDENS / "dcurves.json").read_text())
    columns = json.loads((GOLDENS / "proc.json").read_text())["cohorts"][-1]
    label, probability = np.array(columns["label"]).astype(int), np.array(columns["first"])
    model, every = metrics.net_benefit(label, probability, np.array(golden["thresholds"]), prevalence)
    want = golden["net_benefit"][str(prevalence)]
    np.testing.assert_allclose((model, every), (want["first"], want["all"]), atol=1e-12)


@pytest.mark.parametrize(("fixed", "edge"), [("sensitivity", 0.3), ("specificity", 0.4)])
def test_a_threshold_reaches_its_aim_on_the_other_folds_and_does_not_see_its_own(fixed, edge):
    # In fold 1 gliomas have .3 to .9 and encephalitides .1 to .5: these fix the threshold that calls fold 0.
    label = np.repeat([1, 0, 1, 0], [7, 5, 3, 3])
    probability = np.concatenate([np.arange(3, 10), np.arange(1, 6), [2, 3, 4], [3, 4, 5]]) / 10
    fold = np.repeat([1, 0], [12, 6])
    called = metrics.held_out_calls(label, probability, fold, fixed, {"sensitivity": 1.0, "specificity": 0.8}[fixed])
    own = probability[fold == 0]
    assert called[fold == 0].tolist() == (own >= edge if fixed == "sensitivity" else own > edge).tolist()
    point = metrics.operating_point(label, probability, fold, fixed)
    assert point["sensitivity"]["value"] == pytest.approx(
        metrics.held_out_calls(label, probability, fold, fixed)[label == 1].mean()
    )


def test_predictive_values_are_bayes():
    positive, negative = metrics.predictive_values(0.9, 0.8, 0.1)
    assert (positive, negative) == pytest.approx((0.09 / 0.27, 0.72 / 0.73))
    assert np.isnan(metrics.predictive_values(0.0, 1.0, 0.5)[0])
    with pytest.raises(ValueError, match="no patient of the other folds"):
        metrics.held_out_calls(np.ones(4), np.full(4, 0.5), np.arange(4), "specificity")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=30))
def test_no_threshold_has_a_greater_youden_index(rows):
    label, probability = (np.array(column) for column in zip(*rows, strict=True))
    label, probability = label.astype(int), probability / 6
    if np.unique(label).size < 2:
        with pytest.raises(ValueError, match="both classes"):
            metrics.youden_threshold(label, probability)
        return

    def youden(threshold):
        return sum(score["value"] for score in metrics.scores_of_calls(label, probability > threshold).values()) - 1

    best = metrics.youden_threshold(label, probability)
    assert 0 <= best <= 1 and (best in (0, 1) or best not in probability)
    assert youden(best) == pytest.approx(max(youden(t) for t in np.linspace(-1 / 12, 13 / 12, 15)))


def test_scores_of_calls_by_hand():
    scores = metrics.scores_of_calls(np.array([1, 1, 1, 0]), np.array([True, True, False, False]))
    assert (scores["sensitivity"]["value"], scores["specificity"]["value"]) == (pytest.approx(2 / 3), 1)
    assert np.isnan(metrics.scores_of_calls(np.array([1]), np.array([True]))["specificity"]["value"])
