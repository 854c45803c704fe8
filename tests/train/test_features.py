from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from lesion import models
from lesion.dataset import Slices
from lesion.errors import UserError
from lesion.models import conv
from lesion.train import features
from lesion.weights import pretrained

NUM_BYTES = 8 * 4  # of an example's features


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", tiny.SPEC)


@pytest.fixture
def slices():
    return tiny.slices(7)


@pytest.fixture
def variables(tiny_backbone):
    return pretrained.random_variables("tiny", 0)[0]


def compute(folder, slices, variables, sha256="w", spec=None, **changes):
    options, spec = dict(num_copies=2, seed=0, stage="test") | changes, spec or features.last_map_spec("tiny")
    return features.load_or_compute(folder, slices, spec, variables, sha256, **options)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", ""])
def test_only_an_output_that_is_not_pooled_is_rounded_to_bfloat16(pooling, tmp_path, slices, variables):
    spec = features.FeatureSpec("tiny", "bn2", pooling, "bfloat16")
    found = compute(tmp_path, slices, variables, spec=spec)
    again = compute(tmp_path, slices, variables, spec=spec)
    assert found.dtype == again.dtype == (np.float32 if pooling else jnp.bfloat16)
    exact = compute(tmp_path, slices, variables, spec=spec._replace(dtype="float32"))
    np.testing.assert_allclose(found.astype(np.float32), exact, rtol=0.02, atol=0.02 * exact.max())
    assert (found.astype(jnp.bfloat16) != found).any() == bool(pooling)


def test_features_do_not_depend_on_batches_or_order_and_are_computed_once(tmp_path, slices, variables, monkeypatch):
    monkeypatch.setattr(features, "BATCH_SIZE", 4)  # 21 examples: the last batch is not full
    found = compute(tmp_path, slices, variables)
    assert found.shape == (7, 3, tiny.SPEC.feature_width)
    assert np.ptp(found, axis=1).max() > 0
    turned = Slices(*(a[::-1] for a in slices))
    np.testing.assert_allclose(compute(tmp_path, turned, variables)[::-1], found, rtol=1e-3, atol=1e-4)
    files = set(tmp_path.iterdir())
    monkeypatch.setattr(features, "_compute", lambda *args: pytest.fail("computed again"))
    np.testing.assert_array_equal(compute(tmp_path, slices, variables), found)
    assert set(tmp_path.iterdir()) == files
    for change in ({"sha256": "other"}, {"seed": 1}, {"num_copies": 1}):
        with pytest.raises(pytest.fail.Exception, match="computed again"):
            compute(tmp_path, slices, variables, **change)


OTHER_PROGRAMS = {
    "the same": ("lesion.train.features.BATCH_SIZE", 32),
    "form of a layer": ("lesion.models.conv._strided_conv", conv._shifted_conv),
    "preprocessing": ("lesion.models.MODELS", models.MODELS | {"tiny": tiny.SPEC._replace(preprocess=models.bvlc)}),
    "strength of an operation": ("lesion.train.augment.MAX_ANGLE_DEG", 1.0),
    "version of JAX": ("jax.__version__", "0"),
    "kind of device": ("jax.devices", lambda: [type("Device", (), {"device_kind": "other"})]),
    "precision of products": None,
    "data type": None,
}


@pytest.mark.parametrize("name", OTHER_PROGRAMS)
def test_what_changes_the_numbers_changes_the_file(name, tmp_path, slices, variables, monkeypatch):
    def path(**changes):
        features._feature_function.cache_clear()  # as in a process of its own
        spec = features.last_map_spec("tiny")._replace(**changes)
        return features._path(tmp_path, slices, spec, variables, "w", 2, 0)

    before = path()
    if OTHER_PROGRAMS[name]:
        monkeypatch.setattr(*OTHER_PROGRAMS[name])
    with jax.default_matmul_precision("float32" if name == "precision of products" else None):
        after = path(dtype="bfloat16" if name == "data type" else "float32")
    features._feature_function.cache_clear()
    assert (after == before) == (name == "the same")


def spoiled(data, how):
    at = len(data) - 5
    return {"bit flipped": data[:at] + bytes([data[at] ^ 128]) + data[at + 1 :], "truncated": data[:at], "empty": b""}[
        how
    ]


@pytest.mark.parametrize("how", ["bit flipped", "truncated", "empty"])
@pytest.mark.parametrize("suffix", [".npy", ".sha256"])
def test_what_was_damaged_is_computed_again_and_told(how, suffix, tmp_path, slices, variables, capfd):
    whole = compute(tmp_path, slices, variables).tobytes()
    (path,) = tmp_path.glob(f"*{suffix}")
    path.write_bytes(spoiled(path.read_bytes(), how))
    capfd.readouterr()
    assert compute(tmp_path, slices, variables).tobytes() == whole
    (told,) = [line for line in capfd.readouterr().err.splitlines() if "damaged" in line]
    assert told == f"test: {path.with_suffix('.npy')} is damaged and computed again"
    compute(tmp_path, slices, variables)
    assert not capfd.readouterr().err


def test_a_folder_that_may_only_be_read_serves_what_it_has(tmp_path, slices, variables, monkeypatch):
    found = compute(tmp_path, slices, variables)
    monkeypatch.setattr(features.os, "access", lambda path, mode: False)  # the superuser may write anywhere
    monkeypatch.setattr(features.Path, "mkdir", lambda *args, **options: pytest.fail("written"))
    monkeypatch.setattr(features, "_lock", lambda *args: pytest.fail("written"))
    np.testing.assert_array_equal(compute(tmp_path, slices, variables), found)
    key = slices, features.last_map_spec("tiny"), variables, "w", 2
    features.check_writable(tmp_path, *key, 0)
    with pytest.raises(UserError, match="may not be written, and features are kept in"):
        features.check_writable(tmp_path / "features", *key, 1)


@pytest.mark.parametrize("kept", [5, 140, 128 + 4 * NUM_BYTES + 10, None])
def test_a_computation_that_was_killed_goes_on(kept, tmp_path, slices, variables, monkeypatch):
    monkeypatch.setattr(features, "BATCH_SIZE", 4)  # 6 batches
    (tmp_path / "whole").mkdir()
    whole = compute(tmp_path / "whole", slices, variables)
    (path,) = (tmp_path / "whole").glob("*.npy")
    (tmp_path / f".{path.stem}.partial").write_bytes(path.read_bytes()[:kept])
    stages = []
    monkeypatch.setattr(features, "track", lambda stage, items, total: stages.append(total) or items)
    again = compute(tmp_path, slices, variables)
    assert again.tobytes() == whole.tobytes()
    assert stages == [{5: 6, 140: 6, None: 1}.get(kept, 5)]
    assert not list(tmp_path.glob(".*.partial"))


def test_runs_side_by_side_compute_once(tmp_path, slices, variables, capfd):
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(compute, tmp_path, slices, variables) for _ in range(2)]
    np.testing.assert_array_equal(*(f.result() for f in both))
    assert capfd.readouterr().err.count("test: 1 of 1") == 1
