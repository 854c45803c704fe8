import io
import json

import numpy as np
import pytest
from PIL import Image

from configs import transfer
from lesion.dataset import splits, store
from lesion.errors import UserError
from lesion.transfer import loading, methods


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Six patients with FLAIR, of whom one glioma has T2WI as well."""
    folder = tmp_path_factory.mktemp("data")
    stream = io.BytesIO()
    Image.fromarray(np.zeros((224, 224), np.uint8)).save(stream, "PNG")
    for sequence, patients in {"flair": range(6), "t2wi": range(4)}.items():
        records = [
            store.Record(f"{sequence}{i}", f"p{i}", int(i > 2), stream.getvalue(), (1, 1), "", 0.0) for i in patients
        ]
        store.write(folder, sequence, records)
    (folder / store.INFO_FILE).write_text(json.dumps({"sequences": {"flair": {"n": 6}, "t2wi": {"n": 4}}}))
    return folder


@pytest.fixture
def told(data_dir):
    """Writes what the user told of the patients, and takes it away."""
    yield lambda patients: store.write_patients(data_dir, patients)
    for name in (store.PATIENTS_FILE, splits.FILE):
        (data_dir / name).unlink(missing_ok=True)


def config(sequence, num_folds):
    made = transfer.get_config(f"resnet50,{sequence}")
    made.num_folds, made.patience = num_folds, 0
    return made


@pytest.mark.usefixtures("told")
def test_a_fold_that_would_train_on_one_class_is_refused(data_dir):
    with pytest.raises(UserError, match=r"fold \d of 3 has no glioma of t2wi to train on, one class only"):
        loading.load(config("t2wi", 3), data_dir)


def test_folds_of_the_user_are_those_of_every_sequence(data_dir, told):
    folds = {f"p{i}": i % 3 for i in range(6)}
    told({patient: {"fold": str(fold)} for patient, fold in folds.items()})
    assert loading.cohort_folds(data_dir, 3, 0).test_fold == folds
    assert json.loads((data_dir / splits.FILE).read_text())["patient-3-0"]["test_fold"] == folds
    with pytest.raises(UserError, match=r"3 folds: set --config.num_folds=3"):
        loading.load(config("flair", 5), data_dir)


def test_folds_are_dealt_anew_unless_the_user_deals_them_and_each_deal_has_a_folder(
    data_dir, told, monkeypatch, tmp_path
):
    def setup():
        folds = loading.cohort_folds(data_dir, 3, 0)
        run = {"data": {}, "split_hash": folds.hash}
        return loading.Setup(data_dir, store.load_slices(data_dir, "flair"), folds, {}, run)

    told({})
    made, ran = config("flair", 3), []
    made.num_deals = 3

    def run_folds(config, validation, workdir, *_):
        assert config.seed == 0 and validation.run["split_hash"] == validation.folds.hash
        ran.append((workdir.relative_to(tmp_path).as_posix(), validation.folds.hash))

    monkeypatch.setattr(methods, "run_folds", run_folds)
    methods.run_transfer(made, setup(), tmp_path)
    assert [folder for folder, _ in ran] == ["deals/1", "deals/2", "."] and len({deal for _, deal in ran}) == 3
    told({f"p{i}": {"fold": str(i % 3)} for i in range(6)})
    (data_dir / "splits.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"num_deals: patients\.csv deals the patients"):
        loading.deal_again(made, setup(), 1)
