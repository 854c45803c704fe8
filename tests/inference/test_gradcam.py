import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lesion.inference import gradcam
from lesion.models.head import Head
from lesion.models.layers import run_stages

KEY = jax.random.key(0)


class Small(nn.Module):
    """Three stages of its own; the last map has eight channels."""

    @nn.compact
    def __call__(self, images, train=False, *, start=None, stop=None):
        stages = [(name, lambda x, n=name: nn.tanh(nn.Conv(8, (2, 2), 2, name=n)(x))) for name in ("a", "b", "c")]
        return run_stages(stages, images, start, stop)[0]


def network(pooling="mean", widths=(5,), stage="c"):
    model, head, images = Small(), Head(widths), jax.random.normal(KEY, (4, 16, 16, 3))
    variables = jax.jit(model.init)(KEY, images)
    width = 8 * (4 if pooling == "flatten" else 1)
    params = head.init(jax.random.key(1), jnp.zeros((1, width)))["params"]
    how = gradcam.explainer(model, head, stage=stage, last_map="c", pooling=pooling)
    return how, variables, params, images, head


CASES = [("mean", (5,), "b"), ("max", (5,), "c"), ("flatten", (5, 4), "a")]


def test_a_linear_head_on_mean_features_gives_cam():
    how, variables, params, images, _ = network(widths=())
    activation = jax.jit(how.activate)(variables, images)
    heat, logit = how.explain(variables, params, activation, jnp.ones(4))
    # Zhou 2016: the classifier's weights on the map, here divided by its cells; they add up to the logit.
    cam = np.asarray(activation) @ np.asarray(params["logit"]["kernel"])[:, 0] / 4
    np.testing.assert_allclose(heat, np.maximum(cam, 0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(logit, cam.sum((1, 2)) + np.asarray(params["logit"]["bias"]), rtol=1e-4, atol=1e-6)
    other, _ = how.explain(variables, params, activation, -jnp.ones(4))
    np.testing.assert_allclose(other, np.maximum(-cam, 0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("pooling", "widths", "stage"), CASES)
def test_weights_are_the_logits_change_by_a_channel_and_the_forms_agree(pooling, widths, stage):
    how, variables, params, images, head = network(pooling, widths, stage)

    def logit_of(shift, activation):  # [B, C], added to whole channels
        x = Small().apply(variables, activation + shift[:, None, None], start=stage, stop="c")
        x = {"mean": x.mean((1, 2)), "max": x.max((1, 2)), "flatten": x.reshape(4, -1)}[pooling]
        return head.apply({"params": params}, x).sum()

    @jax.jit
    def everything():
        activation = how.activate(variables, images)
        change = jax.grad(logit_of)(jnp.zeros((4, 8)), activation)
        one = jax.vmap(lambda x: how.explain(variables, params, x[None], jnp.ones(1))[0][0])(activation)
        given = [how.explain(variables, params, activation, sign * jnp.ones(4)) for sign in (1, -1)]
        return activation, change, one, *given, how.explain(variables, params, activation)

    activation, change, one, (heat, logit), (against, _), (called, again) = map(jax.device_get, everything())
    weight = change[:, None, None] / (activation.shape[1] * activation.shape[2])
    np.testing.assert_allclose(heat, np.maximum((activation * weight).sum(-1), 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(one, heat, rtol=1e-4, atol=1e-6)
    assert heat.any() and against.any() and not ((heat > 0) & (against > 0)).any()
    np.testing.assert_allclose(called, np.where((logit > 0)[:, None, None], heat, against), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(again, logit, rtol=1e-4, atol=1e-6)
    plain = how.explain(variables, params, jnp.asarray(activation), jnp.ones(4))[0]
    np.testing.assert_allclose(plain, heat, rtol=1e-4, atol=1e-6)


def test_nothing_where_there_is_no_evidence():
    how, variables, *_ = network(widths=())
    activation = jnp.zeros((2, 4, 4, 8)).at[0, 1, 2].set(1.0)
    params = {"logit": {"kernel": jnp.ones((8, 1)), "bias": jnp.zeros(1)}}
    heat, _ = how.explain(variables, params, activation, jnp.ones(2))
    np.testing.assert_array_equal(np.argwhere(heat), [[0, 1, 2]])
    against, _ = how.explain(variables, params, activation, -jnp.ones(2))
    assert not np.any(against)
