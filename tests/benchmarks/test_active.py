import pytest
import tiny

from lesion import benchmarks, models
from lesion.benchmarks import active


@pytest.mark.slow
def test_every_contender_has_its_turn_and_its_row(monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", tiny.SPEC)
    for name, value in {
        "POOL": 100,
        "NUM_SLICES": 60,
        "WIDTH": 4,
        "INITIAL": 10,
        "NUM_ACQUIRE": 5,
        "ROUNDS": 2,
    }.items():
        monkeypatch.setattr(active, name, value)
    monkeypatch.setattr(active, "NUM_PICTURES", 16)
    monkeypatch.setattr(active.importlib.util, "find_spec", lambda name: None)
    rows = active.run(tiny.config(batch_size=8, num_copies=0), 1)
    assert [row.name for row in rows] == ["2 rounds", "scoring pictures"]
    assert all(row.value > 0 and row.other > 0 for row in rows)
    assert benchmarks.table(rows)[0][3] == "ratio"
