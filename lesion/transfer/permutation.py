"""The control that there is nothing to find in labels dealt at random: a permutation test on a network's features.

The head is small, fixed and named: logistic regression on the frozen features of the unaugmented slices, not the
network of Tables 3 to 5, which would have to be trained hundreds of times. With each shuffle of the patients' labels
the folds are dealt anew too: folds stratified by the true labels would push the AUC of others below one half.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lesion import metrics
from lesion.dataset import UNLABELED, splits
from lesion.errors import Interrupted
from lesion.files import write_csv
from lesion.progress import track
from lesion.runs import processes, rundir
from lesion.transfer.loading import Setup
from lesion.transfer.methods import frozen_features

HEAD = "logistic regression on frozen features"
PENALTY = 0.01  # C of the regression, small as there are a thousand standardised features for some hundred slices
NUM_SHUFFLES = 200
FILE, COLUMNS = "permutations.csv", ("shuffle", "slice", "patient")
TRUE = -1  # the number of the shuffle that leaves the labels as they are


def cross_validate(x: np.ndarray, label: np.ndarray, patient: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Returns the head's test scores (log odds), float64 [N], of a cross-validation.

    Args:
        x: features [N, D].
        label: int [N] in {0, 1}.
        patient: pseudonyms, str [N]; whole patients are in one fold.
        num_folds: number of folds.
        seed: of the folds.
    """
    assert x.ndim == 2 and x.shape[:1] == label.shape == patient.shape, (x.shape, label.shape, patient.shape)
    score = np.zeros(len(label))
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed).split(x, label, patient)
    for train, test in folds:
        head = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=2000))
        score[test] = head.fit(x[train], label[train]).decision_function(x[test])
    return score


def run_permutation(config: ConfigDict, setup: Setup, workdir: Path) -> dict[str, Any] | None:
    """Runs the test on one sequence; returns the metrics, or None if the run was finished before.

    Args:
        config: the run's configuration; its backbone's frozen features are used whatever its mode is.
        setup: the result of `loading.load`.
        workdir: the run's folder; gets config.json, permutations.csv and, last, metrics.json, with the head's name, and
            for slices and patients the AUC of the true labels, the mean of the shuffles' AUCs, its standard error, the
            range of 95 % of them, and p, the share of AUCs at least as high as the true one's, itself included.
    """
    if rundir.open_run(workdir, setup.run):
        return None
    known = setup.slices.label != UNLABELED
    x, patient = np.asarray(frozen_features(config, setup)[:, 0], np.float32)[known], setup.slices.patient[known]
    rows = []
    with processes.handle_sigterm() as stop:
        for shuffle in track(f"shuffled labels {config.sequence}", range(TRUE, NUM_SHUFFLES), NUM_SHUFFLES + 1):
            label = setup.slices.label[known]
            if shuffle != TRUE:
                label = splits.shuffled(label, patient, shuffle)
            score = cross_validate(x, label, patient, config.num_folds, config.seed + 1 + shuffle)
            rows.append((shuffle, *aucs(label, score, patient)))
            if stop.requested():
                raise Interrupted("stopped: the permutation test begins anew, it takes minutes")
    found = np.array([row[1:] for row in rows])
    result: dict[str, Any] = {"head": HEAD, "num_shuffles": NUM_SHUFFLES}
    for level, (true, *others) in zip(("slice", "patient"), found.T.tolist(), strict=True):
        low, high = np.percentile(others, (2.5, 97.5))
        at_least = 1 + int((np.array(others) >= true - 1e-12).sum())
        result[level] = {
            "true": true,
            "mean": float(np.mean(others)),
            "error": float(np.std(others, ddof=1) / np.sqrt(len(others))),
            "low": float(low),
            "high": float(high),
            "p": at_least / (1 + len(others)),
        }
    if processes.is_first():
        write_csv(workdir / FILE, COLUMNS, rows)
        rundir.finish(workdir, result)
    return result


def aucs(label: np.ndarray, score: np.ndarray, patient: np.ndarray) -> tuple[float, float]:
    """Returns the AUC of slices and that of patients, by the mean score of a patient's slices.

    Args:
        label: int [N] in {0, 1}.
        score: float64 [N].
        patient: pseudonyms, str [N].
    """
    scores = metrics.evaluate(label, expit(score), patient)
    return scores["slice"]["auc"]["value"], scores["patient"]["auc"]["value"]
