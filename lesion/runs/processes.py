"""The processes of a run: which one writes, how they wait for each other, and how they stop."""

import contextlib
import itertools
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from lesion import files
from lesion.errors import Interrupted, UserError

Value = TypeVar("Value")
# Waiting is for as long as the others live: JAX ends every process within two minutes of the death of one.
FOREVER_MS = 365 * 24 * 3600 * 1000
_calls = itertools.count()  # tells one meeting of the processes from another of the same name


def is_first() -> bool:
    """Returns whether this is the first process, the only one that writes files."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Waits until all processes have called this function with the same `name`.

    It must come after whatever one process does alone: between devices, Gloo waits for 30 seconds only.
    """
    if jax.process_count() > 1:
        ocp.multihost.get_barrier_sync_fn()(key=f"{name} {next(_calls)}", timeout_ms=FOREVER_MS)


def of_first(name: str, make: Callable[[], Value]) -> Value:
    """Returns the value that `make` has in the first process, the only one that calls it, to all processes.

    Args:
        name: what it is; all processes must ask for the same in the same order.
        make: returns a JSON-able value.

    Raises:
        UserError: the one that `make` raises, in all processes.
    """
    if jax.process_count() == 1:
        return make()
    client, key = ocp.multihost.get_jax_distributed_client(), f"lesion {name} {next(_calls)}"
    if is_first():
        try:
            value = make()
        except UserError as error:
            client.key_value_set(key, json.dumps({"error": str(error)}))
            raise
        client.key_value_set(key, json.dumps({"value": value}))
        return value
    told = json.loads(client.blocking_key_value_get(key, FOREVER_MS))
    if "error" in told:
        raise UserError(told["error"])
    return told["value"]


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds a run's folder for the processes of this run; raises an `InUseError` if those of another hold it."""
    with contextlib.ExitStack() as stack:
        of_first("lock", lambda: stack.enter_context(files.locked(workdir, inside=True)))
        yield
        wait_for_all("end")  # of those that still read what the first has written


class StopSignal:
    """A request to stop the run; with several processes all of them see it at the same step, or none does."""

    def __init__(self) -> None:
        self._event, self._num_calls = threading.Event(), 0

    def set(self, *_: Any) -> None:
        """Makes the request; serves as a signal handler."""
        self._event.set()

    def requested(self) -> bool:
        """Returns whether to stop now; all processes must call it equally often, so that all get the same answer."""
        self._num_calls += 1
        # JAX says so at one call only, the first that every process has yet to make.
        if jax.process_count() > 1 and not self._event.is_set():
            if multihost_utils.reached_preemption_sync_point(self._num_calls):
                self._event.set()
        return self._event.is_set()

    def raise_if_seen(self) -> None:
        """Raises an `Interrupted` if the request was made, or, with several processes, seen by `requested`."""
        if self._event.is_set():
            raise Interrupted("stopped at the end of a run, all saved")


@contextlib.contextmanager
def handle_sigterm() -> Iterator[StopSignal]:
    """Yields a `StopSignal` that SIGTERM sets, within the context, instead of ending the process at once.

    Raises:
        Interrupted: at the end of the context, if the request came too late for the body: nothing is to come after it.
    """
    stop = StopSignal()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield stop  # between processes JAX handles SIGTERM itself; only a main thread may set a handler
        stop.raise_if_seen()
        return
    previous_handler = signal.signal(signal.SIGTERM, stop.set)
    try:
        yield stop
        stop.raise_if_seen()
    finally:
        signal.signal(signal.SIGTERM, previous_handler)
