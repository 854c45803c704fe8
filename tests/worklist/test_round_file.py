"""The folder of a round that is missing, damaged or moved."""

from pathlib import Path

import example_round
import pytest

from lesion.errors import UserError
from lesion.worklist import round_file


def test_missing_or_damaged_round_is_one_line(tmp_path):
    example_round.write(tmp_path)
    with pytest.raises(UserError, match=r"begin with launch\.active"):
        round_file.newest(tmp_path / "elsewhere")
    (round_file.folder_of(tmp_path, 0) / round_file.FILE).write_text("{}")
    (tmp_path / "annotate/round_001.zip").touch()  # sent to somebody: not a round
    with pytest.raises(UserError, match="is damaged: remove"):
        round_file.newest(tmp_path)


MOVED = {
    "python -m launch.active --workdir=old --config.mode=frozen": "'--workdir=a run #1' --config.mode=frozen",
    "python -m launch.active --workdir 'old one' '--data=x y'": "--workdir 'a run #1' '--data=x y'",
    "python -m launch.active --flagfile=all.flags": "--flagfile=all.flags",
}


@pytest.mark.parametrize("command", MOVED)
def test_a_moved_run_goes_on_where_it_is(command):
    assert round_file.command_in(Path("a run #1"), command) == f"python -m launch.active {MOVED[command]}"
