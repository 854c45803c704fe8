"""The app without a browser: what it serves, which answers it takes and refuses."""

import json
import re
import shutil

import example_round
import pytest

from lesion.annotate import app
from lesion.worklist import csv_file, journal, round_file
from lesion.worklist.journal import Entry

TOKEN = "token"
BASE = "http://127.0.0.1:8000"


@pytest.fixture
def round_(tmp_path):
    return example_round.write(tmp_path)


@pytest.fixture
def client(round_, tmp_path):
    return app.make_app(tmp_path, TOKEN).test_client()


def get(client, path, **options):
    return client.get(f"/{TOKEN}/{path}", base_url=BASE, **options)


def post(client, path, **body):
    return client.post(f"/{TOKEN}/{path}", base_url=BASE, json=body)


def answer(client, name, item=0, label="glioma", seen="", number=0):
    asked = get(client, "round").get_json()["items"]
    picture = asked[item]["picture"] if item < len(asked) else "of another round"
    body = {"round": number, "item": item, "picture": picture, "label": label, "seen": seen, "milliseconds": 1500}
    return post(client, "answer", id=name, **body)


def labels(state):
    return [answer["label"] for answer in state.get_json()["answers"]]


def test_answers_are_on_the_disk_when_they_are_acknowledged(client, tmp_path):
    state = answer(client, "a0")
    assert labels(state) == ["glioma", "", "", "", ""] and state.get_json()["undo"] == "a0"
    assert json.loads((tmp_path / "annotate" / journal.FILE).read_text())["slice"] == "s0"
    assert labels(answer(client, "a0")) == labels(state)  # sent again because the first reply was lost
    assert labels(answer(client, "a1", label="cannot_tell", seen="a0"))[0] == "cannot_tell"
    assert labels(post(client, "undo", id="u0", round=0, entry="a1"))[0] == "glioma"
    assert labels(post(client, "undo", id="u0", round=0, entry="a1"))[0] == "glioma"
    assert len((tmp_path / "annotate" / journal.FILE).read_text().splitlines()) == 3


def test_two_tabs_do_not_overwrite_each_other_unknowingly(client, tmp_path):
    answer(client, "tab1")
    refused = answer(client, "tab2", label="encephalitis")
    assert refused.status_code == 409 and "it is glioma now" in refused.get_json()["error"]
    assert refused.get_json()["state"]["answers"][0] == {"label": "glioma", "entry": "tab1"}
    assert answer(client, "tab3").status_code == 200  # both say the same
    assert labels(answer(client, "tab4", label="encephalitis", seen="tab1"))[0] == "encephalitis"
    refused = post(client, "undo", id="u", round=0, entry="tab1")
    assert refused.status_code == 409 and "changed elsewhere" in refused.get_json()["error"]


def test_answers_of_a_worklist_are_shown_but_not_undone(client, tmp_path):
    journal.add(tmp_path / "annotate", lambda state: [Entry("w", 0, "s3", "glioma", "worklist x")])
    state = get(client, "state").get_json()
    assert state["answers"][3] == {"label": "glioma", "entry": "w"} and state["undo"] == ""


def test_answer_is_about_the_picture_that_was_on_the_screen_or_refused(client, round_, tmp_path):
    asked = get(client, "round").get_json()
    body = {"round": 0, "item": 0, "label": "glioma", "seen": "", "milliseconds": 900}
    for picture in (asked["items"][1]["picture"], ""):
        refused = post(client, "answer", id="a", picture=picture, **body)
        assert refused.status_code == 409 and "nothing was changed" in refused.get_json()["error"]
    shutil.rmtree(tmp_path / "annotate")  # the run is begun anew, under the same number
    example_round.write(tmp_path, ids=["t0", "t1"])
    refused = post(client, "answer", id="a", picture=asked["items"][0]["picture"], **body)
    assert refused.status_code == 409
    assert refused.get_json()["state"]["questions"] != asked["state"]["questions"]
    assert not (tmp_path / "annotate" / journal.FILE).exists()
    answer(client, "b")
    (entry,) = journal.read(tmp_path / "annotate").entries.values()
    assert (entry.slice, entry.reader, entry.seconds) == ("t0", "reader_1", 1.5)


