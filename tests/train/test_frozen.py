"""The learner on frozen features: what it reads, early stopping, and the loop it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lesion.models.heads import Head
from lesion.train import epoch
from lesion.train.frozen import Examples, frozen_learner
from lesion.train.network import Network
from lesion.train.step import Recipe

pytestmark = pytest.mark.gpu
KEY = jax.random.key(0)


def examples(n=40, copies=2, width=8):
    # Copies are noisy versions of the slice, as augmented ones are.
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((n, 1, width), np.float32) + 0.1 * rng.standard_normal((n, copies, width), np.float32)
    return Examples(jnp.asarray(inputs), jnp.asarray(inputs[:, 0, 0] > 0, jnp.int32))


def close(a, b, **tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), a.params, b.params)


@pytest.mark.slow
def test_patience_takes_the_best_epoch():
    shown, mask, held = examples(), jnp.arange(40) < 20, jnp.arange(40) >= 30
    recipe = Recipe(60, 8, 0.3, lr_decay=1.0, patience=3)
    part = Network(Head((16,)))
    method = frozen_learner(part, recipe)
    fitted, info = jax.jit(method.fit)(KEY, method.init(KEY, shown), shown, mask, held)
    count = int(info["num_epochs"])
    assert 3 < count < 60
    assert np.isfinite(info["loss"][:count]).all() and np.isnan(info["loss"][count:]).all()
    shorter = frozen_learner(part, recipe._replace(num_epochs=count - 3, patience=0))
    close(fitted, jax.jit(shorter.fit)(KEY, shorter.init(KEY, shown), shown, mask)[0], rtol=1e-5, atol=1e-6)


def test_the_order_of_an_epoch_has_every_masked_example_once_and_first():
    mask = jnp.arange(30) % 3 == 0
    order = epoch.epoch_order(KEY, mask)
    assert sorted(order.tolist()) == list(range(30))
    assert mask[order[:10]].all()
    assert order[:10].tolist() != sorted(order[:10].tolist())


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [16, 32, 100])
def test_fit_learns_and_never_reads_what_is_masked(batch_size):
    shown, mask = examples(), jnp.arange(40) < 30
    method = frozen_learner(Network(Head((16,))), Recipe(20, batch_size, 5e-2, lr_decay=0.95))
    start = method.init(KEY, shown)
    fit = jax.jit(method.fit)
    fitted, info = fit(KEY, start, shown, mask)
    assert info["loss"].shape == (20,)
    assert info["loss"][-1] < 0.5 * info["loss"][0]
    blind = shown._replace(
        label=jnp.where(mask, shown.label, -1), inputs=jnp.where(mask[:, None, None], shown.inputs, jnp.nan)
    )
    close(fitted, fit(KEY, start, blind, mask)[0], rtol=0)
    fit(jax.random.key(1), start, shown, ~mask)
    assert fit._cache_size() == 1
    probs = method.predict(fitted, shown)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(probs[:30, 1] > 0.5, shown.label[:30] == 1)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_traced_to_its_batch():
    shown, mask = examples(), np.arange(40) < 30
    shown = shown._replace(inputs=shown.inputs.at[7, 1].set(jnp.nan))
    method = frozen_learner(Network(Head((4,))), Recipe(2, 8), with_logits=True)
    _, info = method.fit(KEY, method.init(KEY, shown), shown, jnp.asarray(mask))
    step = int(info["bad_step"][0])
    found = [list(epoch.batch_indices(KEY, 0, i, np.repeat(mask, 2), 8)) for i in range(8)]
    assert [7 * 2 + 1 in batch for batch in found] == [i == step for i in range(8)]
    assert sorted(np.concatenate(found)) == list(range(60))
    assert info["logit"].shape == (2, 40)


@pytest.mark.slow
def test_an_epoch_is_the_plain_loop():
    """Against a Python loop over batches, with a last one that is not full."""
    shown, mask = examples(10, 2), jnp.arange(10) < 9
    head = Head((4,))
    method = frozen_learner(Network(head), Recipe(2, 8, 1e-2, lr_decay=0.5))
    start = method.init(KEY, shown)
    fitted, info = method.fit(KEY, start, shown, mask)
    params, tx, losses = start.params, optax.scale_by_adam(), []
    opt_state, update = tx.init(params), jax.jit(tx.update)
    inputs, label = np.reshape(shown.inputs, (20, -1)), np.repeat(shown.label, 2)

    @jax.jit
    @jax.value_and_grad
    def loss_and_grads(params, inputs, label):
        return optax.sigmoid_binary_cross_entropy(head.apply({"params": params["head"]}, inputs), label).mean()

    for number in range(2):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 0), number)
        order = np.asarray(epoch.epoch_order(key, jnp.repeat(mask, 2)))[:18]
        for rows in (order[:8], order[8:16], order[16:]):
            loss, grads = loss_and_grads(params, inputs[rows], label[rows].astype(np.float32))
            losses.append(float(loss) * len(rows))
            with jax.numpy_dtype_promotion("standard"):
                updates, opt_state = update(grads, opt_state)
            params = jax.tree.map(lambda p, u, lr=1e-2 * 0.5**number: p - lr * u, params, updates)
    close(fitted, start._replace(params=params), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(info["loss"], np.reshape(losses, (2, 3)).sum(1) / 18, rtol=1e-4)


def test_the_logits_of_an_epochs_steps_are_those_before_their_updates():
    shown, mask = examples(6, 2), jnp.arange(6) < 5
    network = Network(Head((4,)))
    method = frozen_learner(network, Recipe(1, 12, 0.1), with_logits=True)  # one step, one update
    start = method.init(KEY, shown)
    _, info = method.fit(KEY, start, shown, mask)
    before = np.where(np.repeat(mask, 2), network.predict(start.params, {}, shown.all), np.nan)
    np.testing.assert_allclose(info["step_logit"][0], before, rtol=1e-5, atol=1e-6)
    assert np.abs(info["logit"][0][:5] - before[::2][:5]).max() > 1e-3


def test_a_validation_loss_that_is_not_finite_is_reported():
    shown, mask, held = examples(), jnp.arange(40) < 20, jnp.arange(40) >= 30
    broken = shown._replace(inputs=shown.inputs.at[35].set(jnp.nan))
    method = frozen_learner(Network(Head((4,))), Recipe(3, 20, 1e-2, patience=1), with_logits=True)
    _, info = method.fit(KEY, method.init(KEY, shown), broken, mask, held)
    assert np.isfinite(info["loss"]).tolist() == [True, True, False] and info["num_epochs"] == 2
    assert np.isnan(info["validation_loss"]).all()
