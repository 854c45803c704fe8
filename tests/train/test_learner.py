import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lesion.models.head import Head
from lesion.train import learner, network, recipe, state, steps

KEY = jax.random.key(0)


def examples(n=40, copies=2, width=8):
    # Copies are noisy versions of the slice, as augmented ones are.
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((n, 1, width), np.float32) + 0.1 * rng.standard_normal((n, copies, width), np.float32)
    return learner.Examples(jnp.asarray(inputs), jnp.asarray(inputs[:, 0, 0] > 0, jnp.int32))


def batch(n=8, width=8):
    inputs = np.random.default_rng(0).standard_normal((n, width), np.float32)
    return steps.Batch(inputs, (inputs[:, 0] > 0).astype(np.int32), np.ones(n, bool))


@pytest.fixture
def setup():
    head = Head((4,), dropout=0.3)
    part, tx = network.of_head(head), recipe.optimizer(recipe.Recipe(lr=1e-2))
    start = state.create(*jax.jit(part.init)(KEY, batch().inputs), tx)
    return start, functools.partial(steps.train_step, apply_fn=part.apply, tx=tx)


def keys(n, first=0):
    return learner.example_keys(KEY, first, n)


def close(a, b, **tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), a.params, b.params)


def test_bce_is_the_formula_over_the_masked_only():
    logit, label = jnp.array([0.3, -2.0, 50.0]), jnp.array([1, 0, -1])
    total, count = steps.masked_bce(logit, label, jnp.array([True, True, False]))
    p = 1 / (1 + np.exp([-0.3, 2.0]))
    np.testing.assert_allclose(total, -np.log(p[0]) - np.log(1 - p[1]), rtol=1e-6)
    assert count == 2


