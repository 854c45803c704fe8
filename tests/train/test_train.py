"""The training loop in this process: compilations, what is trained, checkpoints of other runs."""

import functools

import jax
import numpy as np
import pytest
import tiny

from lesion import models
from lesion.errors import UserError
from lesion.models.heads import Head
from lesion.runs import resume
from lesion.train import augment, devices, train
from lesion.train import input as inputs
from lesion.train.network import Network
from lesion.train.step import Recipe
from lesion.weights import pretrained

pytestmark = pytest.mark.gpu
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def trainer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", tiny.SPEC)
        yield build()


def build():
    slices, variables = tiny.slices(), pretrained.random_variables("tiny", 0)[0]
    frozen, trained = models.split("tiny", variables, "bn1")
    model = models.get_model("tiny", None)
    network = Network(Head((4,)), model, start="bn1", stop="bn2", pooling="mean")
    grey = functools.partial(models.preprocess, "tiny")
    inputs_of = inputs.picture_inputs(model, grey, stop="bn1", seed=0, fresh=False, dtype="float32")
    data = inputs.SliceData(slices.image, augment.id_hashes(slices.slice_id), slices.label)
    return train.make_trainer(
        devices.devices(),
        network,
        inputs_of,
        Recipe(2, 6, 1e-2),
        data,
        variables=trained,
        frozen_variables=frozen,
        copies=2,
        slice_id=slices.slice_id,
        streamed=False,
    )


@pytest.mark.slow
def test_one_compilation_serves_every_fold_and_no_hidden_label_is_read(trainer):
    label, mask = tiny.slices().label, np.arange(40) < 22
    fitted, history = train.fit(trainer, KEY, trainer.init(KEY), label, mask)
    assert len(history) == 2
    blind, _ = train.fit(trainer, KEY, trainer.init(KEY), np.where(mask, label, -1), mask)
    jax.tree.map(np.testing.assert_array_equal, fitted, blind)
    train.fit(trainer, KEY, trainer.init(KEY), label, np.arange(40) >= 15)
    probs = train.predict(trainer, fitted, ~mask)
    assert np.isnan(probs[mask]).all() and np.isfinite(probs[~mask]).all()
    np.testing.assert_array_equal(train.predict(trainer, fitted)[~mask], probs[~mask])
    assert trainer.train_step._cache_size() == trainer.eval_step._cache_size() == 1


@pytest.mark.slow
def test_only_what_is_above_the_stage_is_trained(trainer):
    state = trainer.init(KEY)
    assert set(state.params["backbone"]) == {"conv2", "bn2"} and set(state.batch_stats) == {"bn2"}
    fitted, _ = train.fit(trainer, KEY, state, tiny.slices().label, np.ones(40, bool))
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), state.batch_stats, fitted.batch_stats)
    assert all(jax.tree.leaves(moved))


def test_early_stopping_without_a_finite_validation_loss_is_an_error(trainer, monkeypatch):
    label, held = tiny.slices().label, np.arange(40) >= 30
    monkeypatch.setattr(train, "_predict", lambda *args: np.full((40, 2), np.nan, np.float32))
    patient = trainer._replace(recipe=trainer.recipe._replace(patience=2))
    with pytest.raises(UserError, match="the validation loss is not finite in epoch 1, "):
        train.fit(patient, KEY, trainer.init(KEY), label, ~held, held)


def test_a_checkpoint_of_another_run_is_refused(trainer, tmp_path):
    label, mask = tiny.slices().label, np.ones(40, bool)

    def fit(run, key=KEY):
        checkpointer = resume.Checkpointer(tmp_path, 2)
        try:
            return train.fit(trainer, key, trainer.init(KEY), label, mask, hooks=train.Hooks(checkpointer, run=run))
        finally:
            checkpointer.close()

    whole, history = fit({"split_hash": "a"})  # leaves the checkpoint of its first epoch
    again, same = fit({"split_hash": "a"})
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    assert same == history
    for run, key, word in (({"split_hash": "b"}, KEY, "split_hash"), ({"split_hash": "a"}, jax.random.key(1), "key")):
        with pytest.raises(UserError, match=f"is of another run \\({word} differs\\)"):
            fit(run, key)
