import pickle

import numpy as np
import pytest
import tiny

from lesion import benchmarks, models
from lesion.benchmarks import training
from lesion.train import augment

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "stage"), [("resnet50", "layer4_0"), ("inception_v3", "Mixed_7a"), ("alexnet", "conv5")]
)
def test_the_late_stage_and_what_caching_below_it_saves(name, stage):
    assert training.late_stage(name) == stage
    # From the last sixth on there is a backward pass above and none below: at most four times the forward pass above.
    assert 1.5 < training.gain_by_work(name, stage) < 5


def half_a_gibibyte():
    held = []
    return lambda: held.append(np.ones(2**26)) or 0.0


def nothing():
    return lambda: 0.0


def test_the_memory_of_a_process_of_its_own():
    difference = training._peak_of(half_a_gibibyte) - training._peak_of(nothing)
    assert difference == pytest.approx(0.5, abs=0.15)


def test_every_contender_has_its_turn_and_its_row(monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", tiny.SPEC)

    def peak_of(build, *args):  # another process would not know the backbone
        return training._peak_gib(build, *pickle.loads(pickle.dumps(args)))

    monkeypatch.setattr(training, "_peak_of", peak_of)
    monkeypatch.setattr(augment, "augment", lambda key, image, copy: image)  # slow to compile
    monkeypatch.setattr(training, "gain_by_work", lambda name, stage: 2.0)
    monkeypatch.setattr(training, "HEAD_EXAMPLES", 64)
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    config = tiny.config(batch_size=8)
    with config.unlocked():
        config.optim.backbone_lr = config.optim.get_oneway_ref("lr")  # as in configs/common.py
    rows = training.run(config, 2, 1)
    assert all(row.value > 0 and row.other > 0 for row in rows)
    rows.append(training.Row("epoch of a head", 3000.0, "Keras fit", 2000.0, "examples/s", "1.3"))
    text = benchmarks.table(rows)
    assert text[0][3] == "ratio"
    assert text[-1] == ["epoch of a head", "3000 examples/s", "Keras fit 2000", "1.50", "1.3"]
