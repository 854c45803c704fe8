"""launch.active with a doctor as its user runs it: from a folder of scans to the tables of the next study."""

import csv
import shlex
import subprocess
import sys

import pytest

from lesion.dataset import prepare, store
from lesion.dicom.folder import Options
from lesion.worklist import labels, next_study, round_file

pytestmark = pytest.mark.slow

# The tiny network is known in this process only.
ACTIVE = """import tiny
from launch import active
from lesion import cli, models
models.MODELS["tiny"] = tiny.SPEC
cli.run(active.main, "configs/active.py")
"""
SMALL = {"initial_labeled": 2, "num_acquire": 2, "num_rounds": 2, "num_epochs": 2, "num_copies": 0, "batch_size": 4}


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def programs(flair_tree, tmp_path, monkeypatch):
    """Functions that run launch.active and launch.annotate on four patients, two of whom have a label."""
    monkeypatch.setenv("PYTHONPATH", "tests", prepend=":")
    rows = table(flair_tree / "patients.csv")
    text = "".join(f"{r['patient_id']},{r['label'] if i < 2 else ''},{i % 2}0-49\n" for i, r in enumerate(rows))
    (flair_tree / "patients.csv").write_text(f"patient_id,label,age\n{text}")
    data, run = tmp_path / "data", tmp_path / "run"
    prepare.prepare(flair_tree, data, flair_tree / "lesion_private", Options())

    def start(command, *flags):
        given = [*command, *flags, f"--workdir={run}"]
        return subprocess.run([sys.executable, *given], capture_output=True, text=True, check=False)

    def active(*flags):
        given = [f"--config.{name}={value}" for name, value in SMALL.items()]
        given += ["--config=configs/doctor.py:tiny,flair", "--config.entropy_threshold=0", f"--data={data}"]
        return start(["-c", ACTIVE], *given, *flags)

    def annotate(*flags):
        return start(["-m", "launch.annotate"], *flags)

    return active, annotate, data, run


def test_from_scans_to_the_next_study(programs, flair_tree, tmp_path):
    active, annotate, data, run = programs
    private = flair_tree / "lesion_private"
    early = annotate(f"--private={private}", f"--data={data}")
    assert early.returncode == 1 and "has queried no round" in early.stderr and len(early.stderr.splitlines()) == 1
    first = active()
    assert first.returncode == 0 and "round 2 waits for the doctor: 2 of 2 slices to answer" in first.stdout
    again = active()
    assert again.returncode == 1 and again.stderr.splitlines()[-1].startswith("error: round 2 waits for the doctor")
    asked = round_file.newest(run)
    assert shlex.split(asked.command)[:2] == ["python", "-m"]
    bad, *rest = [item.slice for item in asked.items]
    filled = tmp_path / "filled.csv"
    filled.write_text("slice,label,reader,seconds\n" + f"{bad},not_usable,reader_1,3\n{rest[0]},glioma,reader_1,8.5\n")
    done = annotate(f"--worklist={filled}")
    assert "round 2: 2 new answers; all are answered, go on: " in done.stdout, done.stderr
    last = active()
    assert last.returncode == 0 and "stopped by rounds after 2 rounds" in last.stdout, last.stderr
    given = [(r["slice"], r["label"], r["reader"], r["seconds"], r["round"]) for r in table(run / labels.FILE)]
    assert given == [(bad, "not_usable", "reader_1", "3", "1"), (rest[0], "glioma", "reader_1", "8.5", "1")]

    (tmp_path / "other").mkdir()
    for flags, message in (
        ([f"--private={tmp_path}/other", f"--data={data}"], "lacks 16 pseudonyms of"),
        ([f"--private={tmp_path}/other"], "need both --private"),
    ):
        wrong = annotate(*flags)
        assert wrong.returncode == 1 and message in wrong.stderr and len(wrong.stderr.splitlines()) == 1
    assert not list((tmp_path / "other").iterdir())
    written = annotate(f"--private={private}", f"--data={data}")
    assert "3 of 4 patients with a label, 11 of 12 slices" in written.stdout, written.stderr
    folder = private / next_study.FOLDER
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    patients = table(folder / "patients.csv")
    assert sorted(r["patient_id"] for r in patients) == [f"MRN00{i}" for i in range(4)]
    assert sorted(r["label"] for r in patients) == ["", "encephalitis", "glioma", "glioma"]
    assert {r["age"] for r in patients} == {"00-49", "10-49"}
    said = "".join(output.stdout + output.stderr for output in (first, again, done, last, written))
    files = "".join(p.read_text(errors="replace") for p in run.rglob("*") if p.suffix in (".csv", ".json", ".jsonl"))
    assert not any("MRN00" in text or ".25.1" in text for text in (said, files))

    for name in ("patients.csv", "slices.csv"):
        (folder / name).replace(flair_tree / name)
    prepare.prepare(flair_tree, tmp_path / "next", private, Options())
    known = store.load_slices(tmp_path / "next", "flair")
    assert len(known.label) == 11 and bad not in known.slice_id and (known.label >= 0).sum() in (8, 9)
