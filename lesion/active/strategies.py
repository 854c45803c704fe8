"""The registry of strategies: which of a model's outputs each reads, and how it chooses slices to query."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from lesion.active import acquisition, diversity
from lesion.active.acquisition import Score


class PoolOutputs(NamedTuple):
    """Outputs of a model for N slices; all but `probs` may be None.

    Attributes:
        probs: float32 [N, C], predictions.
        augmented_probs: [N, M, C], predictions of the slice and its augmented copies.
        mc_probs: [N, S, C], predictions drawn with dropout.
        embedding: [N, D], input of the last layer.
    """

    probs: jax.Array
    augmented_probs: jax.Array | None = None
    mc_probs: jax.Array | None = None
    embedding: jax.Array | None = None


class Strategy(NamedTuple):
    """A row of the registry.

    Attributes:
        output: field of `PoolOutputs` that it reads.
        score: (key, a slice's row of that field) -> score []; None for a strategy that has another function.
        select: (key, field, probs, candidates, k) -> (indices [k], scores [k]), see `diversity.badge`; or None.
        patient_score: (field, patient [N], allowed [N]) -> score of each slice's patient [N], see `diversity.aift`; or
            None. Slices are queried patient by patient, those of a patient by falling entropy.
        pseudo: whether confident slices are trained on under their predicted label (CEAL).
    """

    output: str
    score: Score | None = None
    select: Callable[..., tuple[jax.Array, jax.Array]] | None = None
    patient_score: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None
    pseudo: bool = False


STRATEGIES: dict[str, Strategy] = {
    "entropy": Strategy("probs", acquisition.entropy),
    "random": Strategy("probs", acquisition.random),
    "margin": Strategy("probs", acquisition.margin),
    "least_confidence": Strategy("probs", acquisition.least_confidence),
    "ceal": Strategy("probs", acquisition.entropy, pseudo=True),
    "bald": Strategy("mc_probs", acquisition.bald),
    "badge": Strategy("embedding", select=diversity.badge),
    "k_centre": Strategy("embedding", select=diversity.k_centre),
    "typiclust": Strategy("embedding", select=diversity.typiclust),
    "probcover": Strategy("embedding", select=diversity.probcover),
    "margin_k_means": Strategy("embedding", select=diversity.margin_k_means),
    "aift": Strategy("augmented_probs", patient_score=diversity.aift),
}
