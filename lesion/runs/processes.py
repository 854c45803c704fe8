"""The processes of a run: which of them writes, where they meet, and how they are told to stop."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils


def is_first() -> bool:
    """Returns whether this process writes: of several machines only the first does."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when all processes have come to the meeting point `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class StopSignal:
    """Whether somebody asked the run to stop; with several processes all of them see it at the same step."""

    def __init__(self) -> None:
        """Begins unset."""
        self._event, self._num_requests = threading.Event(), 0

    def set(self, *_: Any) -> None:
        """Asks the run to stop; a signal handler."""
        self._event.set()

    def requested(self) -> bool:
        """Returns whether to stop now; all processes ask equally often, so that all get the same answer."""
        self._num_requests += 1
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(self._num_requests))
        return self._event.is_set()


@contextlib.contextmanager
def handle_sigterm() -> Iterator[StopSignal]:
    """Yields a signal that SIGTERM sets, inside, instead of ending the process at once."""
    stop = StopSignal()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield stop  # JAX's own coordination listens to the signal
        return
    before = signal.signal(signal.SIGTERM, stop.set)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