def test_closed_round_takes_nothing(client, round_, tmp_path):
    assert round_file.close(tmp_path, round_) is None  # not before all is answered
    for i in range(5):
        answer(client, f"a{i}", i)
    assert round_file.close(tmp_path, round_) == dict.fromkeys(example_round.IDS, "glioma")
    late = answer(client, "late", label="not_usable", seen="a0")
    for refused in (late, post(client, "undo", id="u", round=0, entry="a4")):
        assert refused.status_code == 409 and "round 1 is closed" in refused.get_json()["error"]
    assert answer(client, "a0").status_code == 200  # its first reply was lost
    example_round.write(tmp_path, 1, ["t0", "t1"])
    for item in (0, 4):
        refused = answer(client, "later", item)
        assert refused.status_code == 409 and refused.get_json()["state"]["round"] == 1
    assert round_file.closed_answers(tmp_path, 0) == dict.fromkeys(example_round.IDS, "glioma")
    assert round_file.closed_answers(tmp_path, 1) is None


@pytest.mark.parametrize(
    "body",
    [
        {"label": "tumour"},
        {"item": 9},
        {"item": -1},
        {"item": "0"},
        {"item": True},
        {"more": 1},
        {"seen": None},
        {"milliseconds": -1},
        {"milliseconds": True},
    ],
    ids=str,
)
def test_malformed_answer_is_refused(body, client, tmp_path):
    valid = {"id": "a", "round": 0, "item": 0, "picture": "", "label": "glioma", "seen": "", "milliseconds": 1}
    assert post(client, "answer", **valid | body).status_code == 400
    assert not (tmp_path / "annotate" / journal.FILE).exists()


def test_full_disk_is_reported_and_nothing_acknowledged(client, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "_append", full)
    reply = answer(client, "a")
    assert (reply.status_code, reply.get_json()["error"]) == (507, "not saved: No space left on device")


FOREIGN = [
    {"base_url": "http://evil.example:8000"},
    {"base_url": BASE, "headers": {"Origin": "http://evil.example"}},
]


@pytest.mark.parametrize("request_", FOREIGN, ids=["another host", "another origin"])
def test_other_hosts_and_origins_are_refused(request_, client, tmp_path):
    picture = get(client, "round").get_json()["items"][0]["picture"]
    body = {"id": "a", "round": 0, "item": 0, "picture": picture, "label": "glioma", "seen": "", "milliseconds": 1}
    assert client.post(f"/{TOKEN}/answer", json=body, **request_).status_code in (400, 403)
    assert client.get("/guessed/", base_url=BASE).status_code == 404
    assert client.get("/", base_url=BASE).status_code == 404
    assert not (tmp_path / "annotate" / journal.FILE).exists()


@pytest.mark.parametrize(
    ("path", "base", "sentence"),
    [
        ("/guessed/", BASE, "There is no reading page at this address. Open the address that launch.annotate prints"),
        (f"/{TOKEN}/", "http://lab.example", "answers to 127.0.0.1 only, not to another name or"),
    ],
)
def test_who_opens_a_wrong_address_reads_a_sentence(path, base, sentence, client):
    reply = client.get(path, base_url=base, headers={"Accept": "text/html,*/*"})
    assert reply.mimetype == "text/html" and sentence in reply.get_data(as_text=True)
    assert sentence in client.get(path, base_url=base).get_json()["error"]


def test_only_the_page_its_files_and_pictures_are_served(client, round_, tmp_path):
    for name in (*app.FILES, ""):
        reply = get(client, name)
        assert reply.status_code == 200 and "default-src 'none'" in reply.headers["Content-Security-Policy"]
        assert not re.search(r"https?://(?!www\.w3\.org)", reply.get_data(as_text=True)), name
    assert get(client, "picture/0/0/ce_t1wi/1").get_data() == example_round.picture(1)
    for path in ("picture/0/0/ce_t1wi/9", "picture/0/7/ce_t1wi/0", "picture/3/0/flair/0", "picture/0/0/../0", "x.py"):
        assert get(client, path).status_code == 404, path
    for path in ("address.json", "..%2f..%2fjournal.jsonl", "picture/0/0/ce_t1wi/..%2f..%2fjournal.jsonl"):
        assert get(client, path).status_code == 404, path


def test_no_identifier_is_sent_to_the_page(client):
    text = get(client, "round").get_data(as_text=True) + get(client, "state").get_data(as_text=True)
    assert not any(name in text for name in (*example_round.IDS, "PA", "PB", ".png"))


def test_imported_answers_and_the_end_of_the_run_are_shown(client, round_, tmp_path):
    worklist = round_file.folder_of(tmp_path, 0) / csv_file.FILE
    worklist.write_text("slice,label\n" + "".join(f"{s},cannot_tell\n" for s in example_round.IDS))
    round_file.import_worklist(tmp_path, round_, worklist)
    assert labels(get(client, "state")) == ["cannot_tell"] * 5
    assert not get(client, "state").get_json()["over"]
    (tmp_path / "metrics.json").write_text("{}")
    assert get(client, "state").get_json()["over"]
