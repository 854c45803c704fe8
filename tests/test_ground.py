"""The modules everything stands on: errors, progress, trees."""

import errno
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion import errors, progress, trees

PROGRAM = """
from lesion import errors
def main(argv):
    {body}
errors.run(main)
"""
ENDS = {
    "bad input": ("raise errors.UserError('no label: write one')", 1, "error: no label: write one"),
    "full disk": ("raise OSError(28, 'full', 'x.csv')", 1, f"error: full: x.csv: {errors.MENDED_BY[errno.ENOSPC]}"),
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
