"""The server of the reading page, started as a program."""

import subprocess
import sys

import example_round

from lesion.worklist import round_file


def test_run_is_served_once_and_only_if_it_asks(start, tmp_path):
    def annotate(folder):
        command = [sys.executable, "-m", "launch.annotate", f"--workdir={folder}"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    nothing = annotate(tmp_path)
    assert (nothing.returncode, nothing.stdout) == (1, "") and "has queried no round" in nothing.stderr
    example_round.write(tmp_path)
    _, url = start()
    second = annotate(tmp_path)
    assert second.returncode == 1 and f"is served already: open {url}" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert (tmp_path / "annotate/address.json").stat().st_mode & 0o777 == 0o600
    assert round_file.newest(tmp_path).number == 0
