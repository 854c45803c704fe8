"""The reading page on loopback: Flask behind waitress, a token in the address, nothing from anywhere else."""

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
from lesion.annotate.app import HOST, make_app
from lesion.errors import UserError
from lesion.worklist import FOLDER, round_file

ADDRESS = "address.json"


def serve(workdir: Path, port: int = 0) -> None:
    """Serves until it is interrupted; the address stays the same when it is started again.

    Args:
        workdir: of a run that asks a doctor.
        port: 0 is the one it had before, or a free one.

    Raises:
        UserError: if nothing is asked, it is served already, or the port is taken.
    """
    this = round_file.newest(workdir)
    path = workdir / FOLDER / ADDRESS
    before = _address(path)
    try:
        with filelock.FileLock(path.with_name("server.lock"), timeout=0):
            token = before.get("token") or secrets.token_urlsafe(16)
            with _listening(port, before.get("port", 0)) as sock:
                _keep(path, {"port": sock.getsockname()[1], "token": token})
                logging.getLogger("waitress").setLevel(logging.ERROR)
                left = round_file.num_open(workdir, this)
                print(
                    f"round {this.number + 1}: {len(this.items)} slices of {len(this.patients)} patients, {left} left\n"
                    f"read them at {_url(path)} (from this machine only; Ctrl-C ends, nothing is lost)",
                    flush=True,
                )
                waitress.serve(make_app(workdir, token), sockets=[sock], threads=8)
    except filelock.Timeout as error:
        raise UserError(f"{workdir} is served already: open {_url(path)}") from error


@contextlib.contextmanager
def _listening(port: int, before: int) -> Iterator[socket.socket]:
    """A socket on `port`, or on the one from before, or on a free one."""
    for number in [port] if port else [before, 0]:
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
    raise UserError("no free port on 127.0.0.1")


def _keep(path: Path, address: dict[str, Any]) -> None:
    """Only for the user's own eyes: whoever has the token may answer."""
    with files.replacing(path) as temporary:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            json.dump(address, file)


def _address(path: Path) -> dict[str, Any]:
    """The one from before, {} where there is none to read."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _url(path: Path) -> str:
    address = _address(path)
    return f"http://{HOST}:{address.get('port', '?')}/{address.get('token', '?')}/"
