"""The launch scripts as a shell sees them."""

import os
import shutil
import subprocess
import sys
import zipfile
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


@pytest.mark.slow
def test_a_wheel_has_programs_configurations_tables_and_the_page(tmp_path):
    for name in ("lesion", "launch", "configs", "third_party"):  # pip builds in the folder itself
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "copy")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, tmp_path / "copy"]
    subprocess.run(command, capture_output=True, text=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    shutil.rmtree(tmp_path / "copy")

    def run(*command):
        env = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
        ).stdout

    assert "configs/transfer.py[:BACKBONE,SEQUENCE]" in run("-m", "launch.train", "--config=list")
    tables = "from lesion.annotate import app; from lesion.weights import public_files"
    missing = "print([name for name, folder in app.FILES.items() if not (folder / name).exists()])"
    assert run("-c", f"{tables}; {missing}; print(public_files.TABLE.exists())").split() == ["[]", "True"]
    (tmp_path / "own.py").write_text("from configs.transfer import *\n")
    assert "configs.transfer" in run("-m", "launch.train", "--config=own.py", "--help")
