"""The registry: what each strategy looks at, and how it asks."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from lesion.active import acquisition, diversity
from lesion.active.acquisition import Score

VIEWS = ("probs", "copies", "samples", "embedding")


class View(NamedTuple):
    """What a model says of N slices; only `probs` is always there.

    Attributes:
        probs: float32 [N, C].
        copies: [N, M, C], of the augmented copies.
        samples: [N, S, C], drawn with dropout.
        embedding: [N, D], what the last layer sees.
    """

    probs: jax.Array
    copies: jax.Array | None = None
    samples: jax.Array | None = None
    embedding: jax.Array | None = None


class Strategy(NamedTuple):
    """A row of the registry.

    Attributes:
        view: the part of `View` it needs.
        score: of one slice, (key, its row of that part) -> []; None for one that has `select`.
        select: of the pool, see `diversity.badge`.
        pseudo: whether confident slices are trained on under their predicted label (CEAL).
    """

    view: str
    score: Score | None = None
    select: Callable[..., tuple[jax.Array, jax.Array]] | None = None
    pseudo: bool = False


STRATEGIES: dict[str, Strategy] = {
    "entropy": Strategy("probs", acquisition.entropy),
    "random": Strategy("probs", acquisition.random),
    "margin": Strategy("probs", acquisition.margin),
    "least_confidence": Strategy("probs", acquisition.least_confidence),
    "ceal": Strategy("probs", acquisition.entropy, pseudo=True),
    "aift": Strategy("copies", acquisition.aift),
    "bald": Strategy("samples", acquisition.bald),
    "badge": Strategy("embedding", select=diversity.badge),
    "k_centre": Strategy("embedding", select=diversity.k_centre),
}
