"""When to stop querying: rules looked at in hindsight, each by what it would have cost."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.metrics import cohen_kappa_score

WINDOW = 3  # pairs of successive models whose agreement is averaged


class Trace(NamedTuple):
    """What the rules see of one run of Algorithm 1, R rounds; nothing here needs a label that was not queried.

    Attributes:
        labeled_slices: int [R].
        labeled_patients: int [R].
        entropy: float [R], of the rest of the pool, nats: `max`, `mean` or `p95`; -inf where nothing is left.
        agreement: float [R], of each model with the one before, see `agreement`.
    """

    labeled_slices: np.ndarray
    labeled_patients: np.ndarray
    entropy: np.ndarray
    agreement: np.ndarray


class StoppingCriteria(NamedTuple):
    """The threshold of each rule; 0 turns a rule off.

    Attributes:
        entropy: δ of the paper's Algorithm 1, in nats: stops below it.
        slices: a budget of labelled slices.
        patients: a budget of labelled patients.
        stabilizing_predictions: Cohen's kappa of successive models: stops at or above it.
    """

    entropy: float = 0.3
    slices: int = 0
    patients: int = 0
    stabilizing_predictions: float = 0.99


def agreement(probs: np.ndarray) -> np.ndarray:
    """Returns Cohen's kappa of each round's predictions with the round's before.

    It is 1 where two rounds predict the same everywhere, even if that is one class and kappa itself is undefined.

    Args:
        probs: [R, N] of glioma.

    Returns:
        [R], NaN in the first round.
    """
    assert probs.ndim == 2, probs.shape
    pairs = itertools.pairwise(probs > 0.5)
    return np.array([np.nan, *(1.0 if (a == b).all() else float(cohen_kappa_score(a, b)) for a, b in pairs)])


def _stabilizing_predictions(trace: Trace, limit: float) -> np.ndarray:
    """Returns bool [R], whether predictions are stable (Bloodgood and Vijay-Shanker 2009).

    They are where the agreement, mean of `WINDOW` rounds, reaches `limit`.
    """
    mean = [np.mean(trace.agreement[max(0, r - WINDOW + 1) : r + 1]) for r in range(len(trace.agreement))]
    return np.array(mean) >= limit  # NaN, before there are enough rounds, is not


RULES: dict[str, Callable[[Trace, float], np.ndarray]] = {
    "entropy": lambda trace, limit: np.isfinite(trace.entropy) & (trace.entropy < limit),
    "slices": lambda trace, limit: trace.labeled_slices >= limit,
    "patients": lambda trace, limit: trace.labeled_patients >= limit,
    "stabilizing_predictions": _stabilizing_predictions,
}


def stops(trace: Trace, criteria: StoppingCriteria) -> dict[str, int]:
    """Returns {rule: round at which it would have stopped the run}, without the rules that never would.

    `exhausted`, nothing left to query, is always on; after it no other rule stops anything.
    """
    assert len({column.shape for column in trace}) == 1, [column.shape for column in trace]
    fired = {"exhausted": trace.entropy == -np.inf}
    fired |= {name: rule(trace, getattr(criteria, name)) for name, rule in RULES.items() if getattr(criteria, name)}
    first = {name: int(np.argmax(rounds)) for name, rounds in fired.items() if rounds.any()}
    end = first.get("exhausted", len(trace.entropy))
    return {name: r for name, r in first.items() if name == "exhausted" or r < end}
