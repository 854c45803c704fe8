import json

import pytest
from ml_collections import ConfigDict

from lesion import files
from lesion.errors import UserError
from lesion.runs import rundir


def run(lr=1e-3, weights="a", sha256="1"):
    config = ConfigDict({"optim": {"lr": lr}, "weights": weights})
    info = {"fingerprint": "f", "phantom": True}
    return rundir.identity(config, info, "s", {"sha256": sha256}, "cpu")


def test_a_folder_is_claimed_by_one_run_and_finished_once(tmp_path):
    folder = tmp_path / "run"
    assert not rundir.open_run(folder, run())
    assert not rundir.open_run(folder, run())  # interrupted: goes on
    rundir.finish(folder, {"auc": 0.5})
    assert rundir.open_run(folder, run(weights="elsewhere"))  # the same weights in another place
    record = json.loads((folder / rundir.CONFIG).read_text())
    assert {"jax", "flax", "python"} <= set(record["versions"])
    assert record["started"] <= record["finished"]
    for other, word in ((run(lr=0.1), "config.optim.lr is 0.001 there, 0.1 now"), (run(sha256="2"), "weights.sha256")):
        with pytest.raises(UserError, match=word):
            rundir.open_run(folder, other)


def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "t.csv"
    files.write_csv(path, ("a", "b"), [(1, 1 / 3)])
    assert path.read_text() == "a,b\n1,0.333333333\n"

    def rows():
        yield 2, 0.5
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_csv(path, ("a", "b"), rows())
    assert path.read_text() == "a,b\n1,0.333333333\n"
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]
