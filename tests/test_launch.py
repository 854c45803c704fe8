"""The launch scripts as a shell sees them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_set_up_that_fails_leaves_the_terminal_open(shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here, and launch/test.sh could not install it")
    old = tmp_path / "python3.10"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.10.0 && exit\nexit 1\n')
    old.chmod(0o755)
    copy = tmp_path / "lesion"
    shutil.copytree(ROOT / "launch", copy / "launch")
    shutil.copy(ROOT / "pyproject.toml", copy)
    command = f"source {copy}/launch/setup.sh; echo status $?; pwd"
    env = os.environ | {"PYTHON": str(old)}
    done = subprocess.run([shell, "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["status 1", str(copy)]
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and "Python 3.10.0: Python 3.11 or newer is needed" in line
