"""What an epoch is, whichever loop trains it: order, keys, early stopping, what is reported, what can go wrong."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score

from lesion.errors import UserError
from lesion.train.step import Recipe


def epoch_keys(key: jax.Array, epoch: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """Returns the keys of an epoch's order and of its steps."""
    order, step = (jax.random.fold_in(jax.random.fold_in(key, purpose), epoch) for purpose in (0, 1))
    return order, step


def epoch_order(key: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns a random order of M examples in which those of `mask` bool [M] come first: int32 [M]."""
    assert mask.ndim == 1, mask.shape
    return jnp.argsort(jnp.where(mask, jax.random.uniform(key, mask.shape), 2.0)).astype(jnp.int32)


def example_keys(key: jax.Array, first: jax.Array | int, size: int) -> jax.Array:
    """Returns the keys [size] of the examples `first`, `first + 1`, ... of a step's global batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(size))


def batch_indices(key: jax.Array, epoch: int, step: int, mask: np.ndarray, batch_size: int) -> np.ndarray:
    """Returns the examples that a fit with `key` shows in a step: int [B], of those of `mask` bool [M]."""
    order = np.asarray(epoch_order(epoch_keys(key, epoch)[0], jnp.asarray(mask)))[: int(mask.sum())]
    return order[step * batch_size : (step + 1) * batch_size]


class BestEpoch(NamedTuple):
    """The lowest validation loss so far and its epoch: numbers, or arrays [] within a compiled loop."""

    loss: Any = float("inf")
    epoch: Any = 0


def is_over(recipe: Recipe, best: BestEpoch, epoch: Any) -> Any:
    """Returns whether epoch `epoch` was the last that patience allows."""
    return epoch - best.epoch >= recipe.patience


def training_scalars(loss: float, label: np.ndarray, logit: np.ndarray) -> dict[str, float]:
    """Returns what an epoch reports of its training examples: their mean loss in nats, and the AUC of logits [M]."""
    return {"loss": loss, "auc": auc(label, logit)}


def validation_scalars(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Returns what an epoch reports of its validation slices: mean loss in nats and AUC.

    Args:
        label: int [n], 0 or 1.
        probability: of both classes, [n, 2].
    """
    assert probability.shape == (len(label), 2), probability.shape
    of_label = probability[np.arange(len(label)), label].astype(np.float64)
    loss = -np.log(np.maximum(of_label, np.finfo(np.float32).tiny)).mean()
    return {"validation_loss": float(loss), "validation_auc": auc(label, probability[:, 1])}


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Returns the AUC of scores [M], NaN where one class is absent or a score is not finite."""
    if len(np.unique(label)) < 2 or not np.isfinite(score).all():
        return float("nan")
    return float(roc_auc_score(label, score))


def not_finite_error(
    epoch: int, step: int, ids: np.ndarray, checkpoint: Path | None = None, kind: str = "slices"
) -> UserError:
    """Returns the error of a loss that is not finite.

    Args:
        epoch: from 0.
        step: of the epoch, from 0.
        ids: str [B], of the examples of its batch.
        checkpoint: the last one, if there is one.
        kind: what the ids are of.
    """
    names = list(dict.fromkeys(map(str, ids)))
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    saved = f"; the last good checkpoint is {checkpoint}" if checkpoint else ""
    return UserError(
        f"the loss is not finite in epoch {epoch + 1}, step {step + 1} ({kind} {shown}): lower --config.optim.lr, "
        f"or set --config.dtype=float32 where it is bfloat16{saved}"
    )
