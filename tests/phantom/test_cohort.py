import collections
import csv
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest

from lesion.classes import PAPER
from lesion.dataset import SEQUENCES, pseudonyms
from lesion.errors import UserError
from lesion.phantom import cohort, scanner

TABLE_1 = {
    "encephalitis": {"flair": 636, "ce_t1wi": 798, "t2wi": 745},
    "glioma": {"flair": 408, "ce_t1wi": 763, "t2wi": 402},
}


@pytest.fixture(scope="module")
def plan():
    return cohort.plan_cohort(cohort.PRESETS["table1"], 0)


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """One patient of the tiny preset, written twice."""
    plan = cohort.plan_cohort(cohort.PRESETS["tiny"], 0)[0]
    folders = [tmp_path_factory.mktemp("phantom") for _ in range(2)]
    chosen = [cohort.write_patient((folder, plan)) for folder in folders]
    assert chosen[0] == chosen[1]
    return plan, folders, chosen[0]


# pulse, density, T1, T2 in ms, signal by hand
SIGNALS = {
    "spin echo": (scanner.Pulse("se", 500, 10), 0.8, 1000, 100, 0.8 * (1 - 0.60653066) * 0.90483742),
    "inversion nulled": (scanner.Pulse("ir", 1e9, 0, 1000 * np.log(2)), 1.0, 1000, 100, 0.0),
    "gradient echo at 90": (scanner.Pulse("gre", 500, 0, flip_deg=90), 1.0, 1000, 100, 1 - 0.60653066),
}


@pytest.mark.parametrize(("pulse", "density", "t1_ms", "t2_ms", "expected"), SIGNALS.values(), ids=SIGNALS)
def test_signal_equations_by_hand(pulse, density, t1_ms, t2_ms, expected):
    np.testing.assert_allclose(scanner.signal(pulse, density, t1_ms, t2_ms), expected, atol=1e-7)


def test_gadolinium_shortens_both_times():
    t1_ms, t2_ms = scanner.relaxed_by_gadolinium(1000.0, 100.0, 0.2)  # 1/s: 1 + 5·0.2, 10 + 7.1·0.2
    np.testing.assert_allclose([t1_ms, t2_ms], [500.0, 1000 / 11.42])


def test_table_1_to_the_slice(plan):
    for label, sequences in TABLE_1.items():
        patients = [p for p in plan if p.case.label == label]
        assert len(patients) == {"encephalitis": 118, "glioma": 57}[label]
        assert {s: sum(p.counts[s] for p in patients) for s in SEQUENCES} == sequences
        assert all(p.counts[s] >= 1 for p in patients for s in SEQUENCES)
    assert len({p.identity.patient_id for p in plan}) == 175


def test_traits_beside_the_lesion_are_dealt_evenly_within_each_class(plan):
    for trait in ("vendor", "fov_mm", "num_slices", "noise", "gain"):
        shares = []
        for label in PAPER:
            counts = collections.Counter(getattr(p.plan, trait) for p in plan if p.case.label == label)
            total = sum(counts.values())
            shares.append({value: count / total for value, count in counts.items()})
        assert shares[0].keys() == shares[1].keys()
        assert all(abs(shares[0][value] - shares[1][value]) < 0.03 for value in shares[0])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(patient):
    _, folders, _ = patient
    files = [sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file()) for folder in folders]
    assert files[0] == files[1]
    assert len(files[0]) > 30
    for name in files[0]:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


