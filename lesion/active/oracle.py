"""Reveals hidden labels, as no other module does, and counts what they cost."""

import jax
import jax.numpy as jnp


def reveal(label: jax.Array, labeled: jax.Array) -> jax.Array:
    """Returns the labels that a learner may see, int32 [N]: `label` where `labeled`, bool [N], -1 elsewhere."""
    assert label.shape == labeled.shape, (label.shape, labeled.shape)
    return jnp.where(labeled, label, -1)


def cost(labeled: jax.Array, patient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Counts the labelled slices and patients; augmented copies are never counted.

    Args:
        labeled: bool [N], whether a slice is labelled.
        patient: int32 [N], number of a slice's patient, 0 <= patient < N.

    Returns:
        Number of slices and number of patients, int32 [] each.
    """
    assert labeled.shape == patient.shape, (labeled.shape, patient.shape)
    has_label = jax.ops.segment_max(labeled.astype(jnp.int32), patient, labeled.size)
    return jnp.sum(labeled), jnp.sum(has_label > 0)
