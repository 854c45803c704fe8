"""A CapsNet and an SVM of tiny size through single steps and through whole runs."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from lesion import models
from lesion.errors import UserError
from lesion.models import cnn, heads
from lesion.train import epoch
from lesion.train import step as steps
from lesion.train.network import Network
from lesion.train.step import Recipe
from lesion.transfer.checks import check_config
from lesion.transfer.methods import run_transfer

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
SIDE = tiny.BASELINE_SIDE


@pytest.fixture(autouse=True, scope="module")
def _rows():
    with pytest.MonkeyPatch.context() as patch:
        for name, row in tiny.BASELINES.items():
            patch.setitem(models.BASELINES, name, row)
        yield


@pytest.fixture(scope="module")
def capsules():
    """State, step, the same compiled, the loss, and a batch of 8 whose first is padding."""
    model = models.get_model("tiny_capsnet", None)
    pictures = jax.random.uniform(KEY, (8, SIDE, SIDE, 1))
    head = tiny.BASELINES["tiny_capsnet"].head()
    network = Network(head, model, stop="primary", pooling="flatten", own_loss=True)
    tx = steps.optimizer(Recipe(lr=1e-3))
    variables = jax.jit(model.init)(KEY, pictures)
    start = steps.create_state(*jax.jit(network.init)(KEY, pictures, variables), tx)
    label, mask = jnp.array([-1, 1, 0, 0, 1, 1, 1, 0]), jnp.arange(8) > 0
    step = functools.partial(steps.train_step, None, network=network, tx=tx)
    return start, step, jax.jit(step), jax.jit(network.loss), steps.Batch(pictures, label, mask)


def test_the_loss_is_of_the_masked_by_their_classes_weights(capsules):
    start, _, step, loss, batch = capsules
    weight = jnp.array([3.0, 0.5])
    _, info = step(start, batch, objective=steps.Objective(weight))
    label = jnp.maximum(batch.label, 0)
    each, logit, _ = loss(start.params, {}, batch.inputs, label, batch.mask)
    np.testing.assert_allclose(info["loss"], np.mean((weight[label] * each)[1:]), rtol=1e-5)
    np.testing.assert_allclose(info["logit"], logit, rtol=1e-5)
    other = batch._replace(inputs=batch.inputs.at[0].set(0.5), label=batch.label.at[0].set(1))
    ours, theirs = (step(start, b)[0].params for b in (batch, other))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), ours, theirs)


def test_devices_give_the_numbers_of_one(capsules):
    start, plain, step, _, whole = capsules
    one, info = step(start, whole)
    halves = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), whole)  # they hold different counts
    on_two = jax.vmap(functools.partial(plain, axis_name="device"), (None, 0), axis_name="device")
    two, infos = jax.jit(on_two)(start, halves)
    np.testing.assert_allclose(infos["loss"], info["loss"], rtol=1e-6)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(lambda a, b: close(a, b[1]), one.params, two.params)


def test_a_step_makes_the_loss_smaller(capsules):
    now, _, step, _, batch = capsules
    losses = []
    for _ in range(4):
        now, info = step(now, batch)
        losses.append(float(info["loss"]))
    assert losses == sorted(losses, reverse=True)


def test_given_parameters_take_the_place_of_fresh_ones():
    trunk, head = cnn.SmallCNN((cnn.Block(2, 3),), "relu"), heads.BaselineHead((3, 2), (0.5, 0.5), names=("fc6", "fc7"))
    pictures = jnp.ones((2, 4, 4, 1))
    lower = {"params": {"conv1": {"kernel": jnp.ones((3, 3, 1, 2)), "bias": jnp.zeros(2)}}}
    given = {"fc6": {"kernel": jnp.ones((8, 3)), "bias": jnp.ones(3)}, "fc8": {}}
    network = Network(head, trunk, stop="relu1", pooling="flatten")
    params, _ = jax.jit(network.init)(KEY, pictures, lower, given)
    assert set(params["head"]) == {"fc6", "fc7", "logit"}
    np.testing.assert_array_equal(params["head"]["fc6"]["kernel"], 1)
    keys = epoch.example_keys(KEY, 0, 2)
    assert jax.eval_shape(network.sample, params, {}, pictures, keys).shape == (2,)
    assert jax.eval_shape(network.embed, params, {}, pictures).shape == (2, 2)


@pytest.mark.parametrize("name", tiny.BASELINE_RUNS)
def test_a_run_leaves_what_transfer_does(name, tmp_path):
    made = tiny.config(backbone=name, num_epochs=2, **tiny.BASELINE_RUNS[name])
    check_config(made)
    setup = tiny.setup(made, tmp_path / "data")
    scores = run_transfer(made, setup, tmp_path / "run")
    assert np.isfinite(scores["train_loss"]).all()
    rows = (tmp_path / "run/predictions.csv").read_text().splitlines()
    assert len(rows) == 41 and rows[0] == "fold,patient,slice,label,probability"
    assert (tmp_path / "run/checkpoints/fold_1/provenance.json").exists()
    weights = json.loads((tmp_path / "run/config.json").read_text())["weights"]
    wanted = {"tiny_capsnet": ("scratch", None), "tiny_svm": ("random", False)}[name]
    assert (weights["source"], weights["pretrained"]) == wanted
    (tmp_path / "run/metrics.json").unlink()  # killed before its end: the folds are not trained again
    setup = setup._replace(variables={})
    assert run_transfer(made, setup, tmp_path / "run") == scores
    assert run_transfer(made, setup, tmp_path / "run") is None


REFUSED = {
    "frozen": ({"backbone": "tiny_capsnet", "mode": "frozen"}, "is a baseline: --config.mode=scratch"),
    "a head": ({"backbone": "tiny_capsnet", "head_widths": (8,)}, "has a classifier of its own"),
    "smoothing": ({"backbone": "tiny_capsnet", "label_smoothing": 0.1}, "smooths cross-entropy"),
    "no fields": ({"backbone": "tiny_svm", "svm": None}, "needs the fields svm"),
    "patience": ({"backbone": "tiny_svm", "patience": 3}, "no epochs to stop at"),
    "features": ({"backbone": "tiny_svm", "svm": tiny.SVM | {"num_features": 9}}, "num_features=9: tiny_svm has 8"),
    "c": ({"backbone": "tiny_svm", "svm": tiny.SVM | {"c": 0.0}}, "above 0"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_one_line(changes, message):
    changes = tiny.BASELINE_RUNS[changes["backbone"]] | changes
    made = tiny.config(**{k: v for k, v in changes.items() if v is not None})
    with pytest.raises(UserError, match=message):
        check_config(made)