@pytest.mark.slow
def test_the_files_are_mr_series_of_a_scanner_with_an_identity_planted(patient):
    plan, (folder, _), chosen = patient
    headers = [pydicom.dcmread(p) for p in sorted(folder.rglob("*")) if p.is_file()]
    assert len({h.SOPInstanceUID for h in headers}) == len(headers)
    assert set(chosen) <= {h.SOPInstanceUID for h in headers}
    by_series = collections.defaultdict(list)
    for h in headers:
        by_series[h.SeriesInstanceUID].append(h)
        assert (h.Modality, h.QualityControlImage, h.BurnedInAnnotation) == ("MR", "YES", "YES")
        assert str(h.PatientID) == plan.identity.patient_id
        assert h.PatientName
        assert h.PatientBirthDate
    assert len(by_series) == plan.plan.num_series
    for series in by_series.values():
        heights = np.array([float(h.ImagePositionPatient[2]) for h in sorted(series, key=lambda h: h.InstanceNumber)])
        steps = np.diff(heights)
        assert np.ptp(steps) < 0.01
        assert series[0].SliceThickness == 5.0
        assert series[0].SpacingBetweenSlices == 6.5
        first = series[0].pixel_array
        white = first.max()
        corner = first[: first.shape[0] // 6, : first.shape[1] // 6]
        assert (corner == white).sum() > 30  # burned-in text
    assert sum("ContrastBolusAgent" in h for h in headers) >= len(headers) // plan.plan.num_series


@pytest.mark.slow
def test_a_cohort_is_written_once_and_another_is_refused(phantom_dicom):
    output = phantom_dicom
    assert not cohort.make(output, "tiny")
    with (output / "patients.csv").open(newline="") as stream:
        labels = {row["patient_id"]: row["label"] for row in csv.DictReader(stream)}
    assert set(labels.values()) == set(PAPER)
    with (output / "slices.csv").open(newline="") as stream:
        uids = [row["sop_instance_uid"] for row in csv.DictReader(stream)]
    wanted = cohort.PRESETS["tiny"].slices
    assert len(set(uids)) == len(uids) == sum(sum(s.values()) for s in wanted.values())
    assert json.loads((output / cohort.STAMP).read_text())["preset"] == "tiny"
    assert pseudonyms.read_key(output / pseudonyms.FOLDER)
    with pytest.raises(UserError, match="is not empty"):
        cohort.make(output, "tiny", seed=1)
    assert not list(output.parent.glob(f".{output.name}*"))


@pytest.mark.parametrize("labeled", [None, 3, 8])
def test_as_many_patients_are_labelled_as_wanted_of_both_classes_in_turn(labeled, monkeypatch, tmp_path):
    monkeypatch.setattr(cohort, "write_patient", lambda task: [])
    monkeypatch.setattr(cohort.workers, "parallel_map", lambda do, tasks, *_, **__: map(do, tasks))
    cohort.make(tmp_path / "dicom", "tiny", labeled=labeled)
    with (tmp_path / "dicom/patients.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    labels = [row["label"] for row in rows if row["label"]]
    assert len(labels) == (labeled or len(rows)) and abs(labels.count("glioma") - labels.count("encephalitis")) <= 1
    assert (tmp_path / "dicom/truth.csv").exists() == (labeled == 3)


def test_simulated_readers_are_added_and_change_no_other_file(monkeypatch, tmp_path):
    monkeypatch.setattr(cohort, "write_patient", lambda task: [])
    monkeypatch.setattr(cohort.workers, "parallel_map", lambda do, tasks, *_, **__: map(do, tasks))
    tables, others = [], []
    for number in (0, 1, 2):
        root = tmp_path / str(number)
        cohort.make(root, "table1", readers=number)
        files = {p.relative_to(root).as_posix(): p.read_text() for p in root.rglob("*") if p.is_file()}
        stamp = json.loads(files.pop(cohort.STAMP))
        assert stamp.get("readers", 0) == number
        tables.append(list(csv.DictReader(files.pop("readers.csv", "").splitlines())))
        labels = {row["patient_id"]: row["label"] for row in csv.DictReader(files["patients.csv"].splitlines())}
        assert set(files) == {"patients.csv", "slices.csv", f"{pseudonyms.FOLDER}/{pseudonyms.KEY_FILE}"}
        others.append(files)
    assert others[0] == others[1] == others[2]
    assert tables[0] == [] and tables[1] == tables[2][:175]
    for reader in ("simulated reader 1", "simulated reader 2"):
        answers = [row for row in tables[2] if row["reader"] == reader]
        assert {row["patient_id"] for row in answers} == set(labels)
        right = [row["label"] == labels[row["patient_id"]] for row in answers]
        assert 0.65 < np.mean(right) < 0.95


@pytest.mark.parametrize(("preset", "seed", "overlap"), [("huge", 0, 0.1), ("tiny", -1, 0.1), ("tiny", 0, 1.5)])
def test_bad_flags_are_one_line(preset, seed, overlap):
    with pytest.raises(UserError):
        cohort.make(Path("never"), preset, seed, overlap)
    with pytest.raises(UserError, match="--readers=10"):
        cohort.make(Path("never"), "tiny", readers=10)
