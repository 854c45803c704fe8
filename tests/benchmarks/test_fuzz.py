import dicom_trees
import numpy as np
import pytest

from lesion import cli
from lesion.benchmarks import fuzz

MUTANTS = 200


def failures(tasks):
    outcomes = fuzz.read_all(tasks, "fuzzing")
    assert len(outcomes) == len(tasks) and max(outcome.peak_mib for outcome in outcomes) < fuzz.LIMIT_MIB
    return [outcome.failure for outcome in outcomes if outcome.failure]


@pytest.mark.slow
def test_damaged_dicom_is_rejected(tmp_path):
    tree = dicom_trees.make_tree(tmp_path, patients=1, slices=1, size=32)
    made = [path.read_bytes() for path in sorted(tree.rglob("IM*"))]
    assert failures(fuzz.dicom_tasks([*fuzz.seed_files(), *made], MUTANTS)) == []


@pytest.mark.slow
def test_damaged_tables_are_told_in_one_line():
    assert failures(fuzz.table_tasks(MUTANTS)) == []


@pytest.mark.slow
@pytest.mark.parametrize("file", fuzz.configurations())
def test_odd_values_of_a_configuration_are_told_in_one_line(file):
    assert fuzz.try_overrides(file, 1) == []


def test_whatever_is_read_is_damaged_and_a_death_is_counted(monkeypatch):
    sound = dicom_trees.dataset(np.zeros((8, 8), np.uint16))
    assert len({task.content for task in fuzz.table_tasks(60)}) > 50 and len(fuzz.ODD) > 200
    assert fuzz.dicom_tasks([bytes(range(200))], 9) == fuzz.dicom_tasks([bytes(range(200))], 9)
    assert fuzz._read(fuzz.Task(b"", "patients.csv")).failure == ""
    monkeypatch.setattr(fuzz, "_read_dicom", lambda folder, task: sound.no_such_field)
    assert "AttributeError" in fuzz._read(fuzz.Task(b"")).failure
    monkeypatch.setattr(fuzz.workers, "survives", lambda function, task: False)
    assert fuzz._died(fuzz.Task(b"")).failure.startswith("died")
    compressed = next(content for content in fuzz.seed_files() if b"1.2.840.10008.1.2.5" in content)  # RLE
    assert fuzz._died(fuzz.Task(compressed)) == ("", 0.0, True)
    assert "configs/active.py" in cli.list_configs()
