"""Fits of one fold, in this process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from lesion.errors import UserError
from lesion.models.heads import Head
from lesion.train.frozen import Examples, frozen_learner
from lesion.train.network import Network
from lesion.transfer import folds, methods

KEYS = jax.random.key(0), jax.random.key(1)


def test_early_stopping_on_features_without_a_finite_validation_loss_is_an_error(rng):
    config, units = tiny.config(mode="frozen", patience=1), folds.Units.of_slices(tiny.slices())
    everything = np.ones(40, bool)
    _, held = folds.training_parts(config, units, everything)
    inputs = rng.standard_normal((40, 2, 8), np.float32)
    learner = frozen_learner(Network(Head((4,))), methods.recipe_of(config), with_logits=True)
    fit = methods.fit_on_features(config, learner)
    assert len(fit(KEYS, Examples(jnp.asarray(inputs), jnp.asarray(units.label)), units, everything).history) > 0
    inputs[np.flatnonzero(held)[0]] = np.nan
    with pytest.raises(UserError, match="the validation loss is not finite in epoch 1, "):
        fit(KEYS, Examples(jnp.asarray(inputs), jnp.asarray(units.label)), units, everything)
