"""The processes of a run: which one writes, how they wait for each other, and how they stop."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils


def is_first() -> bool:
    """Returns whether this is the first process, the only one that writes files."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Waits until all processes have called this function with the same `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class StopSignal:
    """A request to stop the run; with several processes all of them see it at the same step."""

    def __init__(self) -> None:
        self._event, self._num_calls = threading.Event(), 0

    def set(self, *_: Any) -> None:
        """Makes the request; serves as a signal handler."""
        self._event.set()

    def requested(self) -> bool:
        """Returns whether to stop now; all processes must call it equally often, so that all get the same answer."""
        self._num_calls += 1
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(self._num_calls))
        return self._event.is_set()


@contextlib.contextmanager
def handle_sigterm() -> Iterator[StopSignal]:
    """Yields a `StopSignal` that SIGTERM sets, within the context, instead of ending the process at once."""
    stop = StopSignal()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield stop  # between processes JAX handles SIGTERM itself; only a main thread may set a handler
        return
    previous_handler = signal.signal(signal.SIGTERM, stop.set)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous_handler)
