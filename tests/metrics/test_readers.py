import numpy as np
import pytest
from made_up import cohort
from scipy import stats
from sklearn import metrics as reference

from lesion import metrics


def test_a_readers_scores_are_sklearns_with_wilsons_intervals():
    rng = np.random.default_rng(0)
    label = np.arange(50) % 2
    call = np.where(rng.random(50) < 0.8, label, 1 - label)
    got = metrics.reader_scores(label, call, np.arange(50))
    want = {
        "accuracy": reference.accuracy_score(label, call),
        "sensitivity": reference.recall_score(label, call),
        "specificity": reference.recall_score(label, call, pos_label=0),
        "f1_positive": reference.f1_score(label, call),
        "f1_weighted": reference.f1_score(label, call, average="weighted"),
    }
    assert {name: got[name]["value"] for name in want} == pytest.approx(want)
    interval = stats.binomtest(int(call[label == 1].sum()), 25).proportion_ci(method="wilson")
    assert (got["sensitivity"]["low"], got["sensitivity"]["high"]) == pytest.approx((interval.low, interval.high))
    assert got["f1_positive"]["low"] < want["f1_positive"] < got["f1_positive"]["high"]
    one_class = metrics.reader_scores([0, 0], [0, 1], ["a", "b"])
    assert np.isnan([one_class["sensitivity"][k] for k in ("value", "low", "high")]).all()
    assert one_class["accuracy"]["value"] == 0.5


def test_a_model_and_a_reader_are_compared_on_the_patients_of_both():
    columns = cohort(2, 30)
    label, probability, patient = metrics.patient_means(*columns)
    call = 1 - label[:20]
    got = metrics.model_vs_reader(columns, (label[:20], call, patient[:20]))
    right = (probability[:20] > 0.5) == label[:20]
    assert (got["mcnemar"].first_only, got["mcnemar"].neither) == (right.sum(), (~right).sum())
    assert got["mcnemar"].p == pytest.approx(stats.binomtest(int(right.sum()), int(right.sum())).pvalue)
    assert got["accuracy"]["value"] == pytest.approx(right.mean())
    assert (got["num_patients"], got["num_left_out"]) == (20, 10)
    assert "auc" not in got
    same = metrics.model_vs_reader((label, label, patient), (label, label, patient))
    assert same["mcnemar"].p == 1 and same["accuracy"]["value"] == 0


def test_wrong_calls_raise():
    with pytest.raises(ValueError, match="0 or 1"):
        metrics.reader_scores([0, 1], [0, 0.5], ["a", "b"])
    with pytest.raises(ValueError, match="two calls"):
        metrics.reader_scores([0, 0], [0, 1], ["a", "a"])
