import functools

import jax
import numpy as np
import pytest
import tiny

from lesion import models
from lesion.errors import UserError
from lesion.models.head import Head
from lesion.runs import resume
from lesion.train import augment, devices, engine, finetune, fitting, network, recipe
from lesion.weights import pretrained

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def fitter():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", tiny.SPEC)
        yield build()


def build():
    given, variables = tiny.slices(), pretrained.random_variables("tiny", 0)[0]
    below, above = models.split("tiny", variables, "bn1")
    model = models.get_model("tiny", None)
    trained = network.of_backbone(
        model, Head((4,)), above, start="bn1", stop="bn2", pooling="mean", update_statistics=True
    )
    grey = functools.partial(models.preprocess, "tiny")
    prepare = finetune.from_pictures(model, grey, stop="bn1", seed=0, fresh=False, dtype="float32")
    data = finetune.Data(given.image, augment.slice_words(given.slice_id), given.label)
    how = recipe.Recipe(2, 6, 1e-2)
    return engine.build(devices.devices(), trained, prepare, how, below, data, 2, given.slice_id, False)


def test_one_compilation_serves_every_fold_and_no_hidden_label_is_read(fitter):
    label, mask = tiny.slices().label, np.arange(40) < 22
    fitted, history = fitting.fit(fitter, KEY, fitter.begin(KEY), label, mask)
    assert len(history) == 2
    blind, _ = fitting.fit(fitter, KEY, fitter.begin(KEY), np.where(mask, label, -1), mask)
    jax.tree.map(np.testing.assert_array_equal, fitted, blind)
    fitting.fit(fitter, KEY, fitter.begin(KEY), label, np.arange(40) >= 15)
    probs = engine.predict(fitter, fitted, ~mask)
    assert np.isnan(probs[mask]).all() and np.isfinite(probs[~mask]).all()
    np.testing.assert_array_equal(engine.predict(fitter, fitted)[~mask], probs[~mask])
    assert fitter.train._cache_size() == fitter.evaluate._cache_size() == 1


def test_only_what_is_above_the_stage_is_trained(fitter):
    state = fitter.begin(KEY)
    assert set(state.params["backbone"]) == {"conv2", "bn2"} and set(state.batch_stats) == {"bn2"}
    fitted, _ = fitting.fit(fitter, KEY, state, tiny.slices().label, np.ones(40, bool))
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), state.batch_stats, fitted.batch_stats)
    assert all(jax.tree.leaves(moved))


def test_a_checkpoint_of_another_run_is_refused(fitter, tmp_path):
    label, mask = tiny.slices().label, np.ones(40, bool)

    def fit(run, key=KEY):
        keeper = resume.Keeper(tmp_path, 2)
        try:
            return fitting.fit(fitter, key, fitter.begin(KEY), label, mask, hooks=fitting.Hooks(keeper, run=run))
        finally:
            keeper.close()

    whole, history = fit({"split_hash": "a"})  # leaves the checkpoint of its first epoch
    again, same = fit({"split_hash": "a"})
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    assert same == history
    for run, key, word in (({"split_hash": "b"}, KEY, "split_hash"), ({"split_hash": "a"}, jax.random.key(1), "key")):
        with pytest.raises(UserError, match=f"is of another run \\({word} differs\\)"):
            fit(run, key)
