"""The parts of an epoch that both training loops share: order, keys, early stopping, scalars, a diverged loss."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score

from lesion.errors import UserError
from lesion.train.step import Recipe


def epoch_keys(key: jax.Array, epoch: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """Returns two keys of an epoch: one for the order of its examples, one for its steps."""
    order, step = (jax.random.fold_in(jax.random.fold_in(key, purpose), epoch) for purpose in (0, 1))
    return order, step


def epoch_order(key: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns a random order of M examples, int32 [M], in which those where `mask` bool [M] is true come first."""
    assert mask.ndim == 1, mask.shape
    return jnp.argsort(jnp.where(mask, jax.random.uniform(key, mask.shape), 2.0)).astype(jnp.int32)


def example_keys(key: jax.Array, first: jax.Array | int, size: int) -> jax.Array:
    """Returns keys [size] for the examples at positions `first`, `first + 1`, ... of a step's global batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(size))


def batch_indices(key: jax.Array, epoch: int, step: int, mask: np.ndarray, batch_size: int) -> np.ndarray:
    """Returns the indices, int [B], of the examples in one step of a fit with `key` on those in `mask` bool [M]."""
    order = np.asarray(epoch_order(epoch_keys(key, epoch)[0], jnp.asarray(mask)))[: int(mask.sum())]
    return order[step * batch_size : (step + 1) * batch_size]


class BestEpoch(NamedTuple):
    """The lowest validation loss so far, in nats, and its epoch: numbers, or arrays [] within a compiled loop."""

    loss: Any = float("inf")
    epoch: Any = 0


def is_over(recipe: Recipe, best: BestEpoch, epoch: Any) -> Any:
    """Returns whether training stops after epoch `epoch`: the last `patience` epochs brought no lower loss."""
    return epoch - best.epoch >= recipe.patience


def training_scalars(loss: float, label: np.ndarray, logit: np.ndarray) -> dict[str, float]:
    """Returns an epoch's scalars on its M training examples, slices and their copies: mean loss and AUC.

    Both tell of the same outputs in every mode: those of the step that trained on the example, before its update and
    with dropout. The AUC is that of all examples together, not a mean over batches.

    Args:
        loss: mean loss, nats.
        label: int [M], 0 or 1.
        logit: logits of glioma, [M].
    """
    return {"loss": loss, "auc": auc(label, logit)}


def validation_scalars(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Returns an epoch's scalars on its validation slices: mean loss in nats and AUC.

    Args:
        label: int [n], 0 or 1.
        probability: probabilities of both classes, [n, 2].
    """
    assert probability.shape == (len(label), 2), probability.shape
    of_label = probability[np.arange(len(label)), label].astype(np.float64)
    loss = -np.log(np.maximum(of_label, np.finfo(np.float32).tiny)).mean()
    return {"validation_loss": float(loss), "validation_auc": auc(label, probability[:, 1])}


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Returns the AUC of scores [M]; NaN if a class is absent or a score is not finite."""
    if len(np.unique(label)) < 2 or not np.isfinite(score).all():
        return float("nan")
    return float(roc_auc_score(label, score))


def validation_not_finite_error(epoch: int) -> UserError:
    """Returns the error that reports a validation loss that is not finite in epoch `epoch`, from 0."""
    return UserError(
        f"the validation loss is not finite in epoch {epoch + 1}, so that no epoch is the best: lower "
        "--config.optim.lr, set --config.dtype=float32 where it is bfloat16, or train all epochs (--config.patience=0)"
    )


def not_finite_error(
    epoch: int, step: int, ids: np.ndarray, checkpoint: Path | None = None, kind: str = "slices"
) -> UserError:
    """Returns the error that reports a loss that is not finite.

    Args:
        epoch: index of the epoch, from 0.
        step: index of the step in the epoch, from 0.
        ids: ids of the examples in the step's batch, str [B].
        checkpoint: folder of the last checkpoint, if there is one.
        kind: what the ids name, in the plural.
    """
    names = list(dict.fromkeys(map(str, ids)))
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    saved = f"; the last good checkpoint is {checkpoint}" if checkpoint else ""
    return UserError(
        f"the loss is not finite in epoch {epoch + 1}, step {step + 1} ({kind} {listed}): lower --config.optim.lr, "
        f"or set --config.dtype=float32 where it is bfloat16{saved}"
    )
