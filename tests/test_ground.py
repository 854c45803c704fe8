"""The modules everything stands on: errors, progress, trees."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion import cli, environment, progress, trees

PROGRAM = """
from lesion import cli, errors
def main(argv):
    {body}
cli.run(main)
"""
ENDS = {
    "bad input": ("raise errors.UserError('no label: write one')", 1, "error: no label: write one"),
    "full disk": ("raise OSError(28, 'full', 'x.csv')", 1, f"error: full: x.csv: {cli.MENDED_BY[errno.ENOSPC]}"),
    "no such file": ("open('nowhere')", 1, "error: No such file or directory: nowhere"),
    "who read has gone": ("raise BrokenPipeError", 141, ""),
    "fine": ("print('done')", 0, ""),
}


@pytest.mark.parametrize(("body", "status", "message"), ENDS.values(), ids=ENDS)
def test_what_a_user_got_wrong_is_one_line(body, status, message):
    command = [sys.executable, "-c", PROGRAM.format(body=body)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr.strip()) == (status, message)


def test_a_stray_argument_is_an_error():
    command = [sys.executable, "-c", PROGRAM.format(body="pass"), "workdir=x"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "flags are written --name=value" in result.stderr


def test_progress_passes_everything_on_and_tells_how_far(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    assert list(progress.track("stage", "abc", 3)) == list("abc")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines[:2]] == ["stage: 1 of 3", "stage: 2 of 3"]
    assert lines[2].startswith("stage: 3 of 3 in ")


TREES = st.recursive(
    st.lists(st.floats(width=32, allow_nan=False), max_size=3).map(lambda x: np.array(x, np.float32)),
    lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, min_size=1, max_size=3),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))


@settings(max_examples=50, deadline=None)
@given(TREES)
def test_trees_flatten_and_back_and_hash_by_content(tree):
    flat = trees.flatten(tree)
    assert trees.flatten(trees.unflatten(flat)).keys() == flat.keys()
    assert trees.num_params(tree) == sum(leaf.size for leaf in flat.values())
    assert trees.sha256(tree) == trees.sha256(trees.unflatten(dict(reversed(flat.items()))))
    name = next(iter(flat))
    assert trees.sha256(tree) != trees.sha256(trees.unflatten(flat | {name: np.append(flat[name], np.float32(1))}))


FLAGS = {
    "nothing set": ({}, "0.10.2", environment.CPU_FLAG),
    "a foreign flag stays": ({"XLA_FLAGS": "--xla_x=1"}, "0.10.2", f"{environment.CPU_FLAG} --xla_x=1"),
    "set by the user": ({"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=A"}, "0.10.2", None),
    "a version that was not tried": ({}, "0.99.0", None),
}


@pytest.mark.parametrize(("environ", "jaxlib", "flags"), FLAGS.values(), ids=FLAGS)
def test_xla_gets_its_flag_beside_the_users(environ, jaxlib, flags):
    assert environment.xla_flags(environ, jaxlib) == flags


@pytest.mark.slow
@pytest.mark.parametrize(("first", "told"), [("jax", 0), ("jax; jax.devices()", 1)])
def test_a_flag_that_comes_too_late_is_told(first, told):
    program = f"import {first}; import lesion, os; print(os.environ['XLA_FLAGS'])"
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert environment.CPU_FLAG in done.stdout and done.stderr.count("\n") == told
