"""Heads, from features to the logit of glioma: the paper's, the baselines' own, and those that fuse sequences.

All are called as `head(features, train, embed)`, have an attribute `dropout`, and compute in float32 whatever the type
of the features; CapsNet's head is in `capsnet`. The heads that fuse sequences, the paper's future work, take `Bags` of
all sequences of a patient.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.models.layers import activation


class Head(nn.Module):
    """The paper's new classifier, 512-256-1 (section 1.2), with ReLU: a guess, the paper names no activation.

    Attributes:
        widths: widths of the hidden layers.
        dropout: dropout rate before each layer; 0 for none.
    """

    widths: Sequence[int] = (512, 256)
    dropout: float = 0.0

    @nn.compact
    def __call__(self, features: jax.Array, train: bool = False, embed: bool = False) -> jax.Array:
        """Returns the logit of glioma [B] for features [B, D], or with `embed` the last layer's input [B, W].

        Training with dropout needs a random key named `dropout`.
        """
        assert features.ndim == 2, features.shape
        x = features.astype(jnp.float32)
        for i, width in enumerate(self.widths):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.relu(nn.Dense(width, name=f"fc{i}")(x))
        if embed:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(1, name="logit")(x)[:, 0]


class BaselineHead(nn.Module):
    """A baseline's own dense layers: each followed by an activation and dropout, then one logit.

    Attributes:
        widths: widths of the hidden layers.
        dropout: dropout rate after each hidden layer; empty for none.
        kind: kind of the activations, see `layers.activation`.
        names: names of the hidden layers; empty for `fc1`, `fc2`, ...
    """

    widths: Sequence[int]
    dropout: Sequence[float] = ()
    kind: str = "relu"
    names: Sequence[str] = ()

    @nn.compact
    def __call__(self, features: jax.Array, train: bool = False, embed: bool = False) -> jax.Array:
        """Returns the logit [B] or the last layer's input [B, W], as `Head` does."""
        assert features.ndim == 2, features.shape
        x = features.astype(jnp.float32)
        names = self.names or [f"fc{i}" for i in range(1, len(self.widths) + 1)]
        rates = self.dropout or [0.0] * len(self.widths)
        for i, (name, width, rate) in enumerate(zip(names, self.widths, rates, strict=True), 1):
            x = activation(self.kind, f"{self.kind}_fc{i}")(nn.Dense(width, name=name)(x))
            x = nn.Dropout(rate, deterministic=not train)(x)
        return x if embed else nn.Dense(1, name="logit")(x)[:, 0]


class Bags(NamedTuple):
    """Patients as bags of frozen features: slices of M sequences, in no order; NumPy or JAX arrays.

    Attributes:
        features: float32 [..., M, S, D], up to S slices of each of M sequences; any value where `mask` is false.
        mask: bool [..., M, S], false for padding; a sequence that a patient lacks is all padding.
    """

    features: Any
    mask: Any


def _without_padding(bags: Bags) -> Bags:
    """Returns the bags in float32, with zeros for padding, so that no NaN in it reaches a product or its gradient."""
    assert bags.features.ndim >= 3 and bags.features.shape[:-1] == bags.mask.shape, jax.tree.map(jnp.shape, bags)
    return bags._replace(features=jnp.where(bags.mask[..., None], bags.features.astype(jnp.float32), 0.0))


def mean_over_slices(bags: Bags) -> Bags:
    """Returns each sequence's mean slice as a bag of that one slice, [..., M, 1, D]; zeros where a sequence is missing.

    Code that takes means of bags may be given these instead, at 1 / S of the memory: the mean of one slice is itself.
    """
    features, mask = _without_padding(bags)
    count = jnp.sum(mask, -1, dtype=features.dtype)[..., None]
    mean = jnp.sum(features, -2) / jnp.maximum(count, 1.0)
    return Bags(mean[..., None, :], jnp.any(mask, -1, keepdims=True))


