"""What a threshold buys: sensitivity at a fixed specificity and the reverse, predictive values, decision curves.

In cross-validation a threshold is chosen on the patients of the other test folds, which are the fold's own training
patients, predicted by networks that had not seen them: no patient helps to choose the threshold that calls
that patient.
"""

import numpy as np
from sklearn.metrics import roc_curve

from lesion.metrics.estimates import ends, share
from lesion.metrics.scores import check_columns

AIM = 0.9  # the sensitivity or specificity that is fixed


def held_out_calls(
    label: np.ndarray, probability: np.ndarray, fold: np.ndarray, fixed: str, aim: float = AIM
) -> np.ndarray:
    """Returns which patients are called glioma by thresholds that reach `aim` on the patients of the other folds.

    Args:
        label: [P] in {0, 1}.
        probability: [P] of glioma.
        fold: [P], the fold that tested each patient.
        fixed: "sensitivity" or "specificity", the score that it reaches, with most of the other.
        aim: what it reaches, in (0, 1].

    Returns:
        bool [P].

    Raises:
        ValueError: if the other folds lack a class, or as `evaluate`.
    """
    assert fixed in ("sensitivity", "specificity") and 0 < aim <= 1, (fixed, aim)
    label, probability, fold = check_columns(label, probability, fold)
    called = np.zeros(label.size, bool)
    for own in np.unique(fold):
        among = np.sort(probability[(fold != own) & (label == (fixed == "sensitivity"))])
        if not among.size:
            raise ValueError(f"no patient of the other folds to fix the {fixed} on")
        count = int(np.ceil(aim * among.size - 1e-9))  # of them that must be called right
        above = np.nextafter(among[-count], -1) if fixed == "sensitivity" else among[count - 1]
        called[fold == own] = probability[fold == own] > above
    return called


def operating_point(
    label: np.ndarray, probability: np.ndarray, fold: np.ndarray, fixed: str, aim: float = AIM
) -> dict[str, dict[str, float]]:
    """Returns the sensitivity and specificity of `held_out_calls`: {score: {"value", "low", "high"}}."""
    label, probability, fold = check_columns(label, probability, fold)
    return scores_of_calls(label, held_out_calls(label, probability, fold, fixed, aim))


def scores_of_calls(label: np.ndarray, called: np.ndarray) -> dict[str, dict[str, float]]:
    """Returns the sensitivity and specificity of calls, which may come from any threshold.

    Args:
        label: [P] in {0, 1}.
        called: bool [P], which patients are called glioma.

    Returns:
        {score: {"value", "low", "high"}}; NaN without a patient of the class.
    """
    assert label.shape == called.shape, (label.shape, called.shape)
    result = {}
    for score, among in (("sensitivity", label == 1), ("specificity", label == 0)):
        found = share(score, ((called == label) & among).astype(np.float64), among.astype(np.float64))
        low, high = ends(found)
        result[score] = {"value": found.value, "low": low, "high": high}
    return result


def youden_threshold(label: np.ndarray, probability: np.ndarray) -> float:
    """Returns the threshold with the greatest sensitivity + specificity − 1 (Youden 1950); of ties the highest.

    A patient is called glioma above it; it lies halfway between two probabilities, or is 1.

    Args:
        label: [P] in {0, 1}, both present.
        probability: [P] of glioma.

    Raises:
        ValueError: if all labels are of one class, or as `evaluate`.
    """
    label, probability, _ = check_columns(label, probability, np.arange(np.size(label)))
    if np.unique(label).size < 2:
        raise ValueError("a threshold needs both classes")
    false_positive, true_positive, thresholds = roc_curve(label, probability, drop_intermediate=False)
    lowest_called = thresholds[np.argmax(true_positive - false_positive)]
    if np.isinf(lowest_called):  # nobody is called
        return 1.0
    below = probability[probability < lowest_called]
    return float((lowest_called + (below.max() if below.size else 0.0)) / 2)


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> tuple[float, float]:
    """Returns the positive and negative predictive value at a prevalence, by Bayes' theorem; NaN where none is called.

    Args:
        sensitivity: in [0, 1].
        specificity: in [0, 1].
        prevalence: share of glioma among those to be called, in [0, 1].
    """
    true_positive, true_negative = prevalence * sensitivity, (1 - prevalence) * specificity
    positive = true_positive + (1 - prevalence) * (1 - specificity)
    negative = true_negative + prevalence * (1 - sensitivity)
    return (true_positive / positive if positive else np.nan), (true_negative / negative if negative else np.nan)


def net_benefit(
    label: np.ndarray, probability: np.ndarray, thresholds: np.ndarray, prevalence: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the net benefit of calling glioma above each threshold, and of calling all so (Vickers and Elkin 2006).

    It is the share of patients rightly called glioma minus that wrongly called so, each of whom counts t / (1 − t).

    Args:
        label: [P] in {0, 1}, both present.
        probability: [P] of glioma.
        thresholds: [T] in (0, 1).
        prevalence: share of glioma among those to be called; None is that of `label`.

    Returns:
        Net benefits of the model and of calling all glioma, each [T]; that of calling none is 0.
    """
    label, probability, _ = check_columns(label, probability, np.arange(np.size(label)))
    share_of_all = float(label.mean()) if prevalence is None else prevalence
    called = probability > thresholds[:, None]
    weight = (1 - share_of_all) * thresholds / (1 - thresholds)
    model = share_of_all * called[:, label == 1].mean(1) - weight * called[:, label == 0].mean(1)
    return model, share_of_all - weight
