"""The only place where a hidden label becomes visible, and what that costs."""

import jax
import jax.numpy as jnp


def reveal(label: jax.Array, labeled: jax.Array) -> jax.Array:
    """Returns labels as a learner may see them: label int32 [N] where `labeled` bool [N], -1 elsewhere."""
    assert label.shape == labeled.shape, (label.shape, labeled.shape)
    return jnp.where(labeled, label, -1)


def cost(labeled: jax.Array, patient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Counts the slices and the patients that were labelled; augmented copies are never counted.

    Args:
        labeled: bool [N].
        patient: int32 [N], 0 <= patient < N.

    Returns:
        Both counts, int32 [].
    """
    assert labeled.shape == patient.shape, (labeled.shape, patient.shape)
    has_label = jax.ops.segment_max(labeled.astype(jnp.int32), patient, labeled.size)
    return jnp.sum(labeled), jnp.sum(has_label > 0)
