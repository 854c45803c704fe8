import numpy as np
import pytest

from lesion.benchmarks import coverage
from lesion.metrics import SCORES
from lesion.metrics.estimates import estimates

NUM_COHORTS = 150


def test_the_truths_are_those_of_a_large_cohort():
    setting = coverage.Setting("slice", 40_000, 0.9, 0.35)
    label, probabilities, patient = coverage.draw(setting, np.random.default_rng(0))
    for probability, truth in zip(probabilities, coverage.truths(setting), strict=True):
        found = estimates(label, probability, patient, 40_000)
        assert {score: found[score].value for score in SCORES} == pytest.approx(truth, abs=0.01)


@pytest.mark.parametrize("level", ["patient", "slice"])
@pytest.mark.parametrize(("size", "auc", "prevalence"), [(20, 0.9, 0.5), (60, 0.97, 0.2)])
def test_intervals_hold_the_truth_as_often_as_they_say(level, size, auc, prevalence):
    found = list(coverage.measure(coverage.Setting(level, size, auc, prevalence), NUM_COHORTS))
    assert len(found) == 2 * len(SCORES)
    for own in found:
        assert not coverage.wanting(own, NUM_COHORTS), own
        few = size == 20 and own.score == "auc" and level == "slice"  # it needs twelve patients of each class
        assert few or own.shown > 0.3, own


def test_the_table_marks_what_is_wanting_and_what_is_too_wide():
    settings = [coverage.Setting("patient", 20, auc, 0.2) for auc in (0.6, 0.9)]
    found = [
        coverage.Coverage(setting, "auc", False, held, 0.5) for setting, held in zip(settings, (0.8, 0.99), strict=True)
    ]
    rows = {row[0]: row[1] for row in coverage.table(found)}
    assert rows["auc of patients"] == "80.0!–99.0+ (50 %)" and rows["auc of slices"] == "–"
