"""One training step: the formulas, padding, devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from lesion.models.heads import Head
from lesion.train import epoch
from lesion.train import step as steps
from lesion.train.network import Network
from lesion.train.step import Recipe

pytestmark = pytest.mark.gpu
KEY = jax.random.key(0)


def batch(n=8, width=8):
    inputs = np.random.default_rng(0).standard_normal((n, width), np.float32)
    return steps.Batch(inputs, (inputs[:, 0] > 0).astype(np.int32), np.ones(n, bool))


@pytest.fixture
def setup():
    head = Head((4,), dropout=0.3)
    part, tx = Network(head), steps.optimizer(Recipe(lr=1e-2))
    start = steps.create_state(*jax.jit(part.init)(KEY, batch().inputs), tx)
    return start, functools.partial(steps.train_step, network=part, tx=tx)


def keys(n, first=0):
    return epoch.example_keys(KEY, first, n)


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
    np.testing.assert_allclose(steps.balanced_weights(label, mask), [3 / 4, 3 / 2])
    total, count = steps.masked_bce(logit, label, mask, steps.Objective(steps.balanced_weights(label, mask), 0.2))
    p, target, weight = 1 / (1 + np.exp([-0.3, 2.0, -1.0])), np.array([0.9, 0.1, 0.1]), np.array([1.5, 0.75, 0.75])
    loss = -target * np.log(p) - (1 - target) * np.log(1 - p)
    np.testing.assert_allclose(total / count, (weight * loss).mean(), rtol=1e-6)


def test_the_backbone_learns_at_its_own_rate():
    params = {"head": {"w": jnp.ones(2)}, "backbone": {"w": jnp.ones(2)}}
    tx = steps.optimizer(Recipe(lr=1e-2, backbone_lr=1e-3))
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = tx.update(params, tx.init(params))
    np.testing.assert_allclose(updates["backbone"]["w"], 0.1 * updates["head"]["w"], rtol=1e-6)


@pytest.mark.parametrize(("every", "want"), [("epoch", 1e-3 * 0.9**2), ("step", 1e-3 * 0.9**23)])
def test_the_rate_decays_by_epoch_or_step(every, want):
    rate = steps.learning_rate(Recipe(decay_every=every), *map(jnp.int32, (2, 3, 10)))
    np.testing.assert_allclose(rate, want, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("count", [6, 2, 1])
def test_a_short_batch_moves_the_running_statistics_by_its_share(count, rng):
    network, tx = Network(Head((4,)), tiny.Tiny(), stop="bn2", pooling="mean"), steps.optimizer(Recipe())
    inputs = rng.standard_normal((6, 16, 16, 3), np.float32)
    start = steps.create_state(*network.init(KEY, inputs, tiny.Tiny().init(KEY, inputs)), tx)
    short = steps.Batch(inputs, np.arange(6, dtype=np.int32) % 2, np.arange(6) < count)
    step = functools.partial(steps.train_step, keys(6), start, short, network=network, tx=tx)
    full, weighted = (jax.jit(functools.partial(step, batch_size=size))()[0].batch_stats for size in (None, 6))
    for old, new, got in zip(*map(jax.tree.leaves, (start.batch_stats, full, weighted)), strict=True):
        want = new if count == 6 else old + count / 6 * (new - old)
        np.testing.assert_allclose(got, want, rtol=0 if count == 6 else 1e-5, atol=0 if count == 6 else 1e-7)
