"""Tasks by several processes: in order, whatever a task does to its process, and where there are no semaphores."""

import os
import signal

import pytest

from lesion import workers


def task(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 99:
        raise EOFError("the file ends early")
    return 2 * number


def no_semaphores():
    raise FileNotFoundError(2, "No such file or directory")  # as without /dev/shm


@pytest.mark.slow
@pytest.mark.parametrize("semaphores", [True, False])
def test_a_task_that_ends_its_process_costs_itself_only(semaphores, monkeypatch):
    if not semaphores:
        monkeypatch.setattr(workers.CONTEXT, "Lock", no_semaphores)
        monkeypatch.setattr(workers, "_pooled", lambda *args: pytest.fail("a pool needs semaphores"))
    options = {"on_crash": lambda number: f"{number} died", "max_serial": 0}
    assert list(workers.parallel_map(task, [1, 3, 4, 3, 5], "test", **options)) == [2, "3 died", 8, "3 died", 10]
    with pytest.raises(EOFError, match="ends early"):
        list(workers.parallel_map(task, [1, 99], "test", **options))
    assert [workers.survives(task, number) for number in (1, 3, 99)] == [True, False, True]
