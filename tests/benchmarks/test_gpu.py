import time

import jax.numpy as jnp
import pytest
import tiny

from lesion import files, models
from lesion.benchmarks import gpu
from lesion.errors import UserError
from lesion.train import augment

pytestmark = pytest.mark.slow
PRIMITIVES = ("depthwise 3x3", "PReLU")


@pytest.fixture
def small(monkeypatch):
    """Everything on a tiny backbone, in this process: another would not know it."""
    monkeypatch.setitem(models.MODELS, "tiny", tiny.SPEC)
    monkeypatch.setattr(gpu, "LITE", "tiny")
    monkeypatch.setattr(gpu, "initial_variables", lambda: gpu.training.trained_variables(tiny.config()))
    monkeypatch.setattr(gpu.numerics, "PRIMITIVES", {name: gpu.numerics.PRIMITIVES[name] for name in PRIMITIVES})
    monkeypatch.setattr(gpu, "in_process", gpu.take)
    monkeypatch.setattr(augment, "augment", lambda key, image, copy: image)  # slow to compile


def test_every_check_is_done_once_and_a_later_call_does_what_failed(small, monkeypatch, tmp_path):
    rows = gpu.run(tiny.config(), tmp_path, True, 0)
    assert [row[0] for row in rows[1:]] == list(gpu.STAGES) and {row[2] for row in rows[1:]} == {gpu.NOT_REACHED}
    with monkeypatch.context() as patch:
        patch.setattr(gpu, "medians", lambda *args: 1 / 0)
        rows = gpu.run(tiny.config(), tmp_path, True, 60)
    assert rows[-1] == ["epoch", "tiny", "failed: ZeroDivisionError: division by zero", "NO"]
    assert all(row[3] in ("yes", "-") for row in rows[1:-1]), rows
    first = files.read_json(tmp_path / gpu.FILE)
    assert "cpu" in rows[0][0] and (tmp_path / "gpu_check.md").read_text().count("|\n") == len(rows) + 1
    gpu.run(tiny.config(), tmp_path, True, 60)
    again = files.read_json(tmp_path / gpu.FILE)
    assert again.pop("epoch")["tiny"]["bare"] > 0 < len(first.pop("epoch")) and again == first


def test_a_loss_that_is_not_finite_is_traced_and_bisected(small, monkeypatch):
    plan = gpu.Plan(tiny.config(), True, time.time() + 60)
    assert {name for name, _ in gpu._nan(plan, {"bfloat16": {"ok": True}})} == {"float32", "bfloat16"}
    assert {name for name, _ in gpu._nan(plan, {"bfloat16": {"ok": False}})} == set(gpu.VARIANTS)
    wide = gpu.train_lite(gpu.VARIANTS["all convolutions in float32"], 2, plan)
    assert wide["ok"] and len(wide["losses"]) == 2
    given = models.preprocess
    monkeypatch.setattr(models, "preprocess", lambda name, image: given(name, image).at[:, 3, 3].set(jnp.inf))
    found = gpu.train_lite(gpu.Variant(), 2, plan)
    assert found["text"] == "not finite in step 1" and not found["ok"]
    where = found["where"]
    assert where["weights"] == [] and where["stages"][0] == "conv1" and "backbone/conv1/kernel" in where["gradients"]


def test_results_of_another_machine_are_not_mixed(tmp_path):
    plan, path = gpu.Plan(tiny.config(), True, time.time() + 60), tmp_path / gpu.FILE
    files.write_json(path, {"machine": {"device": "moon"}})
    with pytest.raises(UserError, match="is of another machine or other versions"):
        gpu.in_process("speed", plan, path)
    assert files.read_json(path) == {"machine": {"device": "moon"}}
