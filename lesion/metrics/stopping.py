"""Stopping rules: the rounds at which each rule would have stopped a run, in hindsight."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.metrics import cohen_kappa_score

WINDOW = 3  # number of rounds whose agreement is averaged
SURE_NATS = 1e-3  # entropy below which a slice counts as sure: of such slices the order of asking is chance


class Trace(NamedTuple):
    """The input of the rules: R rounds of one run of Algorithm 1, each as its model was trained. It needs no label that
    was not queried. The names are those of columns of curves.csv.

    Attributes:
        labeled_slices: number of labelled slices, int [R].
        labeled_patients: number of patients with a labelled slice, int [R].
        labeled_classes: number of classes among the labelled slices, int [R].
        max_entropy: largest entropy of the unlabelled slices of the pool, nats, float [R]; -inf if there is none.
        agreement: agreement of each round's model with the previous round's, float [R], see `agreement`.
    """

    labeled_slices: np.ndarray
    labeled_patients: np.ndarray
    labeled_classes: np.ndarray
    max_entropy: np.ndarray
    agreement: np.ndarray


class StoppingCriteria(NamedTuple):
    """The threshold of each rule; 0 turns a rule off.

    Attributes:
        entropy: δ of the paper's Algorithm 1, in nats; a run stops where the largest entropy is below it.
        slices: budget of labelled slices.
        patients: budget of labelled patients.
        stabilizing_predictions: Cohen's kappa of successive models; a run stops at or above it.
    """

    entropy: float = 0.3
    slices: int = 0
    patients: int = 0
    stabilizing_predictions: float = 0.99


def agreement(probs: np.ndarray) -> np.ndarray:
    """Returns Cohen's kappa of each round's predictions with those of the previous round.

    It is 1 if two rounds agree everywhere, even on a single class, for which kappa itself is undefined.

    Args:
        probs: [R, N], probability of glioma.

    Returns:
        [R], NaN in the first round.
    """
    assert probs.ndim == 2, probs.shape
    pairs = itertools.pairwise(probs > 0.5)
    return np.array([np.nan, *(1.0 if (a == b).all() else float(cohen_kappa_score(a, b)) for a, b in pairs)])


def _entropy(trace: Trace, delta: float) -> np.ndarray:
    """Returns bool [R], true where every unlabelled slice has less entropy than `delta` (the paper's Algorithm 1).

    A model trained on one class is sure of every slice and has learnt nothing: its rounds do not count.
    """
    return (trace.labeled_classes > 1) & np.isfinite(trace.max_entropy) & (trace.max_entropy < delta)


def _stabilizing_predictions(trace: Trace, limit: float) -> np.ndarray:
    """Returns bool [R], true where predictions are stable (Bloodgood and Vijay-Shanker 2009).

    They are stable where the mean agreement of the last `WINDOW` rounds, all trained on both classes, reaches `limit`.
    """
    agreement = np.where(trace.labeled_classes > 1, trace.agreement, np.nan)
    mean = [np.mean(agreement[max(0, r - WINDOW + 1) : r + 1]) for r in range(len(agreement))]
    return np.array(mean) >= limit  # False where NaN, before there are enough rounds


RULES: dict[str, Callable[[Trace, float], np.ndarray]] = {
    "entropy": _entropy,
    "slices": lambda trace, limit: trace.labeled_slices >= limit,
    "patients": lambda trace, limit: trace.labeled_patients >= limit,
    "stabilizing_predictions": _stabilizing_predictions,
}


def stops(trace: Trace, criteria: StoppingCriteria) -> dict[str, int]:
    """Returns {rule: index of the round at which it would have stopped the run}, without rules that never would.

    The rule `exhausted`, for an empty pool, is always on; from that round on no other rule stops the run.
    """
    assert len({column.shape for column in trace}) == 1, [column.shape for column in trace]
    fired = {"exhausted": trace.max_entropy == -np.inf}
    fired |= {name: rule(trace, getattr(criteria, name)) for name, rule in RULES.items() if getattr(criteria, name)}
    first = {name: int(np.argmax(rounds)) for name, rounds in fired.items() if rounds.any()}
    end = first.get("exhausted", len(trace.max_entropy))
    return {name: r for name, r in first.items() if name == "exhausted" or r < end}
