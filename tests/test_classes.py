"""Other classes than the paper's: their names, and that nothing that is shown names the paper's."""

import base64
import csv
import re

import pytest
import tiny
from dicom_trees import write_csv

from lesion import classes, models, report
from lesion.active import doctor
from lesion.annotate import app
from lesion.classes import PAPER, Classes
from lesion.dataset import prepare, qc_figures, store
from lesion.dicom import nifti, tables
from lesion.dicom.folder import Options
from lesion.errors import UserError
from lesion.inference import explain, predict, sheet
from lesion.transfer import loading
from lesion.transfer.methods import run_transfer
from lesion.worklist import round_file

OTHER = Classes("Low-grade", "GBM")
BAD = [
    "glioma",
    "a,b,c",
    "a,A",
    "a,",
    "a,1",
    "a,b c",
    "a,b_c",
    "a,<b>",
    "a,脑膜瘤",
    "a,Unlabeled",
    "skip,a",
    f"a,{'b' * 31}",
]


@pytest.mark.parametrize("words", BAD)
def test_classes_are_two_different_plain_words(words):
    with pytest.raises(
        UserError, match=f"^--classes={re.escape(words)}: name two different classes.*=meningioma,glioma"
    ):
        classes.parse(words.split(","))


def test_who_names_no_classes_has_those_of_the_paper():
    assert Classes.of({}) == PAPER == classes.parse(list(PAPER)) and PAPER.are_of_paper
    assert Classes.of({"classes": list(OTHER)}) == OTHER == classes.parse(["Low-grade", "GBM"])
    assert not classes.parse(PAPER[::-1]).are_of_paper  # what is found, and what is kept, is the other one
    assert classes.parse(["me\u0301ningiome", "b"]).negative == "m\xe9ningiome"


def test_tables_name_the_classes_in_any_case_or_by_number(tmp_path):
    rows = [(str(i), word) for i, word in enumerate(("low-grade", "gbm", "GBM", "0", "1", ""))]
    write_csv(tmp_path / "patients.csv", ("patient_id", "label"), *rows)
    assert list(tables.read_tables(tmp_path, OTHER).labels.values()) == [0, 1, 1, 0, 1, -1]
    with pytest.raises(UserError, match=r"row 2: the label is neither encephalitis nor glioma: .* with --classes"):
        tables.read_tables(tmp_path)
    write_csv(tmp_path / "readers.csv", ("patient_id", "reader", "label"), ("1", "a", "glioma"))
    with pytest.raises(UserError, match="row 2: the label is neither Low-grade nor GBM"):
        tables.read_tables(tmp_path, OTHER)
    (tmp_path / "patients.csv").unlink()
    with pytest.raises(UserError, match=r"columns patient_id,label \(Low-grade or GBM\)"):
        tables.read_tables(tmp_path, OTHER)
    (tmp_path / "participants.tsv").write_text("participant_id\tdx\n1\tgbm\n2\tn/a\n3\tglioma\n")
    with pytest.raises(UserError, match="row 4: dx is none of Low-grade, GBM"):
        nifti.read_participants(tmp_path, "dx", OTHER)


def shown(path):
    """The text of a file with the tables that are embedded in it."""
    text = path.read_text()
    tables_ = re.findall(r"data:text/csv;charset=utf-8;base64,([\w+/=]+)", text)
    return re.sub(r"data:[^\"]*", "", text) + "".join(base64.b64decode(table).decode() for table in tables_)


def nowhere(*texts):
    for text in texts:
        assert not re.search("encephalit|gliom", text, re.IGNORECASE), text[:200]


@pytest.mark.slow
def test_a_dataset_of_other_classes_names_no_other_from_its_tables_to_its_report(flair_tree, monkeypatch):
    folder, drawn = flair_tree.parent, []
    monkeypatch.setitem(models.MODELS, "tiny", tiny.SPEC)
    monkeypatch.setattr(sheet, "draw", lambda path, *rest: drawn.append(f"{path.name} {rest}"))
    monkeypatch.setattr(
        qc_figures, "_save", lambda figure, *rest: drawn.append(str([a.get_ylabel() for a in figure.axes]))
    )
    new = [("patient_id", "label"), *((f"MRN00{p}", ("0", "gbm")[p % 2]) for p in range(4))]
    write_csv(flair_tree / "patients.csv", *new)
    private, data, run = flair_tree / "lesion_private", folder / "data", folder / "run"
    said = prepare.prepare(flair_tree, data, private, Options(classes=OTHER))
    assert "flair: 6 slices of 2 Low-grade, 6 slices of 2 GBM" in said
    assert all(f"\\n{name}\\n6 slices" in drawn[1] for name in OTHER)
    assert store.load_info(data)["classes"] == ["Low-grade", "GBM"]
    with pytest.raises(UserError, match="prepared from other inputs"):
        prepare.prepare(flair_tree, data, private, Options(classes=Classes(*OTHER[::-1])))

    made = tiny.config(mode="frozen", num_epochs=1, patience=0)
    with pytest.raises(UserError, match="2 patients with Low-grade for 3 folds"):
        loading.load(tiny.config(num_folds=3), data)
    run_transfer(made, loading.load(made, data), run)
    explain.explain_run(run, data, folder / "gradcam")
    predict.predict(run, flair_tree, folder / "new.csv", private=private)
    report.write(run)
    page = shown(run / report.FILE)
    nowhere(said, page, *drawn, *(path.read_text() for path in (run / "paper").glob("*.tex")))
    nowhere(*(path.read_text() for path in (data / "cohort.json", folder / "new.csv", folder / "gradcam/gradcam.csv")))
    for phrase in ("Low-grade or GBM on routine MRI", "(2 with Low-grade, 2 with GBM)", "Sensitivity (GBM found)"):
        assert phrase in page
    assert "PUBLISHED, OTHER DATA" not in page and "The paper told other classes apart" in page
    called = {row["called"] for row in csv.DictReader((folder / "new.csv").read_text().splitlines())}
    assert called and called <= set(OTHER)
    assert len(drawn) == 7 and all("called " in text and "probability of GBM" in text for text in drawn[3:])

    write_csv(flair_tree / "patients.csv", *((patient, word if i < 3 else "") for i, (patient, word) in enumerate(new)))
    prepare.prepare(flair_tree, folder / "less", private, Options(classes=OTHER))
    own = {"contradictions": "last", "given_labels": ""}
    asked = tiny.active_config(mode="frozen", strategies=("entropy",), num_acquire=2, **own)
    doctor.run_doctor(asked, loading.load(asked, folder / "less", with_folds=False), folder / "doctor")
    queried = round_file.newest(folder / "doctor")
    assert app.make_app(folder / "doctor", "t").test_client().get("/t/round").get_json()["labels"] == list(OTHER)
    write_csv(folder / "filled.csv", ("slice", "label"), *((item.slice, "gbm") for item in queried.items))
    round_file.import_worklist(folder / "doctor", queried, folder / "filled.csv")
    assert set(round_file.close(folder / "doctor", queried).values()) == {"GBM"}
