import numpy as np
import pandas as pd
import pytest

from lesion.metrics import active_runs, stopping


def entropy_runs(runs):
    """Returns runs of the strategy entropy, one a fold: their largest entropies left, and an accuracy that rises."""
    rows = [
        (str(fold), "0", "entropy", r, 400 + 50 * r, 40 + r, 0.7 + 0.1 * r, 1.0, entropy, 0.0, 0.0, np.nan)
        for fold, entropies in enumerate(runs)
        for r, entropy in enumerate(entropies)
    ]
    columns = "fold seed strategy round labeled_slices labeled_patients accuracy auc"
    entropies = "max_entropy mean_entropy p95_entropy agreement"
    return pd.DataFrame(rows, columns=[*columns.split(), *entropies.split()])


def test_runs_of_unequal_length_are_cut_to_what_all_reached():
    (curve,) = active_runs.mean_curves(entropy_runs([[0.6] * 5, [0.6] * 3]))
    assert curve.costs["slices"].tolist() == [400, 450, 500]
    assert (curve.num_runs, curve.num_folds) == (2, 2)


def test_a_difference_is_of_the_pairs_and_rounds_that_both_strategies_have():
    ours, theirs = entropy_runs([[0.6] * 4, [0.6] * 3]), entropy_runs([[0.6] * 3]).assign(strategy="random")
    theirs["accuracy"] -= 0.05
    found = active_runs.difference_to_random(pd.concat([ours, theirs]), "entropy")
    assert (found.num_pairs, found.slices.tolist()) == (1, [400, 450, 500])
    assert found.overall["accuracy"][0] == pytest.approx(0.05) and found.overall["auc"][0] == 0


def test_delta_stops_where_entropy_falls_below_it_but_not_on_an_empty_pool():
    runs = entropy_runs([[0.6, 0.2, 0.1], [0.6, 0.5, -np.inf]])
    found, exhausted = active_runs.stops_of_runs(runs, "entropy", stopping.StoppingCriteria())
    assert (found.rule, found.num_stopped, found.num_runs, found.slices) == ("entropy", 1, 2, (450, 450, 450))
    assert found.regret[0] == pytest.approx(0.1)
    assert np.isnan(found.regret[1:]).all()
    assert (exhausted.rule, exhausted.num_stopped) == ("exhausted", 1)
    strict = active_runs.stops_of_runs(runs, "entropy", stopping.StoppingCriteria(entropy=0.05))
    assert strict[0].num_stopped == 0 and np.isnan(strict[0].slices).all()
    assert active_runs.stops_of_runs(runs, "entropy", stopping.StoppingCriteria(), "mean")[0].num_stopped == 2
