import http.server
import os
import re
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data

from lesion import files, models, trees, weights
from lesion.errors import UserError
from lesion.runs import checkpoint
from lesion.weights import pretrained, public_files

NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def arrays():
    return weights.read(pretrained.packaged_file())


@pytest.fixture(scope="module")
def variables(arrays):
    return weights.merge(pretrained.shapes(NAME), weights.convert(NAME, "lite", arrays))


@pytest.mark.slow
def test_the_real_weights_know_a_cat_and_an_espresso(variables):
    pictures = [Image.fromarray(p()) for p in (data.chelsea, data.coffee)]
    squares = [p.crop(((p.width - p.height) // 2, 0, (p.width + p.height) // 2, p.height)) for p in pictures]
    pixels = np.stack([np.asarray(s.resize((224, 224), Image.Resampling.BICUBIC)) for s in squares])
    images = models.get_spec(NAME).preprocess(jnp.asarray(pixels, jnp.float32))
    logits = jax.jit(models.get_model(NAME).apply)(variables, images)
    assert jnp.argmax(logits, -1).tolist() == [285, 967]  # Egyptian cat, espresso


@pytest.mark.slow
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
    files.write_json(folder / checkpoint.PROVENANCE, provenance | {"sha256": "0"})
    with pytest.raises(UserError, match="damaged"):
        pretrained.load(NAME, folder)
    assert not list(tmp_path.glob(".*"))


def test_a_file_cut_short_gives_its_error_and_no_other_output(tmp_path, variables, monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    checkpoint._silence_closed_loops.cache_clear()
    checkpoint.save_variables(tmp_path / "w", variables, {"model": NAME})
    largest = max((tmp_path / "w").rglob("*"), key=lambda path: path.stat().st_size)
    os.truncate(largest, 500_000)
    with pytest.raises(UserError, match="cannot be read: remove the folder"):
        checkpoint.load_variables(tmp_path / "w")
    time.sleep(1)  # what Orbax's threads have to say comes late
    assert not unraisable
    checkpoint._silence_closed_loops.cache_clear()  # the hook goes with the patch


WRONG = {
    "renamed": (lambda a: a | {"_fc.wait": a.pop("_fc.bias")}, "missing params/fc/bias"),
    "extra": (lambda a: a | {"_more.weight": np.ones((3, 3), np.float32)}, "extra params/more/kernel"),
    "another shape": (lambda a: a | {"_fc.bias": np.ones(10, np.float32)}, r"float32\[10\], not float32\[1000\]"),
    "NaN": (lambda a: a | {"_fc.bias": np.full(1000, np.nan, np.float32)}, "_fc.bias holds values that are not finite"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_weights_that_do_not_fit_are_refused_by_name(arrays, change, message):
    with pytest.raises(UserError, match=message):
        weights.merge(pretrained.shapes(NAME), weights.convert(NAME, "lite", change(dict(arrays))))


def test_reinitialised_leaves_keep_their_value():
    own, loaded = ({"params": {"fc": {"kernel": x}, "conv": {"kernel": x}}} for x in (np.zeros(2), np.ones(2)))
    merged = weights.merge(own, loaded, "^params/fc/")["params"]
    assert not merged["fc"]["kernel"].any() and merged["conv"]["kernel"].all()
    fewer = {"params": {"conv": loaded["params"]["conv"]}}
    assert not weights.merge(own, fewer, "^params/fc/")["params"]["fc"]["kernel"].any()


def test_an_unknown_pair_lists_the_known():
    with pytest.raises(UserError, match="efficientnet_lite0 from lite"):
        weights.convert(NAME, "keras", {})


def test_another_variants_file_is_refused_with_the_names(arrays):
    with pytest.raises(
        UserError, match=r"batch_stats/bn1/mean is float32\[1280\], not float32\[64\].*more: was it converted for this"
    ):
        weights.merge(pretrained.shapes("resnet50"), weights.convert("resnet50", "torchvision", arrays))


def test_a_file_without_classifier_is_taken_for_features(tmp_path, arrays, monkeypatch):
    backbone = {k: a for k, a in arrays.items() if not k.startswith("_fc.")}
    monkeypatch.setattr(pretrained.formats, "read", lambda path: backbone)
    record = pretrained.convert_file(NAME, "lite", str(pretrained.packaged_file()), str(tmp_path / "w"))
    loaded, provenance = pretrained.load(NAME, str(tmp_path / "w"))
    assert not record["classifier"] and not provenance["classifier"] and "fc" not in loaded["params"]
    assert provenance["preprocessing"] == "lite" and provenance["licence"] == pretrained.UNKNOWN_LICENCE


CONTENT = bytes(range(256)) * 40
SHA256 = "e96760a8"


class Server(http.server.BaseHTTPRequestHandler):
    """Knows ranges, and cuts the first answer off."""

    ranges: bool = True
    cut: int | None = None
    seen: list

    def do_GET(self):
        start = self.headers.get("Range") if self.ranges else None
        self.seen.append(start)
        first = int(re.search(r"\d+", start)[0]) if start else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        cut, type(self).cut = type(self).cut, None
        self.wfile.write(CONTENT[first:cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(**attributes):
        handler = type("Handler", (Server,), {"seen": [], **attributes})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/weights.pth", handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_goes_on_where_it_was_cut_off(tmp_path, serve, ranges):
    address, handler = serve(cut=3000, ranges=ranges)
    row = public_files.PublicFile(("m",), "s", address, f"sha256:{SHA256}", "none", 0.0)
    with pytest.raises(UserError, match=re.escape(f"put it at {tmp_path / 'weights.pth'}")):
        public_files.fetch(row, tmp_path)
    assert not (tmp_path / "weights.pth").exists()
    assert public_files.fetch(row, tmp_path).read_bytes() == CONTENT
    # Written are whole kilobytes. A server without ranges sends all of it again: seen by the hash, and begun anew.
    assert handler.seen == ([None, "bytes=2048-"] if ranges else [None, None, None])
    assert public_files.fetch(row, tmp_path) and len(handler.seen) == (2 if ranges else 3)


def test_a_download_with_another_hash_or_no_network_is_one_line(tmp_path, serve):
    address, _ = serve()
    row = public_files.PublicFile(("m",), "s", address, "md5:0123", "none", 0.0)
    with pytest.raises(UserError, match="does not have the hash md5:0123"):
        public_files.fetch(row, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"cannot download http://127\.0\.0\.1:1/w\.pth") as raised:
        public_files.fetch(row._replace(address="http://127.0.0.1:1/w.pth"), tmp_path)
    assert "\n" not in str(raised.value)


def test_the_table_of_public_files_fits_registry_and_rules():
    rows = public_files.load_table()
    for row in rows:
        assert row.hash.partition(":")[0] in ("sha256", "md5") and row.licence and 50 < row.top1 < 80
        assert all((model, row.source) in weights.RULES and model in models.MODELS for model in row.models)
    covered = {model for row in rows for model in row.models}
    assert covered | {NAME} == set(models.MODELS)
