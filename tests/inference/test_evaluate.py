import json

import numpy as np
import pytest
import tiny

from lesion import files, metrics, models, report
from lesion.errors import UserError
from lesion.inference import evaluate, trained_run
from lesion.transfer.methods import run_transfer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", tiny.SPEC)
        yield


def write_digests(folder, slices, start):
    rows = "".join(f"{name},{start + i}\n" for i, name in enumerate(slices.slice_id))
    folder.mkdir(exist_ok=True)
    (folder / "source_pixels.csv").write_text(f"slice_id,sha256\n{rows}")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("run")
    made = tiny.config(mode="finetune", finetune_from="conv2", num_epochs=1, num_copies=0)
    run_transfer(made, tiny.setup(made, folder / "data"), folder / "run")
    write_digests(folder / "run", tiny.slices(), 0)
    return folder / "run"


@pytest.fixture
def cohort(monkeypatch, tmp_path):
    """Sets the other cohort: by itself 24 slices of 6 patients, one of them without a label, one slice empty."""

    def give(slices=None, start=1000, **info):
        slices = slices or tiny.slices(24, seed=5)
        slices = slices._replace(patient=np.char.add("other_", slices.patient))
        slices.image[0] = 0
        slices.label[20:] = -1
        record = {"fingerprint": "other", "phantom": True} | info
        monkeypatch.setattr(evaluate.store, "load_slices", lambda *args: slices)
        monkeypatch.setattr(evaluate.store, "load_info", lambda *args: record)
        write_digests(tmp_path / "data", slices, start)
        return tmp_path / "data"

    return give


def test_another_cohort_is_scored_by_the_mean_of_all_networks(run, cohort, tmp_path):
    text = evaluate.evaluate(run, cohort(), tmp_path / "out")
    rows = files.read_csv(tmp_path / "out" / "predictions.csv")
    given, opened = tiny.slices(24, seed=5), trained_run.open_run(run)
    want = evaluate.probabilities(opened, given.image[1:20]).mean(0)
    assert [row["slice"] for row in rows] == list(given.slice_id[1:20])
    np.testing.assert_allclose([float(row["probability"]) for row in rows], want, atol=1e-6)
    assert "1 of 20 slices" in text and "40 slices of the run's cohort were compared" in text

    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    own = trained_run.read_predictions(opened)
    columns = [np.array([getattr(p, name) for p in own]) for name in ("label", "probability", "patient")]
    assert record["thresholds"]["youden"] == metrics.youden_threshold(*metrics.patient_means(*columns)[:2])
    page = report.write(tmp_path / "out").read_text()
    assert "Another cohort" in page and "own test folds: 10 patients" in page and "other cohort: 5 patients" in page
    assert "PHANTOM RESULTS" in page and "no patient is shared" in page


def test_recalibrated_probabilities_are_scored_on_the_other_patients(run, cohort, tmp_path):
    named = tmp_path / "named.txt"
    named.write_text("other_p0\n\nother_p1\n")
    evaluate.evaluate(run, cohort(), tmp_path / "out", recalibrate_on=named)
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())["recalibration"]
    assert record["patients"] == ["other_p0", "other_p1"] and np.isfinite(record["intercept"])
    page = report.write(tmp_path / "out").read_text()
    assert "RECALIBRATED" in page and "on 2 patients, tried on the other 3 patients" in page


BAD = {
    "a slice of the run's cohort": ({"start": 39}, r"1 patients .*\(the pixels of slices are the same\).*other_p0"),
    "the run's cohort": ({"fingerprint": "tiny"}, "is the cohort that"),
    "other classes": ({"classes": ["meningioma", "glioma"]}, "tells meningioma from glioma, .* encephalitis"),
    "one class": ({"slices": tiny.slices()._replace(label=np.ones(40, int))}, "no labelled slice of encephalitis"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_a_cohort_that_proves_nothing_is_refused_and_nothing_is_written(run, cohort, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        evaluate.evaluate(run, cohort(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"), [("JOHN DOE\n", "1 lines name no"), ("other_p0\n", "recalibrate on must be")]
)
def test_patients_to_recalibrate_on_are_checked_and_not_repeated(run, cohort, tmp_path, text, message):
    (tmp_path / "named.txt").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        evaluate.evaluate(run, cohort(), tmp_path / "out", recalibrate_on=tmp_path / "named.txt")
    assert "JOHN" not in str(raised.value)
