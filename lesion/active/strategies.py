"""The registry of strategies: what each looks at, and how it chooses what to query."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from lesion.active import acquisition, diversity
from lesion.active.acquisition import Score


class PoolOutputs(NamedTuple):
    """What a model gives for N slices; only `probs` is always there.

    Attributes:
        probs: float32 [N, C].
        augmented_probs: [N, M, C], of the augmented copies.
        mc_probs: [N, S, C], drawn with dropout.
        embedding: [N, D], what the last layer sees.
    """

    probs: jax.Array
    augmented_probs: jax.Array | None = None
    mc_probs: jax.Array | None = None
    embedding: jax.Array | None = None


class Strategy(NamedTuple):
    """A row of the registry.

    Attributes:
        output: the field of `PoolOutputs` it looks at.
        score: of one slice, (key, its row of that field) -> []; None for a strategy that has `select`.
        select: of the pool, see `diversity.badge`.
        pseudo: whether confident slices are trained on under their predicted label (CEAL).
    """

    output: str
    score: Score | None = None
    select: Callable[..., tuple[jax.Array, jax.Array]] | None = None
    pseudo: bool = False


STRATEGIES: dict[str, Strategy] = {
    "entropy": Strategy("probs", acquisition.entropy),
    "random": Strategy("probs", acquisition.random),
    "margin": Strategy("probs", acquisition.margin),
    "least_confidence": Strategy("probs", acquisition.least_confidence),
    "ceal": Strategy("probs", acquisition.entropy, pseudo=True),
    "aift": Strategy("augmented_probs", acquisition.aift),
    "bald": Strategy("mc_probs", acquisition.bald),
    "badge": Strategy("embedding", select=diversity.badge),
    "k_centre": Strategy("embedding", select=diversity.k_centre),
}
