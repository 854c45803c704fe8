import numpy as np
import pytest

from lesion.metrics import stopping


def test_agreement_is_cohens_kappa():
    probs = np.array([[0.9, 0.1, 0.9, 0.1], [0.9, 0.1, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1], [0.1] * 4, [0.1] * 4])
    found = stopping.agreement(probs)
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], [0.5, 1, 0, 1])


def trace(**changes):
    start = dict(labeled_slices=[40, 50, 60, 70, 80], labeled_patients=[9, 10, 12, 14, 15], labeled_classes=[2] * 5)
    start |= dict(max_entropy=[0.6, 0.5, 0.4, 0.31, 0.2], agreement=[np.nan, 0.9, 0.99, 1.0, 1.0])
    return stopping.Trace(**{name: np.array(value) for name, value in (start | changes).items()})


RULES = {
    "the paper's": (trace(), dict(stabilizing_predictions=0), {"entropy": 4}),
    "a budget in slices": (trace(), dict(entropy=0, stabilizing_predictions=0, slices=55), {"slices": 2}),
    "a budget in patients": (trace(), dict(entropy=0, stabilizing_predictions=0, patients=14), {"patients": 3}),
    "stabilizing predictions": (trace(), dict(entropy=0), {"stabilizing_predictions": 4}),
    "no agreement yet": (trace(agreement=[np.nan, 1, 1, 0.5, 1]), dict(entropy=0), {}),
    "an empty pool": (
        trace(max_entropy=[0.6, 0.5, 0.4, -np.inf, -np.inf]),
        dict(stabilizing_predictions=0),
        {"exhausted": 3},
    ),
    "nothing more after it": (trace(max_entropy=[0.6, 0.5, 0.4, -np.inf, -np.inf]), dict(entropy=0), {"exhausted": 3}),
    "one class is no model": (
        trace(max_entropy=[0.01, 0.02, 0.4, 0.31, 0.2], labeled_classes=[1, 1, 2, 2, 2]),
        dict(stabilizing_predictions=0),
        {"entropy": 4},
    ),
    "nor do its rounds agree": (
        trace(agreement=[np.nan, 1, 1, 1, 1], labeled_classes=[1, 1, 1, 2, 2], max_entropy=[0.6] * 5),
        dict(),
        {},
    ),
    "no rule": (trace(), dict(entropy=0.1, stabilizing_predictions=0), {}),
}


@pytest.mark.parametrize(("seen", "criteria", "want"), RULES.values(), ids=RULES)
def test_rules_stop_where_they_should(seen, criteria, want):
    assert stopping.stops(seen, stopping.StoppingCriteria(**criteria)) == want
