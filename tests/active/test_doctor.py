"""A doctor as the oracle: the same questions as Algorithm 1, whatever is in between."""

import csv
import io
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

from lesion import models
from lesion.active import doctor, driver, program, rounds
from lesion.classes import PAPER
from lesion.dataset import store
from lesion.errors import UserError
from lesion.runs import resume
from lesion.transfer import methods
from lesion.worklist import CANNOT_TELL, NOT_USABLE, csv_file, journal, labels, round_file

pytestmark = pytest.mark.slow

NAMES = dict(enumerate(PAPER))
TRUTH = tiny.slices()


@pytest.fixture(autouse=True)
def backbone(monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", tiny.SPEC)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """What the pictures come from."""
    folder = tmp_path_factory.mktemp("data")
    records = []
    for i, image in enumerate(TRUTH.image):
        stream = io.BytesIO()
        Image.fromarray(image).resize((224, 224)).save(stream, "PNG")
        one = str(TRUTH.slice_id[i]), str(TRUTH.patient[i]), -1, stream.getvalue(), (1.0, 1.0), "", 6.5 * (40 - i)
        records.append(store.Record(*one))
    store.write(folder, "flair", records)
    info = {"sequences": {"flair": {"unlabeled": 40}, "t2wi": {}}, "phantom": True}
    (folder / store.INFO_FILE).write_text(json.dumps(info))
    return folder


def begin(data, known=(), **changes):
    own = {"oracle": "doctor", "contradictions": "ask", "given_labels": "", "stabilizing_predictions": 0.0}
    made = tiny.active_config(strategies=("entropy",), **own | changes)
    label = np.where(np.isin(TRUTH.patient, known), TRUTH.label, -1).astype(np.int32)
    return made, tiny.setup(made, data)._replace(slices=TRUTH._replace(label=label))


def answer(workdir, other=()):
    """What a doctor who knows all says of the round that waits, but {slice: label} in `other`; returns the slices."""
    this = round_file.newest(workdir)
    truth = dict(zip(TRUTH.slice_id, (NAMES[n] for n in TRUTH.label.tolist()), strict=True))
    listed = round_file.folder_of(workdir, this.number) / csv_file.FILE
    rows = [f"{item.slice},{dict(other).get(item.slice, truth[item.slice])}" for item in this.items]
    listed.write_text("\n".join(["slice,label", *rows]) + "\n")
    return [item.slice for item in this.items]


def all_rounds(made, setup, workdir):
    asked, told = [], doctor.run_doctor(made, setup, workdir)
    while "waits for the doctor" in told:
        asked.append(answer(workdir))
        told = doctor.run_doctor(made, setup, workdir)
    return asked, told


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_questions_are_those_of_the_program(data, tmp_path):
    made, setup = begin(data, initial_labeled=8)
    asked, told = all_rounds(made, setup, tmp_path)
    assert "stopped by rounds after 3 rounds, 14 labelled slices" in told
    method, examples = methods.learner_on_features(made, setup._replace(slices=TRUTH))
    patient = jnp.asarray(np.unique(TRUTH.patient, return_inverse=True)[1], jnp.int32)
    run = program.Run(jax.random.key(made.seed), jnp.ones(40, bool), jnp.int32(8), jnp.int32(0))
    whole = jax.jit(program.algorithm1(method, ("entropy",), driver.QueryConfig(3), 3))
    info, _ = whole(run, examples, patient)
    first = driver.initial_labeled(program.keys_of(run.key).start, patient, run.in_pool, 8)
    assert set(asked[0]) == set(TRUTH.slice_id[np.asarray(first)])
    for index in (0, 1):
        assert set(asked[index + 1]) == set(TRUTH.slice_id[np.asarray(info.indices[index])])
    said = rows(tmp_path / "predictions.csv")
    np.testing.assert_allclose([float(r["probability"]) for r in said], info.probs[-1], rtol=1e-4)
    assert sum(r["said_by"] == "doctor" for r in said) == 14
    assert doctor.run_doctor(made, setup, tmp_path).endswith("finished")


def test_a_round_goes_on_when_it_is_complete_and_not_before(data, tmp_path, caplog):
    made, setup = begin(data, known=("p0", "p1"))
    assert "round 2 waits" in doctor.run_doctor(made, setup, tmp_path)  # enough is known for the first fit
    assert [r["labeled_slices"] for r in rows(tmp_path / "rounds.csv")] == ["8"]
    this = round_file.newest(tmp_path)
    one = journal.Entry("e", this.number, this.items[0].slice, "glioma", journal.PAGE)
    journal.add(tmp_path / "annotate", lambda held: [one])
    for _ in range(2):
        with pytest.raises(UserError, match=r"round 2 waits for the doctor: 2 of 3 slices to answer; read them by"):
            doctor.run_doctor(made, setup, tmp_path)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]  # Orbax has nothing for the user's eyes
    with pytest.raises(UserError, match="holds another run"):
        doctor.run_doctor(begin(data, known=("p0", "p1"), num_acquire=2)[0], begin(data, num_acquire=2)[1], tmp_path)


@pytest.mark.parametrize("left_out", [NOT_USABLE, CANNOT_TELL])
def test_what_has_no_class_is_not_trained_on_and_what_cannot_be_told_is_asked_again_at_the_end(
    left_out, data, tmp_path
):
    made, setup = begin(data, known=("p0", "p1"))
    doctor.run_doctor(made, setup, tmp_path)
    one = round_file.newest(tmp_path).items[0].slice
    answer(tmp_path, {one: left_out})
    assert "round 3 waits" in doctor.run_doctor(made, setup, tmp_path)
    assert one not in answer(tmp_path)
    told = doctor.run_doctor(made, setup, tmp_path)
    labeled = ["8", "10", "13"]
    assert [r["labeled_slices"] for r in rows(tmp_path / "rounds.csv")] == labeled
    if left_out == CANNOT_TELL:
        assert "round 4 (what could not be told is asked again) waits for the doctor: 1 of 1" in told
        assert answer(tmp_path) == [one]
        told, labeled = doctor.run_doctor(made, setup, tmp_path), [*labeled, "14"]
    assert "stopped by rounds" in told
    assert [r["labeled_slices"] for r in rows(tmp_path / "rounds.csv")] == labeled
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["cannot_tell_slices"], metrics["not_usable_slices"]) == (0, int(left_out == NOT_USABLE))
    (said,) = [r for r in rows(tmp_path / "predictions.csv") if r["slice"] == one]
    truth = NAMES[int(TRUTH.label[TRUTH.slice_id == one][0])]
    assert (said["label"], said["said_by"]) == (truth if left_out == CANNOT_TELL else left_out, "doctor")
    given = [(r["slice"], r["label"], r["round"]) for r in rows(tmp_path / labels.FILE) if r["slice"] == one]
    assert given == [(one, left_out, "1")] + [(one, truth, "3")] * (left_out == CANNOT_TELL)


def trained_on(workdir):
    return {r["slice"]: r["label"] for r in rows(workdir / "predictions.csv") if r["said_by"]}


@pytest.mark.parametrize("by", ["ask", "last", "majority"])
def test_no_patient_is_trained_on_with_both_classes(by, data, tmp_path):
    made, setup = begin(data, num_rounds=1, contradictions=by)
    doctor.run_doctor(made, setup, tmp_path)  # one whole patient
    first, second = round_file.newest(tmp_path).items[0].slice, round_file.newest(tmp_path).items[-1].slice
    true = NAMES[int(TRUTH.label[TRUTH.slice_id == first][0])]
    false = next(name for name in PAPER if name != true)
    answer(tmp_path, {second: false})
    told = doctor.run_doctor(made, setup, tmp_path)
    if by == "ask":
        assert "round 1 (contradictions are asked again) waits for the doctor: 1 of 1 slices" in told
        asked = round_file.newest(tmp_path)
        assert (asked.number, asked.fit, asked.said) == (1, 0, [{true: 3, false: 1}])
        answer(tmp_path, {second: false})
        told = doctor.run_doctor(made, setup, tmp_path)
    assert "stopped by rounds after 1 rounds, 4 labelled slices" in told
    assert set(trained_on(tmp_path).values()) == {true if by == "majority" else false}
    assert [r["label"] for r in rows(tmp_path / labels.FILE)][:4].count(true) == 3  # as they were said


def test_labels_of_another_run_are_known_from_the_beginning(data, tmp_path):
    made, setup = begin(data, num_rounds=1)
    all_rounds(made, setup, tmp_path / "first")
    table = tmp_path / "first" / labels.FILE
    made, setup = begin(data, num_rounds=1, given_labels=str(table))
    setup = doctor.with_given(made, setup)
    assert "stopped by rounds after 1 rounds, 4 labelled slices" in doctor.run_doctor(made, setup, tmp_path / "second")
    assert trained_on(tmp_path / "second") == trained_on(tmp_path / "first")
    assert {r["source"] for r in rows(tmp_path / "second" / labels.FILE)} == {"given"}
    table.write_text(table.read_text().replace("glioma", "cannot_tell").replace("encephalitis", "cannot_tell"))
    with pytest.raises(UserError, match=r"holds another run .*given_labels_sha256"):
        doctor.run_doctor(made, doctor.with_given(made, setup), tmp_path / "second")
    table.write_text("slice,label\nelsewhere,glioma\n")
    with pytest.raises(UserError, match="none of its 1 slices is in this dataset"):
        doctor.with_given(made, setup)


def test_answers_that_were_trained_on_cannot_be_changed(data, tmp_path):
    made, setup = begin(data)
    doctor.run_doctor(made, setup, tmp_path)
    answer(tmp_path)
    doctor.run_doctor(made, setup, tmp_path)
    path = round_file.folder_of(tmp_path, 0) / round_file.CLOSED
    before = path.read_text()
    path.write_text(before.replace('"glioma"', '"not_usable"').replace('"encephalitis"', '"not_usable"'))
    with pytest.raises(UserError, match="were trained on have been changed"):
        doctor.run_doctor(made, setup, tmp_path)
    path.write_text(before)
    answer(tmp_path)
    assert "round 3 waits" in doctor.run_doctor(made, setup, tmp_path)


class Killed(BaseException):
    pass


# After, or before, each of these a process may die; together they are all that a round writes.
MOMENTS = [
    (doctor.round_file, "write"),
    (doctor.round_file, "import_worklist"),
    (doctor.round_file, "close"),
    (doctor.files, "write_csv"),
    (doctor.checkpoint, "save_variables"),
    (doctor.rundir, "finish"),
    (resume.Checkpointer, "save"),
    (rounds.resume, "to_tree"),
]


def test_killed_between_any_two_writes_it_ends_with_the_same_bytes(data, tmp_path, monkeypatch):
    made, setup = begin(data, num_rounds=2)
    all_rounds(made, setup, tmp_path / "whole")
    kills = [(name, when) for _, name in MOMENTS for when in ("before", "after")]

    def deadly(name, do):
        def now(when):
            if (name, when) in kills:
                kills.remove((name, when))
                raise Killed

        def once(*args, **kwargs):
            now("before")
            result = do(*args, **kwargs)
            now("after")
            return result

        return once

    for owner, name in MOMENTS:
        monkeypatch.setattr(owner, name, deadly(name, getattr(owner, name)))
    told, run = "", tmp_path / "run"
    while not told.endswith("finished"):
        left = len(kills)
        try:
            told = doctor.run_doctor(made, setup, run)
        except Killed:
            continue
        except UserError as error:  # it was killed after it had asked
            told = str(error)
        assert "stopped by rounds" in told or "waits" in told or len(kills) < left or not kills
        if "waits" in told:
            answer(run)
    assert not kills
    for name in (
        "rounds.csv",
        "acquisitions.csv",
        "predictions.csv",
        "metrics.json",
        doctor.MODEL + "/provenance.json",
    ):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert {p.name for p in run.iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}


def test_it_stops_where_a_rule_says_so(data, tmp_path):
    made, setup = begin(data, known=("p0", "p1"), entropy_threshold=math.log(2))
    assert "stopped by entropy after 1 rounds" in doctor.run_doctor(made, setup, tmp_path)
    assert not list((tmp_path / "annotate").glob("round_*"))
    assert (tmp_path / doctor.MODEL).is_dir() and not (tmp_path / "rounds").exists()


def test_pictures_lie_in_anatomical_order_beside_the_round(data, tmp_path):
    made, setup = begin(data, known=("p0", "p1"))
    doctor.run_doctor(made, setup, tmp_path)
    this = round_file.newest(tmp_path)
    for item in this.items:
        stack = this.stacks[item.patient]["flair"]
        assert len(stack) == 4 and [s.position_mm for s in stack] == sorted(s.position_mm for s in stack)
        assert item.slice in this.picture(item)
        assert (tmp_path / "annotate" / round_file.PICTURES / this.picture(item)).is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"strategies": ("entropy", "random")}, "answers one strategy"), ({"num_acquire": 50}, "fewer than a round")],
    ids=str,
)
def test_what_cannot_be_asked_is_one_line(changes, message, data, tmp_path):
    made, setup = begin(data)
    with pytest.raises(UserError, match=message):
        doctor.run_doctor(tiny.changed(made, changes), setup, tmp_path)


def test_fine_tuned_it_goes_on_from_its_weights(data, tmp_path):
    made, setup = begin(data, mode="finetune", num_rounds=2, num_epochs=1)
    asked, told = all_rounds(made, setup, tmp_path)
    assert "after 2 rounds, 7 labelled slices" in told and [len(one) for one in asked] == [4, 3]
