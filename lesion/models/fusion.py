"""What fuses the sequences of one patient, the paper's future work: early, and by attention over slices.

A patient is a bag: slices of M sequences, in no order, some or all of a sequence's missing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.models.head import Head


class Bags(NamedTuple):
    """Patients as bags of frozen features.

    NumPy or on the device.

    Attributes:
        features: float32 [..., M, S, D] of up to S slices of each of M sequences; whatever where `mask` is false.
        mask: bool [..., M, S]: false for padding; a sequence that a patient lacks is padding alone.
    """

    features: Any
    mask: Any


def _checked(bags: Bags) -> Bags:
    """The bags with zeros where nothing is, so that no padding, not even NaN, reaches a product or its gradient."""
    assert bags.features.ndim >= 3 and bags.features.shape[:-1] == bags.mask.shape, jax.tree.map(jnp.shape, bags)
    return bags._replace(features=jnp.where(bags.mask[..., None], bags.features, 0.0))


def mean_over_slices(bags: Bags) -> Bags:
    """Each sequence's mean slice, as a bag of that one slice: [..., M, 1, D], zeros where the sequence is missing.

    The mean of one slice is that slice: whoever takes means of bags may be given these, 1 / S of the memory.
    """
    features, mask = _checked(bags)
    count = jnp.sum(mask, -1, dtype=features.dtype)[..., None]
    mean = jnp.sum(features, -2) / jnp.maximum(count, 1.0)
    return Bags(mean[..., None, :], jnp.any(mask, -1, keepdims=True))


def masked_softmax(score: jax.Array, mask: jax.Array) -> jax.Array:
    """Softmax over the last axis of `score` [..., K] where `mask` [..., K], exactly 0 elsewhere; all 0 of none.

    Its gradient is finite of an empty bag too.
    """
    assert score.shape == mask.shape, (score.shape, mask.shape)
    largest = jnp.max(jnp.where(mask, score, -jnp.inf), -1, keepdims=True)
    # Masked before exp: what is masked after it, and overflowed, has the gradient 0 · inf.
    away = jnp.where(mask, score - jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0.0)), 0.0)
    weight = jnp.where(mask, jnp.exp(away), 0.0)
    return weight / jnp.maximum(jnp.sum(weight, -1, keepdims=True), 1.0)  # the largest of a bag weighs 1


class Early(nn.Module):
    """Early fusion: the sequences' means side by side, with M flags that tell which are there, and the paper's head.

    Attributes:
        widths: of the head's hidden layers.
        dropout: rate before each layer; 0 is none.
    """

    widths: Sequence[int] = (512, 256)
    dropout: float = 0.0

    @nn.compact
    def __call__(self, bags: Bags, train: bool = False, embed: bool = False) -> jax.Array:
        """Bags [B, M, S, D] to the logit of glioma [B], or with `embed` to what the last layer sees; see `Head`."""
        assert bags.features.ndim == 4, bags.features.shape
        mean, there = mean_over_slices(bags)
        flags = there.reshape(len(there), -1).astype(mean.dtype)
        x = jnp.concatenate([mean.reshape(len(mean), -1), flags], -1)
        return Head(self.widths, self.dropout, name="head")(x, train, embed)


class GatedAttention(nn.Module):
    """Gated attention over all slices of all sequences (Ilse, Tomczak and Welling 2018, arXiv:1802.04712, eq. 9).

    Each sequence has a first layer of its own, by which the rest can tell the sequences apart: h = relu(x W_m + b_m).
    Then a = softmax(w · (tanh(V h) * sigmoid(U h))) over the patient's slices, z = Σ a h, and the head's other layers:
    as deep as the others, with the attention after the first layer. U and V have biases, as in their authors' code.

    The weights a [B, M, S], which sum to 1 over a patient's slices, are kept as `attention` among the
    `intermediates`, where the caller makes that collection mutable.

    Attributes:
        widths: of the head's hidden layers; the first is that of h.
        attention_width: rows of V and U.
        dropout: rate before each layer; 0 is none.
    """

    widths: Sequence[int] = (512, 256)
    attention_width: int = 128
    dropout: float = 0.0

    @nn.compact
    def __call__(self, bags: Bags, train: bool = False, embed: bool = False) -> jax.Array:
        """Bags [B, M, S, D] to the logit of glioma [B], or with `embed` to what the last layer sees; see `Head`."""
        features, mask = _checked(bags)
        assert features.ndim == 4, features.shape
        b, m, s, d = features.shape
        first = nn.initializers.lecun_normal(batch_axis=0)
        kernel = self.param("sequence_kernel", first, (m, d, self.widths[0]))
        bias = self.param("sequence_bias", nn.initializers.zeros_init(), (m, self.widths[0]))
        x = nn.Dropout(self.dropout, deterministic=not train)(features)
        h = nn.relu(jnp.einsum("bmsd,mdh->bmsh", x, kernel) + bias[:, None]).reshape(b, m * s, -1)
        gate = nn.sigmoid(nn.Dense(self.attention_width, name="U")(h))
        score = nn.Dense(1, use_bias=False, name="w")(nn.tanh(nn.Dense(self.attention_width, name="V")(h)) * gate)
        weight = masked_softmax(score[..., 0], mask.reshape(b, m * s))
        self.sow("intermediates", "attention", weight.reshape(b, m, s))
        z = jnp.einsum("bk,bkh->bh", weight, h)
        return Head(self.widths[1:], self.dropout, name="head")(z, train, embed)
