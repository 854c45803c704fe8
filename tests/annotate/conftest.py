"""Starts the server of the reading page as its users do."""

import re
import subprocess
import sys

import pytest


@pytest.fixture
def start(tmp_path):
    """Starts the server; returns its process and address."""
    processes = []

    def start():
        command = [sys.executable, "-m", "launch.annotate", f"--workdir={tmp_path}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        url = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
        return process, url

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()