def test_padding_changes_nothing(setup):
    start, step = setup
    plain = batch()
    padded = steps.Batch(*(np.concatenate([a, a[:3]]) for a in plain))
    padded.label[-3:], padded.mask[-3:] = -1, False
    a, info_a = jax.jit(step)(keys(8), start, plain)
    b, info_b = jax.jit(step)(keys(11), start, padded)
    close(a, b, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(info_a["loss"], info_b["loss"], rtol=1e-6)


def test_devices_give_the_numbers_of_one(setup):
    start, step = setup
    whole = batch()
    whole.mask[0] = False  # the halves hold different counts
    one, info = jax.jit(step)(keys(8), start, whole)
    halves = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), whole)
    on_devices = jax.vmap(functools.partial(step, axis_name="device"), (0, None, 0), axis_name="device")
    two, infos = jax.jit(on_devices)(keys(8).reshape(2, 4), start, halves)
    close(one, jax.tree.map(lambda x: x[1], two), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(infos["loss"], info["loss"], rtol=1e-6)


def test_class_weights_and_smoothing_are_the_formulas():
    logit, label, mask = (
        jnp.array([0.3, -2.0, 1.0, 9.0]),
        jnp.array([1, 0, 0, -1]),
        jnp.array([True, True, True, False]),
    )
    np.testing.assert_allclose(steps.balanced(label, mask), [3 / 4, 3 / 2])
    total, count = steps.masked_bce(logit, label, mask, steps.Objective(steps.balanced(label, mask), 0.2))
    p, target, weight = 1 / (1 + np.exp([-0.3, 2.0, -1.0])), np.array([0.9, 0.1, 0.1]), np.array([1.5, 0.75, 0.75])
    loss = -target * np.log(p) - (1 - target) * np.log(1 - p)
    np.testing.assert_allclose(total / count, (weight * loss).mean(), rtol=1e-6)


def test_the_backbone_learns_at_its_own_rate():
    params = {"head": {"w": jnp.ones(2)}, "backbone": {"w": jnp.ones(2)}}
    tx = recipe.optimizer(recipe.Recipe(lr=1e-2, backbone_lr=1e-3))
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = tx.update(params, tx.init(params))
    np.testing.assert_allclose(updates["backbone"]["w"], 0.1 * updates["head"]["w"], rtol=1e-6)


@pytest.mark.parametrize(("every", "want"), [("epoch", 1e-3 * 0.9**2), ("step", 1e-3 * 0.9**23)])
def test_the_rate_decays_by_epoch_or_step(every, want):
    rate = recipe.learning_rate(recipe.Recipe(decay_every=every), *map(jnp.int32, (2, 3, 10)))
    np.testing.assert_allclose(rate, want, rtol=1e-5)


def test_patience_takes_the_best_epoch():
    shown, mask, held = examples(), jnp.arange(40) < 20, jnp.arange(40) >= 30
    how = recipe.Recipe(60, 8, 0.3, lr_decay=1.0, patience=3)
    part = network.of_head(Head((16,)))
    method = learner.frozen(part, how)
    fitted, info = jax.jit(method.fit)(KEY, method.init(KEY, shown), shown, mask, held)
    count = int(info["num_epochs"])
    assert 3 < count < 60
    assert np.isfinite(info["loss"][:count]).all() and np.isnan(info["loss"][count:]).all()
    shorter = learner.frozen(part, how._replace(num_epochs=count - 3, patience=0))
    close(fitted, jax.jit(shorter.fit)(KEY, shorter.init(KEY, shown), shown, mask)[0], rtol=1e-5, atol=1e-6)


def test_the_order_of_an_epoch_has_every_masked_example_once_and_first():
    mask = jnp.arange(30) % 3 == 0
    order = learner.epoch_order(KEY, mask)
    assert sorted(order.tolist()) == list(range(30))
    assert mask[order[:10]].all()
    assert order[:10].tolist() != sorted(order[:10].tolist())


@pytest.mark.parametrize("batch_size", [16, 32, 100])
def test_fit_learns_and_never_reads_what_is_masked(batch_size):
    shown, mask = examples(), jnp.arange(40) < 30
    method = learner.frozen(network.of_head(Head((16,))), recipe.Recipe(20, batch_size, 5e-2, lr_decay=0.95))
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


def test_a_loss_that_is_not_finite_is_traced_to_its_batch():
    shown, mask = examples(), np.arange(40) < 30
    shown = shown._replace(inputs=shown.inputs.at[7, 1].set(jnp.nan))
    method = learner.frozen(network.of_head(Head((4,))), recipe.Recipe(2, 8), watched=True)
    _, info = method.fit(KEY, method.init(KEY, shown), shown, jnp.asarray(mask))
    step = int(info["bad_step"][0])
    found = [list(learner.batch_of(KEY, 0, i, np.repeat(mask, 2), 8)) for i in range(8)]
    assert [7 * 2 + 1 in batch for batch in found] == [i == step for i in range(8)]
    assert sorted(np.concatenate(found)) == list(range(60))
    assert info["logit"].shape == (2, 40)


def test_an_epoch_is_the_plain_loop():
    """Against a Python loop over batches, with a last one that is not full."""
    shown, mask = examples(10, 2), jnp.arange(10) < 9
    head = Head((4,))
    method = learner.frozen(network.of_head(head), recipe.Recipe(2, 8, 1e-2, lr_decay=0.5))
    start = method.init(KEY, shown)
    fitted, info = method.fit(KEY, start, shown, mask)
    params, tx, losses = start.params, optax.scale_by_adam(), []
    opt_state, update = tx.init(params), jax.jit(tx.update)
    inputs, label = np.reshape(shown.inputs, (20, -1)), np.repeat(shown.label, 2)

    @jax.jit
    @jax.value_and_grad
    def loss_and_grads(params, inputs, label):
        return optax.sigmoid_binary_cross_entropy(head.apply({"params": params["head"]}, inputs), label).mean()

    for epoch in range(2):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 0), epoch)
        order = np.asarray(learner.epoch_order(key, jnp.repeat(mask, 2)))[:18]
        for at in (order[:8], order[8:16], order[16:]):
            loss, grads = loss_and_grads(params, inputs[at], label[at].astype(np.float32))
            losses.append(float(loss) * len(at))
            with jax.numpy_dtype_promotion("standard"):
                updates, opt_state = update(grads, opt_state)
            params = jax.tree.map(lambda p, u, lr=1e-2 * 0.5**epoch: p - lr * u, params, updates)
    close(fitted, start._replace(params=params), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(info["loss"], np.reshape(losses, (2, 3)).sum(1) / 18, rtol=1e-4)
