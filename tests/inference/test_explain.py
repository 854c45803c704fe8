import csv
import json
import shutil

import numpy as np
import pytest
import tiny
from PIL import Image

from lesion import models
from lesion.dataset import preprocess, store
from lesion.errors import UserError
from lesion.inference import activations, explain, trained_run
from lesion.inspect import features
from lesion.runs import checkpoint
from lesion.transfer.methods import run_transfer
from lesion.weights import pretrained

pytestmark = pytest.mark.slow

MODES = [{"mode": "frozen", "head_pooling": "flatten"}, {"mode": "finetune", "finetune_from": "conv2"}]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", tiny.SPEC)
    monkeypatch.setattr(store, "load_info", lambda folder: {"fingerprint": "tiny", "phantom": True})
    monkeypatch.setattr(store, "load_slices", lambda folder, sequence: tiny.slices())


@pytest.fixture(scope="module", params=MODES, ids=["frozen", "finetune"])
def run(request, tmp_path_factory):
    """A finished run; not to be changed."""
    folder = tmp_path_factory.mktemp(request.param["mode"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", tiny.SPEC)
        made = tiny.config(num_epochs=1, num_copies=0, **request.param)
        run_transfer(made, tiny.setup(made, folder / "data"), folder / "run")
    return folder / "run"


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_each_slice_is_explained_by_the_network_that_predicted_it(run, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(explain.sheet, "draw", lambda path, rows, *rest: drawn.append((rows, *rest)))
    result = explain.explain_run(run, tmp_path, tmp_path / "out", each=2)
    rows = rows_of(tmp_path / "out" / "gradcam.csv")
    said = {row["slice"]: row for row in rows_of(run / "predictions.csv")}
    assert len(rows) == sum(result["slices"].values()) > 4
    assert all(said[row["slice"]]["fold"] == row["fold"] for row in rows)
    assert len({row["patient"] for row in rows}) == len(rows)
    for row in rows:
        assert row["evidence_for"] == ("glioma" if float(row["probability"]) > 0.5 else "encephalitis")
        assert not row["peak_row"] or 0 <= float(row["peak_row"]) < tiny.SIDE
        assert not row["random_head_correlation"] or -1 <= float(row["random_head_correlation"]) <= 1
    ((shown, title, notes, phantom),) = drawn
    assert [len(row.panels) for row in shown] == [
        sum((row["label"], row["why"]) == (label, why) for row in rows)
        for label in "01"
        for why in ("right", "wrong", "least sure")
    ]
    assert phantom is True and "tiny on FLAIR" in title and any("bn2" in note for note in notes)
    assert explain.explain_run(run, tmp_path, tmp_path / "out", each=2) is None
    earlier = explain.make_explain(trained_run.open_run(run), "conv1")
    network = trained_run.load_fold(trained_run.open_run(run), 0)
    looks = earlier(network, tiny.slices().image[:9])
    assert len(looks) == 9 and looks[0].heat.shape == (8, 8)
    of_fold = {s: float(row["probability"]) for s, row in said.items() if row["fold"] == "0"}
    for slice_id, look in zip(tiny.slices().slice_id, looks, strict=False):
        if slice_id in of_fold:
            assert look.probability == pytest.approx(of_fold[slice_id], abs=1e-4)


@pytest.mark.parametrize("run", MODES[1:], ids=["finetune"], indirect=True)
def test_one_slice_through_a_fold_is_told_stage_by_stage(run, tmp_path):
    image = tiny.slices().image[0]
    monkey = pytest.MonkeyPatch()
    monkey.setattr(preprocess, "SIZE", tiny.SIDE)
    Image.fromarray(image).save(tmp_path / "slice.png")
    fold, sheet = run / "checkpoints" / "fold_1", tmp_path / "gradcam.png"
    lines = list(features.describe(fold, tmp_path / "slice.png", sheet))
    monkey.undo()
    assert sheet.is_file() and lines[0] == "one slice: a picture, taken as it is" and "WARNING" in lines[1]
    opened = trained_run.open_run(run)
    network = trained_run.load_fold(opened, 1)
    (look,) = explain.make_explain(opened)(network, image[None])
    assert f"probability of glioma {look.probability:.4f}" in lines[2]
    found = {one.stage: one for one in activations.measure_stages(opened, network, image)}
    assert [line.split()[0] for line in lines[-4:]] == list(found) == ["conv1", "bn1", "conv2", "bn2"]
    x = models.preprocess("tiny", image[None])
    for name, one in found.items():
        wanted = np.asarray(opened.network.backbone.apply(network.backbone, x, stop=name))[0]
        assert one.shape == wanted.shape and one.not_finite == 0
        dead = (wanted == 0).all((0, 1)).mean()
        parts = wanted.mean(), wanted.std(), np.abs(wanted).max(), (wanted == 0).mean(), dead
        np.testing.assert_allclose(one[2:7], parts, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="needs a whole network"):
        next(features.describe(run, tmp_path / "slice.png", sheet))


@pytest.mark.parametrize("run", MODES[:1], ids=["frozen"], indirect=True)
def test_what_does_not_belong_together_is_said_in_one_line(run, tmp_path):
    workdir, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(run, workdir)
    with pytest.raises(UserError, match="no run of launch"):
        explain.explain_run(tmp_path, tmp_path, out)
    with pytest.raises(UserError, match="gives no map: choose one up to bn2"):
        explain.explain_run(workdir, tmp_path, out, stage="avgpool")
    with pytest.raises(UserError, match="no stage 'layer9'"):
        explain.explain_run(workdir, tmp_path, out, stage="layer9")
    with pytest.raises(UserError, match="--weights=DIR"):
        explain.explain_run(workdir, tmp_path, out, weights=str(tmp_path / "moved"))
    record = {"model": "tiny", "classifier": True}
    checkpoint.save_variables(tmp_path / "weights", pretrained.random_variables("tiny", 1)[0], record)
    with pytest.raises(UserError, match="other weights than"):
        explain.explain_run(workdir, tmp_path, out, weights=str(tmp_path / "weights"))
    assert not out.exists()
    path = workdir / "predictions.csv"
    table = path.read_text().splitlines()
    turned = [",".join([*line.split(",")[:-1], str(1 - float(line.split(",")[-1]) ** 9)]) for line in table[1:]]
    path.write_text("\n".join([table[0], *turned]))
    with pytest.raises(UserError, match="do not belong together"):
        explain.explain_run(workdir, tmp_path, out)
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["fingerprint"] = "other"
    (workdir / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="another dataset"):
        explain.explain_run(workdir, tmp_path, tmp_path / "out2")
    path.unlink()
    with pytest.raises(UserError, match="is not finished"):
        explain.explain_run(workdir, tmp_path, tmp_path / "out2")
    assert np.isnan(explain._correlation(np.ones((2, 2)), np.ones((1, 2, 2))))
