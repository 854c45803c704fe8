"""Parameters drawn by NumPy: compiling a module's own initialisation takes longer than all else that a test does."""

import jax
import jax.numpy as jnp
import numpy as np


def draw(module, *inputs, scale=0.3):
    """A module's variables, all normal, biases too: zeros would hide what an empty input is given."""
    shapes, rng = jax.eval_shape(module.init, jax.random.key(0), *inputs), np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(scale * rng.standard_normal(s.shape, np.float32)), shapes)
