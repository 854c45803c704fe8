"""Serves the reading page on loopback only, at an address that holds a secret token."""

import contextlib
import json
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import waitress

from lesion import files
from lesion.annotate.app import HOST, MAX_BYTES, make_app
from lesion.errors import UserError
from lesion.worklist import FOLDER, round_file

ADDRESS = "address.json"
# Whoever knows no token holds up nobody: what is sent is cut before it is read, and who sends nothing is let go.
LIMITS = {
    "max_request_body_size": MAX_BYTES,
    "connection_limit": 500,
    "channel_timeout": 20,  # seconds
    "cleanup_interval": 2,  # seconds
    "asyncore_use_poll": True,  # select takes no more than 1024 files
}


def serve(workdir: Path, port: int = 0) -> None:
    """Serves the page until it is interrupted, and at the same address when it is started again.

    Args:
        workdir: folder of a run with a doctor.
        port: port to listen on; 0: the previous one, or a free one.

    Raises:
        UserError: if no round was queried, the page is served already, or the port is taken.
    """
    round_ = round_file.newest(workdir)
    path = workdir / FOLDER / ADDRESS
    previous = _read_address(path)
    try:
        with filelock.FileLock(path.with_name("server.lock"), timeout=0):
            token = previous.get("token") or secrets.token_urlsafe(16)
            with _listen(port, previous.get("port", 0)) as sock:
                _write_address(path, {"port": sock.getsockname()[1], "token": token})
                logging.getLogger("waitress").setLevel(logging.ERROR)
                left = round_file.num_open(workdir, round_)
                num_slices, num_patients = len(round_.items), len(round_.patients)
                print(
                    f"{round_.title}: {num_slices} slices of {num_patients} patients, {left} left\n"
                    f"read them at {_url(path)} (from this machine only; Ctrl-C ends, nothing is lost)",
                    flush=True,
                )
                waitress.serve(make_app(workdir, token), sockets=[sock], threads=8, **LIMITS)
    except filelock.Timeout as error:
        raise UserError(f"{workdir} is served already: open {_url(path)}") from error


@contextlib.contextmanager
def _listen(port: int, previous_port: int) -> Iterator[socket.socket]:
    """Yields a socket that listens on `port`; if that is 0, on the previous port or else on a free one."""
    for number in [port] if port else [previous_port, 0]:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, number))
            sock.listen()
        except OSError as error:
            sock.close()
            if port:
                raise UserError(f"--port={port}: {error.strerror}: name another, or leave it out") from error
            continue
        with sock:
            yield sock
            return
    raise UserError(f"no free port on {HOST}")


def _write_address(path: Path, address: dict[str, Any]) -> None:
    """Writes the address to a file that only the user may read: whoever has the token may answer."""
    with files.replacing(path) as temporary:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            json.dump(address, file)


def _read_address(path: Path) -> dict[str, Any]:
    """Returns the address last written, {} if there is none or it cannot be read."""
    try:
        return dict(files.read_json(path))
    except (OSError, ValueError):
        return {}


def _url(path: Path) -> str:
    address = _read_address(path)
    return f"http://{HOST}:{address.get('port', '?')}/{address.get('token', '?')}/"
