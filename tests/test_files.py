"""Files and folders that several processes want to write."""

import os
import re
import subprocess
import sys
import threading
import time

import pytest

from lesion import files
from lesion.errors import InUseError

HOLDER = """
import sys, time
from pathlib import Path
from lesion import files
with files.locked(Path(sys.argv[1]), inside=sys.argv[2] == "True"), files.new_folder(Path(sys.argv[1], "part")) as new:
    (new / "half").touch()
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=[False, True], ids=["beside", "inside"])
def held(request, tmp_path):
    """A folder that another process holds, the options that lock it, and the process."""
    folder = tmp_path / "new" / "out"
    command = [sys.executable, "-c", HOLDER, str(folder), str(request.param)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield folder, {"inside": request.param}, process
        process.kill()


@pytest.mark.slow
def test_who_holds_a_folder_is_told_and_a_dead_holder_is_no_holder(held, tmp_path, capsys):
    folder, how, process = held
    with pytest.raises(InUseError) as error, files.locked(folder, **how):
        raise AssertionError("two hold it")
    told = rf"{folder} is in use by process {process.pid} on \S+ since \d+-\S+: wait until that ends, or name another"
    assert re.match(told, str(error.value)) and "\n" not in str(error.value)
    begin = time.monotonic()
    threading.Timer(2, process.kill).start()
    with files.locked(folder, wait=True, **how), files.new_folder(folder / "part") as new:  # what was left is gone
        assert time.monotonic() - begin > 1 and not list(new.iterdir())
        assert f"waiting for process {process.pid} on " in capsys.readouterr().err
        assert [path.name for path in folder.iterdir() if path.name != files.LOCK] == [".part.partial"]
    assert [path.name for path in folder.rglob("*")] == ["part"] and os.listdir(folder.parent) == ["out"]


def test_a_lock_leaves_nothing_behind_where_nothing_was_written(tmp_path):
    for how in ({}, {"inside": True}):
        with files.locked(tmp_path / "new" / "out", **how):
            assert len(list((tmp_path / "new").rglob("*lock"))) == 1
        assert not list(tmp_path.iterdir())
