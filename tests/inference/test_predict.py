import csv
import json

import numpy as np
import pytest
import tiny

from lesion import models
from lesion.errors import UserError
from lesion.inference import new_patients, predict, trained_run
from lesion.runs import rundir
from lesion.transfer.methods import run_transfer


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", tiny.SPEC)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("run")
    made = tiny.config(mode="finetune", finetune_from="conv2", num_epochs=1, num_copies=0)
    run_transfer(made, tiny.setup(made, folder / "data"), folder / "run")
    return folder / "run"


def arrive(monkeypatch, **changes):
    """Five patients, the last of them flagged; of the first a slice is."""
    s = tiny.slices(20)
    flags = ["nearly empty", *[""] * 19]
    rows = zip(s.patient, s.slice_id, s.image, s.position_mm, flags, strict=True)
    new = [new_patients.NewSlice(*row) for row in rows]
    given = new_patients.NewPatients(
        new[:16], {"p4": "no flair slice"}, {"modality CT": 2}, {"odd": 1}, False, {f"p{i}" for i in range(5)}
    )
    monkeypatch.setattr(new_patients, "read_folder", lambda *args: given._replace(**changes))
    return given


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_fold_says_what_it_said_in_the_run_and_the_ensemble_is_their_mean(run, tmp_path, monkeypatch):
    given, drawn = arrive(monkeypatch), []
    monkeypatch.setattr(predict.sheet, "draw", lambda path, rows, *rest: drawn.append((path.name, rows, *rest)))
    said, by_fold = {row.slice: row for row in trained_run.read_predictions(trained_run.open_run(run))}, []
    for fold in (0, 1):
        output, path = tmp_path / f"{fold}.csv", run / "checkpoints" / f"fold_{fold}"
        predict.predict(path, tmp_path, output, private=tmp_path)
        by_fold.append({row["slice"]: row for row in table(output) if row["slice"]})
        for slice_id, row in by_fold[-1].items():
            assert row["spread"] == ""
            if row["probability"] and said[slice_id].fold == fold:
                assert float(row["probability"]) == pytest.approx(said[slice_id].probability, abs=1e-5)
    drawn.clear()
    told = predict.predict(run, tmp_path, tmp_path / "out.csv", private=tmp_path)
    assert told.startswith("RESEARCH USE ONLY") and "2 × modality CT" in told and "no slices.csv" in told
    rows = table(tmp_path / "out.csv")
    assert [row["patient"] for row in rows if not row["slice"]] == ["p0", "p1", "p2", "p3", "p4"]
    for patient in ("p0", "p1", "p2", "p3"):
        own = [one.slice for one in given.slices if one.patient == patient and not one.flag]
        each = np.array([[float(one[s]["probability"]) for s in own] for one in by_fold])
        (whole,) = [row for row in rows if row["patient"] == patient and not row["slice"]]
        p = each.mean()
        assert whole["called"] == ("glioma" if p > 0.5 else "encephalitis") and int(whole["num_slices"]) == len(own)
        wanted = p, np.std(each.mean(1)), -p * np.log(p) - (1 - p) * np.log(1 - p)
        found = [float(whole[name]) for name in ("probability", "spread", "entropy")]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
        assert whole["flag"] == predict.KNOWN  # the pseudonyms are those of the run's own cohort
    assert [row["flag"] for row in rows if not row["probability"]] == ["nearly empty", "no flair slice"]
    assert [name for name, *_ in drawn] == ["p0.png", "p1.png", "p2.png", "p3.png"]
    shown = [len(row.panels) for row in drawn[0][1]]
    assert shown == [2, 1] and drawn[0][-1] is True and predict.RESEARCH in drawn[0][3]
    with pytest.raises(UserError, match=r"out\.csv exists"):
        predict.predict(run, tmp_path, tmp_path / "out.csv", private=tmp_path)


@pytest.mark.slow
def test_what_is_unlike_the_training_data_is_not_answered(run, tmp_path, monkeypatch):
    arrive(monkeypatch, phantom=set())
    predict.predict(run, tmp_path, tmp_path / "out.csv", private=tmp_path)
    rows = table(tmp_path / "out.csv")
    assert len(rows) == 5 + 16 and not any(row["probability"] or row["called"] for row in rows)
    assert all(row["flag"] for row in rows) and not (tmp_path / "out_gradcam").exists()


@pytest.mark.slow
def test_slices_prepared_in_another_way_and_folds_that_are_not_there(run, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="choose a fold of 0, 1"):
        predict.open_checkpoint(run / "checkpoints" / "fold_7", "")
    record = json.loads((run / "config.json").read_text())
    record["data"]["preprocess"] = predict.preprocess.settings() | {"crop": "another"}
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "fold_0").symlink_to(run / "checkpoints" / "fold_0")
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="prepared in another way"):
        predict.open_checkpoint(tmp_path / "run", "")
    record["data"]["preprocess"] = predict.preprocess.settings("header")
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    given = arrive(monkeypatch)

    def read_folder(folder, sequence, private, options):
        assert options.window == "header"  # as the run's slices
        return given

    monkeypatch.setattr(new_patients, "read_folder", read_folder)
    assert predict.predict(tmp_path / "run", tmp_path, tmp_path / "out.csv", private=tmp_path)
    info = {"fingerprint": "f", "phantom": True, "preprocess": predict.preprocess.settings()}
    kept = rundir.identity(tiny.config(), info, "", {}, "cpu")["data"]
    assert json.loads(json.dumps(kept))["preprocess"] == predict.preprocess.settings()
