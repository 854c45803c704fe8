"""The server of the reading page, started as a program."""

import http.client
import socket
import subprocess
import sys
import urllib.parse
import urllib.request

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


def test_half_open_connections_and_bodies_without_a_token_hold_up_nobody(start, tmp_path):
    example_round.write(tmp_path)
    _, url = start()
    port = urllib.parse.urlsplit(url).port
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(150)]
    try:
        for half in idle[:50]:
            half.sendall(b"GET / HTTP/1.1\r\nHost: 127")
        with urllib.request.urlopen(url, timeout=10) as reply:
            assert reply.status == 200
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest("POST", "/guessed/answer")
        connection.putheader("Content-Length", str(300 * 2**20))
        connection.endheaders(b"{")  # refused before the rest is sent
        assert connection.getresponse().status == 413
        connection.close()
    finally:
        for half in idle:
            half.close()


def test_address_stays_and_a_port_that_is_taken_is_one_line(start, tmp_path):
    example_round.write(tmp_path)
    process, url = start()
    process.kill()
    process.wait()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "launch.annotate", f"--workdir={tmp_path}", f"--port={port}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and f"--port={port}: " in done.stderr
    assert start()[1] == url
