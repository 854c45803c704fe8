import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lesion.inference import gradcam
from lesion.models.heads import Head
from lesion.models.stages import run_stages
from lesion.train.network import Network

KEY = jax.random.key(0)


class Small(nn.Module):
    """Three stages of its own; the last map has eight channels."""

    @nn.compact
    def __call__(self, images, train=False, *, mask=None, start=None, stop=None):
        stages = [(name, lambda x, n=name: nn.tanh(nn.Conv(8, (2, 2), 2, name=n)(x))) for name in ("a", "b", "c")]
        return run_stages(stages, images, start, stop)[0]


def explainer(pooling="mean", widths=(5,), stage="c"):
    """Parameters, what the stage gives for four pictures, and `explain(params, activation, sign)`."""
    model, images = Small(), jax.random.normal(KEY, (4, 16, 16, 3))
    network = Network(Head(widths), model, stop="c", pooling=pooling)
    params, _ = network.init(jax.random.key(1), images[:1], jax.jit(model.init)(KEY, images))
    activation = jax.jit(lambda x: model.apply({"params": params["backbone"]}, x, stop=stage))(images)

    def explain(params, activation, sign=None):
        return gradcam.explain(network, params, {}, activation, stage, sign)

    return params, activation, explain


CASES = [("mean", (5,), "b"), ("max", (5,), "c"), ("flatten", (5, 4), "a")]


def test_a_linear_head_on_mean_features_gives_cam():
    params, activation, explain = explainer(widths=())
    heat, logit = explain(params, activation, jnp.ones(4))
    # Zhou 2016: the classifier's weights on the map, here divided by its cells; they add up to the logit.
    cam = np.asarray(activation) @ np.asarray(params["head"]["logit"]["kernel"])[:, 0] / 4
    np.testing.assert_allclose(heat, np.maximum(cam, 0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        logit, cam.sum((1, 2)) + np.asarray(params["head"]["logit"]["bias"]), rtol=1e-4, atol=1e-6
    )
    other, _ = explain(params, activation, -jnp.ones(4))
    np.testing.assert_allclose(other, np.maximum(-cam, 0), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("pooling", "widths", "stage"), CASES)
def test_weights_are_the_logits_change_by_a_channel_and_the_forms_agree(pooling, widths, stage):
    params, activation, explain = explainer(pooling, widths, stage)

    def logit_of(shift, activation):  # [B, C], added to whole channels
        x = Small().apply({"params": params["backbone"]}, activation + shift[:, None, None], start=stage, stop="c")
        x = {"mean": x.mean((1, 2)), "max": x.max((1, 2)), "flatten": x.reshape(4, -1)}[pooling]
        return Head(widths).apply({"params": params["head"]}, x).sum()

    @jax.jit
    def everything():
        change = jax.grad(logit_of)(jnp.zeros((4, 8)), activation)
        alone = jax.vmap(lambda x: explain(params, x[None], jnp.ones(1))[0][0])(activation)
        given = [explain(params, activation, sign * jnp.ones(4)) for sign in (1, -1)]
        return change, alone, *given, explain(params, activation)

    change, alone, (heat, logit), (against, _), (called, again) = map(jax.device_get, everything())
    weight = change[:, None, None] / (activation.shape[1] * activation.shape[2])
    np.testing.assert_allclose(heat, np.maximum((activation * weight).sum(-1), 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(alone, heat, rtol=1e-4, atol=1e-6)
    assert heat.any() and against.any() and not ((heat > 0) & (against > 0)).any()
    np.testing.assert_allclose(called, np.where((logit > 0)[:, None, None], heat, against), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(again, logit, rtol=1e-4, atol=1e-6)
    plain = explain(params, activation, jnp.ones(4))[0]
    np.testing.assert_allclose(plain, heat, rtol=1e-4, atol=1e-6)


def test_nothing_where_there_is_no_evidence():
    params, _, explain = explainer(widths=())
    activation = jnp.zeros((2, 4, 4, 8)).at[0, 1, 2].set(1.0)
    params |= {"head": {"logit": {"kernel": jnp.ones((8, 1)), "bias": jnp.zeros(1)}}}
    heat, _ = explain(params, activation, jnp.ones(2))
    np.testing.assert_array_equal(np.argwhere(heat), [[0, 1, 2]])
    against, _ = explain(params, activation, -jnp.ones(2))
    assert not np.any(against)
