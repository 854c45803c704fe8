"""A classical classifier on a network's features: feature selection and a support vector machine (Table 7, [12])."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from lesion.errors import UserError

CALIBRATION_FOLDS = 5  # largest number of folds of the training patients by which the sigmoid is fitted


class SvmRecipe(NamedTuple):
    """Hyperparameters of feature selection and of the machine.

    Attributes:
        num_features: number of features to keep, those with the largest F of an analysis of variance of the classes.
        c: penalty C of the support vector machine; its kernel is Gaussian with gamma 1 / num_features.
        augmented: whether it is fitted on the training slices' augmented copies too.
        balanced: whether both classes weigh the same.
    """

    num_features: int
    c: float
    augmented: bool
    balanced: bool


def pipeline(recipe: SvmRecipe) -> Pipeline:
    """Builds the pipeline that standardises features, selects some and fits the machine."""
    machine = SVC(C=recipe.c, kernel="rbf", gamma="auto", class_weight="balanced" if recipe.balanced else None)
    steps = [("scale", StandardScaler()), ("select", SelectKBest(f_classif, k=recipe.num_features)), ("svm", machine)]
    return Pipeline(steps)


def _folds(label: np.ndarray, patient: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns folds of examples [M] by patient: as many as the rarer class has patients, five at most."""
    count = min(len(np.unique(patient[label == c])) for c in (0, 1))
    if count < 2:
        raise UserError(
            "a fold has fewer than two training patients of a class, too few for probabilities: label more patients"
        )
    return list(StratifiedGroupKFold(min(count, CALIBRATION_FOLDS)).split(label, label, patient))


def fit(
    recipe: SvmRecipe, features: np.ndarray, label: np.ndarray, patient: np.ndarray, train: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """Fits on the training slices and predicts all slices.

    The probability is Platt's: a sigmoid of the machine's decision value, fitted to the decision values of training
    slices whose patients were left out (`CalibratedClassifierCV`, not ensembled); the machine itself is fitted on all.

    Args:
        recipe: see `SvmRecipe`.
        features: [N, 1 + copies, D]; [:, 0] are the slices themselves.
        label: int32 [N]; read only where `train` is true.
        patient: pseudonyms, str [N].
        train: bool [N], true for the training slices.

    Returns:
        The parameters of `decide` and `probability`, {name: array}; and the probability of glioma, float32 [N].

    Raises:
        UserError: if a class has fewer than two training patients.
    """
    assert features.ndim == 3 and features.shape[:1] == label.shape == patient.shape == train.shape, features.shape
    copies = features.shape[1] if recipe.augmented else 1
    x = np.asarray(features[train][:, :copies], np.float64).reshape(-1, features.shape[2])
    train_label, train_patient = np.repeat(label[train], copies), np.repeat(patient[train], copies)
    folds = _folds(train_label, train_patient)
    calibrated = CalibratedClassifierCV(pipeline(recipe), method="sigmoid", cv=folds, ensemble=False)
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # A constant feature, such as a ReLU that is always 0, has no F and is selected last.
        warnings.filterwarnings("ignore", "Features .* are constant", UserWarning)
        calibrated.fit(x, train_label)
    (whole,) = calibrated.calibrated_classifiers_
    params = _parameters(whole.estimator, whole.calibrators[0])
    return params, probability(params, np.asarray(features[:, 0], np.float64))


def _parameters(fitted: Pipeline, sigmoid: Any) -> dict[str, Any]:
    scale, select, machine = (fitted.named_steps[name] for name in ("scale", "select", "svm"))
    return {
        "mean": scale.mean_,
        "scale": scale.scale_,
        "selected": select.get_support(indices=True),
        "support_vectors": machine.support_vectors_,
        "dual_coef": machine.dual_coef_[0],
        "intercept": machine.intercept_,
        "sigmoid": np.array([sigmoid.a_, sigmoid.b_]),
    }


def decide(params: dict[str, Any], features: np.ndarray) -> np.ndarray:
    """Returns the machine's decision values [N], positive for glioma, for features [N, D]."""
    x = ((features - params["mean"]) / params["scale"])[:, params["selected"]]
    vectors = params["support_vectors"]
    squared = (x**2).sum(1)[:, None] + (vectors**2).sum(1) - 2 * x @ vectors.T
    return np.exp(-np.maximum(squared, 0) / x.shape[1]) @ params["dual_coef"] + params["intercept"]


def probability(params: dict[str, Any], features: np.ndarray) -> np.ndarray:
    """Returns the probability of glioma, float32 [N], for features [N, D]."""
    a, b = params["sigmoid"]
    return expit(-(a * decide(params, features) + b)).astype(np.float32)
