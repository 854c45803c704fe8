"""The folder of a round that is missing or damaged."""

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
