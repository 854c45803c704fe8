import numpy as np
import pandas as pd
import pytest

from lesion.metrics import active_runs, stopping


def entropy_runs(runs):
    """Returns runs of the strategy entropy, one a fold: their largest entropies left, and an accuracy that rises."""
    rows = [
        (
            str(fold),
            "0",
            "entropy",
            r,
            400 + 50 * r,
            40 + r,
            2,
            0.7 + 0.1 * r,
            1.0,
            entropy,
            0.0,
            0.0,
            np.nan,
            7 * (r == 1),
            0.2 * r,
        )
        for fold, entropies in enumerate(runs)
        for r, entropy in enumerate(entropies)
    ]
    columns = "fold seed strategy round labeled_slices labeled_patients labeled_classes accuracy auc"
    entropies = "max_entropy mean_entropy p95_entropy agreement num_tied sure_share"
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
    assert (found.rule, found.num_stopped, found.num_runs, found.costs["slices"]) == ("entropy", 1, 2, (450, 450, 450))
    assert found.regret["accuracy"][0] == pytest.approx(0.1) and found.regret["auc"][0] == 0
    assert np.isnan(found.regret["accuracy"][1:]).all() and found.costs["patients"] == (41, 41, 41)
    assert (exhausted.rule, exhausted.num_stopped) == ("exhausted", 1)
    strict = active_runs.stops_of_runs(runs, "entropy", stopping.StoppingCriteria(entropy=0.05))
    assert strict[0].num_stopped == 0 and np.isnan(strict[0].costs["slices"]).all()
    one_class = runs.assign(labeled_classes=1)
    assert active_runs.stops_of_runs(one_class, "entropy", stopping.StoppingCriteria())[0].num_stopped == 0


def test_strategies_stand_side_by_side_where_all_of_a_pair_have_been():
    runs = entropy_runs([[0.6] * 4, [0.6] * 4, [0.6] * 2])
    others = {"random": -0.05, "badge": 0.02}
    table = pd.concat([runs, *(runs.assign(strategy=n, accuracy=runs["accuracy"] + d) for n, d in others.items())])
    found = active_runs.standing(table, 525)  # halfway from the third round to the fourth; the third fold ends before
    assert found.num_pairs == 2 and found.lead["accuracy"][:2] == ("badge", "entropy")
    assert found.to_random["accuracy"]["entropy"][0] == pytest.approx(0.05)
    assert found.to_random["accuracy"]["badge"][0] == pytest.approx(0.07)
    assert found.lead["accuracy"][2][0] == pytest.approx(0.02)
    assert active_runs.standing(table, 399) is None and active_runs.standing(runs, 450) is None


def test_how_far_chance_decided_is_counted():
    runs = entropy_runs([[0.6] * 4, [0.6] * 3])
    assert active_runs.ties(runs, "entropy") == (2, 7)
    np.testing.assert_allclose(active_runs.sure_shares(runs, "entropy"), [0, 0.2, 0.4])
