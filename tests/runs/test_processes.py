"""A stop is asked for once, and seen from then on; what the first process knows, all know."""

import json
import os
import signal

import jax
import orbax.checkpoint as ocp
import pytest
from jax.experimental import multihost_utils

from lesion import files
from lesion.errors import Interrupted, UserError
from lesion.runs import processes


def test_a_stop_that_comes_too_late_for_a_run_lets_nothing_follow_it():
    with pytest.raises(Interrupted, match="all saved"), processes.handle_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)  # after the last look
    with processes.handle_sigterm():
        pass  # nobody asked


def test_what_jax_says_once_is_heard_ever_after(monkeypatch):
    asked = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda n: asked.append(n) or n == 2)
    with pytest.raises(Interrupted), processes.handle_sigterm() as stop:
        assert [stop.requested() for _ in range(4)] == [False, True, True, True]
    assert asked == [1, 2]


class Client:
    """The store that JAX's processes share."""

    def __init__(self):
        self.told = {}

    def key_value_set(self, key, value):
        self.told[key] = value

    def blocking_key_value_get(self, key, timeout_ms):
        return list(self.told.values())[-1]


def test_the_first_process_makes_and_all_have_it(monkeypatch, tmp_path):
    client, made = Client(), []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(ocp.multihost, "get_jax_distributed_client", lambda: client)
    for index in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        assert processes.of_first("folds", lambda: made.append(1) or [True, False]) == [True, False]
    assert made == [1] and json.loads(*client.told.values()) == {"value": [True, False]}
    with files.locked(tmp_path / "run", inside=True):
        for index in (0, 1):
            monkeypatch.setattr(jax, "process_index", lambda index=index: index)
            with (
                pytest.raises(UserError, match=f"in use by process {os.getpid()} on"),
                processes.locked(tmp_path / "run"),
            ):
                raise AssertionError("two hold it")
