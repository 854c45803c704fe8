"""When to stop asking: rules looked at in hindsight, each by what it would have cost."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.metrics import cohen_kappa_score

WINDOW = 3  # pairs of successive models whose agreement is averaged


class Trace(NamedTuple):
    """One run of Algorithm 1, R rounds; nothing here needs a label that was not asked for.

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


class Limits(NamedTuple):
    """Where the rules draw the line; 0 takes a rule out.

    Attributes:
        entropy: δ, nats; the paper's rule.
        slices: a budget.
        patients: a budget.
        stabilizing_predictions: Cohen's kappa.
    """

    entropy: float = 0.3
    slices: int = 0
    patients: int = 0
    stabilizing_predictions: float = 0.99


def agreement(probs: np.ndarray) -> np.ndarray:
    """Cohen's kappa of each round's predictions with the round's before: probabilities [R, N] to [R], NaN first.

    One where both say the same of everything, though kappa itself is undefined if that is one class.
    """
    assert probs.ndim == 2, probs.shape
    said = probs > 0.5
    pairs = [1.0 if (a == b).all() else float(cohen_kappa_score(a, b)) for a, b in itertools.pairwise(said)]
    return np.array([np.nan, *pairs])


def _stabilizing_predictions(trace: Trace, limit: float) -> np.ndarray:
    """Stabilising predictions (Bloodgood and Vijay-Shanker 2009): agreement, mean of `WINDOW` rounds, on the pool."""
    mean = [np.mean(trace.agreement[max(0, r - WINDOW + 1) : r + 1]) for r in range(len(trace.agreement))]
    return np.array(mean) >= limit  # NaN, before there are enough, is not


RULES: dict[str, Callable[[Trace, float], np.ndarray]] = {
    "entropy": lambda trace, limit: np.isfinite(trace.entropy) & (trace.entropy < limit),
    "slices": lambda trace, limit: trace.labeled_slices >= limit,
    "patients": lambda trace, limit: trace.labeled_patients >= limit,
    "stabilizing_predictions": _stabilizing_predictions,
}


def stops(trace: Trace, limits: Limits) -> dict[str, int]:
    """Where each rule would have stopped, {rule: round}; without those that never would. `exhausted` is always on."""
    found = {"exhausted": trace.entropy == -np.inf}
    found |= {name: rule(trace, getattr(limits, name)) for name, rule in RULES.items() if getattr(limits, name)}
    first = {name: int(np.argmax(fired)) for name, fired in found.items() if fired.any()}
    end = first.get("exhausted", len(trace.entropy))
    return {name: r for name, r in first.items() if name == "exhausted" or r < end}  # afterwards nothing is stopped
