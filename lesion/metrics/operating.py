"""What a threshold buys: sensitivity at a fixed specificity and the reverse, predictive values, decision curves.

A threshold is chosen on the patients of the other test folds, which are the fold's own training patients, predicted by
networks that had not seen them: no patient helps to choose the threshold that calls that patient.
"""

import numpy as np

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
    right = held_out_calls(label, probability, fold, fixed, aim) == label
    result = {}
    for score, among in (("sensitivity", label == 1), ("specificity", label == 0)):
        found = share(score, (right & among).astype(np.float64), among.astype(np.float64))
        low, high = ends(found)
        result[score] = {"value": found.value, "low": low, "high": high}
    return result


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