def masked_softmax(score: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the softmax over the last axis of `score` [..., K] where `mask` [..., K], exactly 0 elsewhere.

    For an empty bag all weights are 0, and the gradient is finite.
    """
    assert score.shape == mask.shape, (score.shape, mask.shape)
    largest = jnp.max(jnp.where(mask, score, -jnp.inf), -1, keepdims=True)
    # Masked before exp, not only after: where exp overflows, masking it afterwards gives the gradient 0 · inf.
    shifted = jnp.where(mask, score - jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0.0)), 0.0)
    weight = jnp.where(mask, jnp.exp(shifted), 0.0)
    return weight / jnp.maximum(jnp.sum(weight, -1, keepdims=True), 1.0)  # a bag's largest score weighs 1


class EarlyFusion(nn.Module):
    """Early fusion: the paper's head on the sequences' concatenated means and M flags of which sequences are present.

    Attributes:
        widths: widths of the head's hidden layers.
        dropout: dropout rate before each layer; 0 for none.
    """

    widths: Sequence[int] = (512, 256)
    dropout: float = 0.0

    @nn.compact
    def __call__(self, bags: Bags, train: bool = False, embed: bool = False) -> jax.Array:
        """Returns the logit [B] or the last layer's input [B, W], as `Head` does, for bags [B, M, S, D]."""
        assert bags.features.ndim == 4, bags.features.shape
        mean, present = mean_over_slices(bags)
        flags = present.reshape(len(present), -1).astype(mean.dtype)
        x = jnp.concatenate([mean.reshape(len(mean), -1), flags], -1)
        return Head(self.widths, self.dropout, name="head")(x, train, embed)


class GatedAttention(nn.Module):
    """Gated attention over all slices of all sequences (Ilse, Tomczak and Welling 2018, arXiv:1802.04712, eq. 9).

    Each sequence has a first layer of its own, so that later ones can tell the sequences apart: h = relu(x W_m + b_m).
    Then a = softmax(w · (tanh(V h) * sigmoid(U h))) over the patient's slices, z = Σ a h, and the head's other layers:
    the depth is that of `Head`. U and V have biases, as in their authors' code.

    The weights a [B, M, S], which sum to 1 over a patient's slices, are sown as `attention` into the collection
    `intermediates`, if the caller makes it mutable.

    Attributes:
        widths: widths of the hidden layers; the first is that of h.
        attention_width: number of rows of V and of U.
        dropout: dropout rate before each of these layers; 0 for none.
    """

    widths: Sequence[int] = (512, 256)
    attention_width: int = 128
    dropout: float = 0.0

    @nn.compact
    def __call__(self, bags: Bags, train: bool = False, embed: bool = False) -> jax.Array:
        """Returns the logit [B] or the last layer's input [B, W], as `Head` does, for bags [B, M, S, D]."""
        features, mask = _without_padding(bags)
        assert features.ndim == 4, features.shape
        b, m, s, d = features.shape
        kernel_init = nn.initializers.lecun_normal(batch_axis=0)
        kernel = self.param("sequence_kernel", kernel_init, (m, d, self.widths[0]))
        bias = self.param("sequence_bias", nn.initializers.zeros_init(), (m, self.widths[0]))
        x = nn.Dropout(self.dropout, deterministic=not train)(features)
        h = nn.relu(jnp.einsum("bmsd,mdh->bmsh", x, kernel) + bias[:, None]).reshape(b, m * s, -1)
        gate = nn.sigmoid(nn.Dense(self.attention_width, name="U")(h))
        score = nn.Dense(1, use_bias=False, name="w")(nn.tanh(nn.Dense(self.attention_width, name="V")(h)) * gate)
        weight = masked_softmax(score[..., 0], mask.reshape(b, m * s))
        self.sow("intermediates", "attention", weight.reshape(b, m, s))
        z = jnp.einsum("bk,bkh->bh", weight, h)
        return Head(self.widths[1:], self.dropout, name="head")(z, train, embed)
