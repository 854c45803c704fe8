"""CapsNet: Sabour, Frosst & Hinton, NIPS 2017 (arXiv:1710.09829), with the trunk of Afshar et al., ICIP 2018.

Capsules have no bias, the routing logits start at zero and are not trained, and the decoder takes both class capsules,
one of them masked: only this gives the published number of parameters.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from lesion.models.stages import Backbone, Stage

PRIMARY, CLASS = 8, 16  # length of a capsule
CAPSULES = 18432  # 32 on each of 24x24 cells
CLASSES = 2
UPPER, LOWER, ABSENT = 0.9, 0.1, 0.5  # m+, m- and lambda of the margin loss
RECONSTRUCTION = 0.0005  # weight of the summed squared error
DECODER = (512, 1024)  # hidden layers
EPSILON = 1e-9  # added to a squared length, because the gradient of its root is infinite at 0
ITERATIONS = 3  # of routing


def squash(s: jax.Array) -> jax.Array:
    """Scales vectors s [..., D] to the lengths |s|² / (1 + |s|²) (Sabour 2017, eq. 1)."""
    squared = jnp.sum(jnp.square(s), axis=-1, keepdims=True)
    return s * squared / (1.0 + squared) / jnp.sqrt(squared + EPSILON)


def length(v: jax.Array) -> jax.Array:
    """Returns the lengths [...] of vectors [..., D]."""
    return jnp.sqrt(jnp.sum(jnp.square(v), axis=-1) + EPSILON)


def route(votes: jax.Array, iterations: int = ITERATIONS) -> jax.Array:
    """Routes by agreement (Sabour 2017, procedure 1).

    Gradients go through all iterations, as in the authors' published code; other codes stop them in all but the last.

    Args:
        votes: û [B, I, J, D], the prediction of the lower layer's capsule i for capsule j.
        iterations: number r of iterations, at least 1.

    Returns:
        The upper layer's capsules v [B, J, D], each shorter than 1.
    """
    assert votes.ndim == 4 and iterations > 0, (votes.shape, iterations)
    v = squash(jnp.sum(votes, axis=1) / votes.shape[2])  # coupled equally at first
    logits = jnp.zeros((), votes.dtype)
    for _ in range(iterations - 1):
        logits = logits + jnp.einsum("bijd,bjd->bij", votes, v)
        v = squash(jnp.einsum("bij,bijd->bjd", jax.nn.softmax(logits, axis=2), votes))
    return v


def margin_loss(lengths: jax.Array, label: jax.Array) -> jax.Array:
    """Returns Σ T max(0, .9 − |v|)² + .5 (1 − T) max(0, |v| − .1)² over classes (eq. 4).

    Args:
        lengths: lengths |v| of the class capsules, [B, J].
        label: int32 [B], index of the true class.

    Returns:
        Loss of each example, [B].
    """
    assert lengths.ndim == 2 and label.shape == lengths.shape[:1], (lengths.shape, label.shape)
    present = jax.nn.one_hot(label, lengths.shape[1], dtype=lengths.dtype)
    too_short, too_long = jax.nn.relu(UPPER - lengths), jax.nn.relu(lengths - LOWER)
    return jnp.sum(present * jnp.square(too_short) + ABSENT * (1.0 - present) * jnp.square(too_long), axis=1)


class CapsuleTrunk(Backbone):
    """The two convolutions below the capsules: images [B, 64, 64, 1] in [0, 1]; features [B, 147456]; no BatchNorm.

    Attributes:
        widths: output channels of the two convolutions; eight channels of the second form a capsule.
    """

    widths: tuple[int, int] = (64, 256)

    classifier = None

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """Returns the stages `conv1`, `relu1` and `primary`; the head squashes the map [B, 24, 24, 256] to capsules."""
        first, second = self.widths
        return [self.conv_stage("conv1", first, 9), ("relu1", nn.relu), self.conv_stage("primary", second, 9, 2)]


class CapsuleHead(nn.Module):
    """The class capsules, and the decoder that draws the image from the true class's capsule.

    The logit of glioma is ln |v_glioma| − ln |v_encephalitis|: its sigmoid is glioma's share of the two lengths, above
    one half exactly where the longer capsule, the network's own answer, is glioma.

    Attributes:
        pixels: side S of the image, pixels.
        capsules: number I of capsules in the lower layer.
        dropout: unused; an attribute of all heads.
    """

    pixels: int = 64
    capsules: int = CAPSULES
    dropout: float = 0.0

    def setup(self) -> None:
        """Creates the class capsules' transformations and the decoder's layers."""
        shape = self.capsules, CLASSES, PRIMARY, CLASS
        # Wide enough that both lengths start away from 0 and 1, where the gradient of squash nearly vanishes.
        self.transformation = self.param("transformation", nn.initializers.truncated_normal(0.1), shape, jnp.float32)
        self.decoder = [*(nn.Dense(width) for width in DECODER), nn.Dense(self.pixels**2)]

    def capsules_of(self, features: jax.Array) -> jax.Array:
        """Returns the class capsules [B, 2, 16] of features [B, 8 I]."""
        assert features.shape[1:] == (self.capsules * PRIMARY,), features.shape
        primary = squash(features.astype(jnp.float32).reshape(len(features), self.capsules, PRIMARY))
        return route(jnp.einsum("bik,ijkd->bijd", primary, self.transformation))

    def reconstruct(self, v: jax.Array, label: jax.Array) -> jax.Array:
        """Draws images [B, S·S] in [0, 1] from the capsules v [B, 2, 16] of classes `label`, int32 [B]."""
        x = (v * jax.nn.one_hot(label, CLASSES, dtype=v.dtype)[..., None]).reshape(len(v), -1)
        for layer in self.decoder[:-1]:
            x = nn.relu(layer(x))
        return nn.sigmoid(self.decoder[-1](x))

    def __call__(self, features: jax.Array, train: bool = False, embed: bool = False) -> jax.Array:
        """Returns the logit of glioma [B] for features [B, 8 I], or with `embed` both class capsules, [B, 32]."""
        v = self.capsules_of(features)
        if self.is_initializing():  # creates the decoder's parameters too
            self.reconstruct(v, jnp.zeros(len(v), jnp.int32))
        if embed:
            return v.reshape(len(v), -1)
        lengths = jnp.log(length(v))
        return lengths[:, 1] - lengths[:, 0]

    def loss(self, features: jax.Array, images: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the margin loss + 0.0005 × the drawn image's summed squared error, [B], and the logit of glioma [B].

        Args:
            features: [B, 8 I].
            images: [B, S, S, 1] in [0, 1].
            label: int32 [B], 0 or 1.
        """
        v = self.capsules_of(features)
        lengths = length(v)
        drawn = self.reconstruct(v, label)
        error = jnp.sum(jnp.square(drawn - images.reshape(len(images), -1).astype(drawn.dtype)), axis=1)
        logit = jnp.log(lengths[:, 1]) - jnp.log(lengths[:, 0])
        return margin_loss(lengths, label) + RECONSTRUCTION * error, logit
