import collections
import io
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data

from lesion import models, trees, weights
from lesion.errors import UserError
from lesion.train import checkpoint, pretrained
from lesion.weights import formats

NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def arrays():
    return weights.read_torch_legacy(pretrained._packaged_file())


@pytest.fixture(scope="module")
def variables(arrays):
    return weights.merge(pretrained._shapes(NAME), weights.convert(NAME, "lite", arrays))


def test_the_real_weights_know_a_cat_and_an_espresso(variables):
    pictures = [Image.fromarray(p()) for p in (data.chelsea, data.coffee)]
    squares = [p.crop(((p.width - p.height) // 2, 0, (p.width + p.height) // 2, p.height)) for p in pictures]
    pixels = np.stack([np.asarray(s.resize((224, 224), Image.Resampling.BICUBIC)) for s in squares])
    images = models.get_spec(NAME).preprocess(jnp.asarray(pixels, jnp.float32))
    logits = jax.jit(models.get_model(NAME).apply)(variables, images)
    assert jnp.argmax(logits, -1).tolist() == [285, 967]  # Egyptian cat, espresso


def test_orbax_round_trip_refuses_what_was_tampered_with(tmp_path, variables):
    folder = tmp_path / "w"
    sha256 = checkpoint.save_variables(folder, variables, {"model": NAME, "pretrained": True})
    assert checkpoint.save_variables(folder, variables, {"model": NAME, "pretrained": True}) == sha256
    loaded, provenance = pretrained.load(NAME, folder)
    assert trees.sha256(loaded) == provenance["sha256"] == sha256
    with pytest.raises(UserError, match="holds something else"):
        checkpoint.save_variables(folder, variables, {"model": "another"})
    with pytest.raises(UserError, match="no weights in"):
        checkpoint.load_variables(tmp_path / "nowhere")
    checkpoint.write_json(folder / checkpoint.PROVENANCE, provenance | {"sha256": "0"})
    with pytest.raises(UserError, match="damaged"):
        pretrained.load(NAME, folder)
    assert not list(tmp_path.glob(".*"))


WRONG = {
    "renamed": (lambda a: a | {"_fc.wait": a.pop("_fc.bias")}, "missing params/fc/bias"),
    "extra": (lambda a: a | {"_more.weight": np.ones((3, 3), np.float32)}, "extra params/more/kernel"),
    "another shape": (lambda a: a | {"_fc.bias": np.ones(10, np.float32)}, r"float32\[10\], not float32\[1000\]"),
    "NaN": (lambda a: a | {"_fc.bias": np.full(1000, np.nan, np.float32)}, "_fc.bias holds values that are not finite"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_weights_that_do_not_fit_are_refused_by_name(arrays, change, message):
    with pytest.raises(UserError, match=message):
        weights.merge(pretrained._shapes(NAME), weights.convert(NAME, "lite", change(dict(arrays))))


def test_reinitialised_leaves_keep_their_value(variables):
    kept = weights.merge(jax.tree.map(jnp.zeros_like, variables), variables, "^params/fc/")
    assert not kept["params"]["fc"]["kernel"].any()
    assert kept["params"]["conv_stem"]["kernel"].any()


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def legacy_file(content, storages=b""):
    file = io.BytesIO()
    for part in (formats.TORCH_LEGACY_MAGIC, 1001, {}, content, []):
        pickle.dump(part, file, protocol=2)
    return file.getvalue() + storages


BROKEN = {
    "runs something": (legacy_file({"w": Evil()}), "asks for __builtin__.print"),
    "text": (b"<html>not found</html>", "cannot be read"),
    "empty": (b"", "cannot be read"),
    "another pickle": (pickle.dumps(collections.OrderedDict(a=1)), "magic number"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        weights.read_torch_legacy(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_truncated_file_is_one_line(tmp_path, share):
    content = pretrained._packaged_file().read_bytes()
    path = tmp_path / "w.pth"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="download it again"):
        weights.read_torch_legacy(path)


def test_an_unknown_pair_lists_the_known():
    with pytest.raises(UserError, match="efficientnet_lite0 from lite"):
        weights.convert(NAME, "keras", {})
