"""The new classifier on top of a backbone: the paper's 512-256-1 (section 1.2)."""

from collections.abc import Sequence

import jax
from flax import linen as nn


class Head(nn.Module):
    """Dense layers with ReLU (the paper names no activation: a guess), then one logit.

    Attributes:
        widths: of the hidden layers.
        dropout: rate before each layer; 0 is none.
    """

    widths: Sequence[int] = (512, 256)
    dropout: float = 0.0

    @nn.compact
    def __call__(self, features: jax.Array, train: bool = False, embed: bool = False) -> jax.Array:
        """Features [B, D] to the logit of glioma [B], or with `embed` to what the last layer sees, [B, W].

        Dropout wants the key `dropout` when training.
        """
        assert features.ndim == 2, features.shape
        x = features
        for i, width in enumerate(self.widths):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.relu(nn.Dense(width, name=f"fc{i}")(x))
        if embed:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(1, name="logit")(x)[:, 0]
