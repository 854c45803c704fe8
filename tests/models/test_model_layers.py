import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesion.models import conv, layers

pytestmark = pytest.mark.gpu
KEY = jax.random.key(0)
# name: channels in, out, kernel, stride, groups, side, padding
CONVS = {
    "pointwise": (6, 5, 1, 1, 1, 9, "same"),
    "pointwise, stride 2": (6, 5, 1, 2, 1, 8, "same"),
    "pointwise, many rows": (5, 6, 1, 1, 1, 68, "same"),
    "pointwise, many rows, fewer channels": (6, 5, 1, 1, 1, 68, "same"),
    "depthwise 3": (6, 6, 3, 1, 6, 9, "same"),
    "depthwise 3, stride 2, even": (6, 6, 3, 2, 6, 8, "same"),
    "depthwise 5, stride 2, odd": (6, 6, 5, 2, 6, 9, "same"),
    "dense 3": (6, 5, 3, 1, 1, 7, "same"),
    "dense 3, stride 2": (6, 5, 3, 2, 1, 8, "same"),
    "dense 4, stride 2, padded more": (3, 5, 4, 2, 1, 10, ((3, 3), (3, 3))),
    "dense 5, stride 4": (3, 5, 5, 4, 1, 13, ((2, 2), (2, 2))),
    "unpadded, stride 2": (6, 5, 3, 2, 1, 9, ((0, 0), (0, 0))),
    "two groups": (6, 4, 3, 1, 2, 7, ((1, 1), (1, 1))),
    "line": (6, 5, (1, 7), 1, 1, 9, ((0, 0), (3, 3))),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CONVS.values(), ids=CONVS)
def test_both_ways_to_convolve_agree_forward_and_backward(case, rng):
    inputs, features, k, stride, groups, side, padding = case
    x = rng.standard_normal((2, side, side, inputs), np.float32)
    kernel_size = k if isinstance(k, tuple) else (k, k)
    kernel = rng.standard_normal((*kernel_size, inputs // groups, features), np.float32)
    kernel /= np.sqrt(kernel[..., 0].size, dtype=np.float32)

    def run(impl):
        module = layers.Conv(features, kernel_size, stride, padding, groups, impl=impl)

        def loss(variables, x):
            out = module.apply(variables, x)
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))({"params": {"kernel": kernel}}, x)

    with jax.default_matmul_precision("highest"):
        for a, b in zip(jax.tree.leaves(run("lax")), jax.tree.leaves(run("matmul")), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


POOLS = {
    "max": lambda x, impl: layers.max_pool(x, 3, 2, conv.symmetric_padding(1), impl),
    "max, unpadded": lambda x, impl: layers.max_pool(x, 3, 2, impl=impl),
    "mean of torch": lambda x, impl: layers.avg_pool(x, 3, 1, conv.symmetric_padding(1), True, impl),
    "mean of Keras": lambda x, impl: layers.avg_pool(x, 3, 1, conv.symmetric_padding(1), False, impl),
}


@pytest.mark.slow
@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_both_ways_to_pool_agree_forward_and_backward(pool, side, rng):
    x = rng.standard_normal((2, side, side, 3), np.float32)
    run = lambda impl: jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(pool(x, impl)))))(x)  # noqa: E731
    for a, b in zip(jax.tree.leaves(run("lax")), jax.tree.leaves(run("matmul")), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_pools_by_hand():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    assert layers.avg_pool(x, 3, 1, conv.symmetric_padding(1), True)[0, 0, 0, 0] == pytest.approx(8 / 9)
    assert layers.avg_pool(x, 3, 1, conv.symmetric_padding(1), False)[0, 0, 0, 0] == pytest.approx(2)
    assert layers.max_pool(-x, 3, 2, conv.symmetric_padding(1))[0, ..., 0].tolist() == [[0, -1], [-3, -4]]
    cells = layers.adaptive_avg_pool(jnp.arange(7.0).reshape(1, 7, 1, 1) * jnp.ones((1, 7, 7, 1)), 6)
    np.testing.assert_allclose(cells[0, :, 0, 0], [0.5, 1.5, 2.5, 3.5, 4.5, 5.5])  # torch's cells overlap


def test_response_normalisation_by_hand():
    x = jnp.full((1, 1, 1, 6), 2.0)
    got = layers.local_response_norm(x, size=5, alpha=0.5, beta=0.75, k=1.0)[0, 0, 0]
    np.testing.assert_allclose(got, [2 * (1 + 0.1 * 4 * n) ** -0.75 for n in (3, 4, 5, 5, 4, 3)], rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_batch_normalisations_gradient_is_that_of_the_plain_formula(masked, rng):
    x = rng.standard_normal((6, 5, 5, 7), np.float32) * 2 + 1
    mask = np.arange(6) < 4 if masked else None
    norm = layers.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-3)
    params = {"scale": np.linspace(0.5, 2, 7, dtype=np.float32), "bias": np.linspace(-1, 1, 7, dtype=np.float32)}
    stats = jax.jit(norm.init)(KEY, x)["batch_stats"]

    def ours(params, x):
        return norm.apply({"params": params, "batch_stats": stats}, x, mask, mutable=["batch_stats"])[0]

    def plain(params, x):
        counted = x[:4] if masked else x
        mean, var = counted.mean((0, 1, 2)), counted.var((0, 1, 2))
        return (x - mean) / jnp.sqrt(var + 1e-3) * params["scale"] + params["bias"]

    weight = np.cos(np.arange(x.size, dtype=np.float32)).reshape(x.shape)
    run = lambda f: jax.jit(jax.grad(lambda p, x: jnp.sum(weight * jnp.sin(f(p, x))), (0, 1)))(params, x)  # noqa: E731
    for a, b in zip(jax.tree.leaves(run(ours)), jax.tree.leaves(run(plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_same_padding_puts_the_odd_pixel_last():
    assert conv.same_padding((224, 224), (3, 3), 2) == ((0, 1), (0, 1))
    assert conv.same_padding((7, 9), (5, 3), 1) == ((2, 2), (1, 1))
