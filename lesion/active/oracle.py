"""The only place where a hidden label becomes visible, and what that costs."""

import jax
import jax.numpy as jnp


def reveal(label: jax.Array, labeled: jax.Array) -> jax.Array:
    """Labels as a learner may see them: label int32 [N] where `labeled` bool [N], -1 elsewhere."""
    assert label.shape == labeled.shape, (label.shape, labeled.shape)
    return jnp.where(labeled, label, -1)


def cost(labeled: jax.Array, patient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Unique slices and unique patients asked for, augmented copies never counted.

    Args:
        labeled: bool [N].
        patient: int32 [N], 0 <= patient < N.

    Returns:
        Both counts, int32 [].
    """
    assert labeled.shape == patient.shape, (labeled.shape, patient.shape)
    asked = jax.ops.segment_max(labeled.astype(jnp.int32), patient, labeled.size)
    return jnp.sum(labeled), jnp.sum(asked > 0)
