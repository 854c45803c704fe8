import json

import numpy as np
import pytest

from lesion.active import curves
from lesion.active.curves import FULL, Name
from lesion.active.program import RoundInfo
from lesion.dataset import Slices
from lesion.metrics import stopping

LABEL = np.array([0, 1, 0, 1, 0, 1, 0, 1])
TRAIN = np.arange(8) < 4
SLICES = Slices(
    np.zeros((8, 1, 1), np.uint8), LABEL, *(np.array([f"{x}{i}" for i in range(8)]) for x in "ps"), None, None
)


def info(quality, slices=(2, 3, 4), entropy=(0.6, 0.25, -np.inf)):
    """A run whose test predictions are right with `quality` [R] in [-1, 1]."""
    rounds = len(quality)
    probs = 0.5 + np.outer(quality, 2 * LABEL - 1) * np.linspace(0.1, 0.4, 8)
    entropies = [np.array(entropy, np.float32)] * 3
    slices = np.array(slices)
    asked = np.array([[0], [1], [2]][:rounds]), np.array([[0.6], [0.5], [-np.inf]][:rounds])
    counts = slices, slices - 1, 0 * slices + 2, 0 * slices
    return RoundInfo(probs.astype(np.float32), *counts, *asked, 0 * slices, *entropies, np.zeros(rounds))


def scored(quality, **kwargs):
    return curves.score(info(quality, **kwargs), SLICES, TRAIN, ~TRAIN)


def test_rows_tell_costs_scores_and_what_stopping_would_have_lost():
    name, run, criteria = (
        Name(0, 1, "entropy"),
        scored([-1, 1, 1]),
        stopping.StoppingCriteria(stabilizing_predictions=0),
    )
    rows = [dict(zip(curves.CURVES, row, strict=True)) for row in curves.curve_rows(name, run, criteria)]
    assert [row["auc"] for row in rows] == [0, 1, 1]
    assert [row["stopped"] for row in rows] == [0, 1, 1]
    assert [row["labeled_patients"] for row in rows] == [1, 2, 3]
    stops = [dict(zip(curves.STOPS, row, strict=True)) for row in curves.stop_rows(name, run, criteria)]
    assert {row["rule"]: (row["round"], row["auc_lost"]) for row in stops} == {"entropy": (1, 0), "exhausted": (2, 0)}
    assert [row[5:7] for row in curves.acquisition_rows(name, run, SLICES)] == [("p0", "s0"), ("p1", "s1")]


@pytest.mark.parametrize("unit", ["slice", "patient"])
def test_the_summary_sets_each_strategy_against_all_labels(unit):
    runs = {Name(f, s, FULL): scored([1, 1, 1], slices=(4, 4, 4)) for f in range(2) for s in range(2)}
    runs |= {Name(f, s, "entropy"): scored([-1, 1, 1]) for f in range(2) for s in range(2)}
    runs |= {Name(f, s, "random"): scored([[-1, 1][f], -1, [1, -1][s]]) for f in range(2) for s in range(2)}
    found = json.loads(json.dumps(curves.summarise(runs, unit), allow_nan=False))
    assert found["full_data"] == {"accuracy": [1.0, 1.0, 1.0], "auc": [1.0, 1.0, 1.0]}
    entropy, random = (found["strategies"][name] for name in ("entropy", "random"))
    assert entropy["area"]["auc"][0] == 0.75
    reached = {"slices": 3, "patients": 2, "reached": 4, "at_start": 0, "runs": 4}
    assert entropy["needed"]["auc"]["0.99"] == reached
    assert random["needed"]["auc"]["0.95"] == {"slices": 3, "patients": 2, "reached": 3, "at_start": 2, "runs": 4}


def test_a_fold_of_one_class_has_no_auc_and_is_left_out():
    one_class = SLICES._replace(label=np.where(TRAIN, LABEL, 0))
    runs = {Name(0, 0, s): scored([1, 1, 1]) for s in (FULL, "entropy")}
    runs |= {Name(1, 0, s): curves.score(info([1, 1, 1]), one_class, TRAIN, ~TRAIN) for s in (FULL, "entropy")}
    found = json.loads(json.dumps(curves.summarise(runs, "slice"), allow_nan=False))
    assert found["full_data"]["auc"] == [1.0, None, None]
    assert found["strategies"]["entropy"]["needed"]["auc"]["0.95"]["runs"] == 1


def test_all_labels_are_as_many_runs_and_their_mean_is_what_strategies_are_held_to():
    runs = {Name(f, s, FULL): scored([1, 1, [1, -1][s]], slices=(4, 4, 4)) for f in range(3) for s in range(2)}
    runs |= {Name(f, s, "entropy"): scored([-1, [-1, 1][s], -1]) for f in range(3) for s in range(2)}
    found = curves.summarise(runs, "slice")
    assert found["full_data"]["auc"] == [0.5, 0.5, 0.5]
    assert found["strategies"]["entropy"]["needed"]["auc"]["0.99"]["reached"] == 3  # above half of 1 and 0


def test_an_exhausted_pool_ends_a_run_and_areas_end_with_the_first():
    run = info([-1, 1, 1])
    assert curves.until_exhausted(run).max_entropy.tolist() == pytest.approx([0.6, 0.25])
    assert len(curves.until_exhausted(info([1, 1], (2, 3), (0.6, 0.5))).probs) == 2
    runs = {Name(f, 0, FULL): scored([1, 1, 1], slices=(4, 4, 4)) for f in range(2)}
    runs |= {
        Name(0, 0, "entropy"): scored([-1, 1, -1]),
        Name(1, 0, "entropy"): scored([-1, 1], slices=(2, 3), entropy=(1, 1)),
    }
    assert curves.summarise(runs, "slice")["strategies"]["entropy"]["area"]["auc"][0] == 0.5  # not 0 at four slices
