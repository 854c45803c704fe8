"""A function mapped over tasks by several processes, with a progress display."""

import concurrent.futures as futures
import contextlib
import itertools
import multiprocessing
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from lesion.progress import track

Task = TypeVar("Task")
Result = TypeVar("Result")
MAX_WORKERS = 16
# Spawned, not forked: the caller may run threads (JAX, progress), and a forked process can then hang.
CONTEXT = multiprocessing.get_context("spawn")


def parallel_map(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    stage: str,
    on_crash: Callable[[Task], Result],
    chunk_size: int = 1,
    max_serial: int = 64,
) -> Generator[Result, None, None]:
    """Yields `function(task)` for each task, in order; one who stops before the end closes it, to end its processes.

    Args:
        function: a top-level function, so that it can be sent to another process.
        tasks: its arguments.
        stage: name in the progress display.
        on_crash: gives the result of a task whose process died (a codec written in C, on broken pixels).
        chunk_size: number of tasks sent to a process at once.
        max_serial: largest number of tasks that are done in this process, because starting others takes longer; 0 if
            tasks may crash.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    results: Iterator[Result]
    if len(tasks) <= max_serial or (max_serial and cores == 1):
        results = map(function, tasks)
    elif has_semaphores():
        results = _pooled(function, tasks, on_crash, min(cores, MAX_WORKERS), chunk_size)
    else:
        results = _one_by_one(function, tasks, on_crash)
    yield from track(stage, results, len(tasks))


def _pooled(
    function: Callable, tasks: Sequence, on_crash: Callable, num_workers: int, chunk_size: int
) -> Iterator[Any]:
    done = 0
    try:
        with futures.ProcessPoolExecutor(num_workers, CONTEXT) as pool:
            for result in pool.map(function, tasks, chunksize=chunk_size):
                done += 1
                yield result
    except futures.process.BrokenProcessPool:
        # The task that crashed is unknown, so the rest is done one by one: each crash then costs one task only.
        yield from _one_by_one(function, tasks[done:], on_crash)


def _one_by_one(function: Callable, tasks: Sequence, on_crash: Callable) -> Iterator[Any]:
    """Yields the results of one process, which is started again after a task that ended it.

    Needs no semaphores, unlike a pool.
    """
    left = iter(tasks)
    for first in left:
        connection, of_process = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_serve, args=(of_process, function), daemon=True)
        process.start()
        of_process.close()
        try:
            for task in itertools.chain([first], left):
                try:
                    connection.send(task)
                    result, error = connection.recv()
                except (EOFError, ConnectionError):
                    yield on_crash(task)
                    break
                if error is not None:
                    raise error
                yield result
        finally:
            connection.close()
            process.join()


def _serve(connection: Connection, function: Callable) -> None:
    """Answers each task with (result, None) or (None, exception) until the other end is closed."""
    with contextlib.suppress(EOFError):
        while True:
            task = connection.recv()
            answer: tuple[Any, Exception | None]
            try:
                answer = function(task), None
            except Exception as error:
                answer = None, error
            connection.send(answer)


def has_semaphores() -> bool:
    """Returns whether the system has semaphores between processes, which Linux keeps in /dev/shm."""
    try:
        CONTEXT.Lock()
    except OSError:
        return False
    return True


def survives(function: Callable, *arguments: Any) -> bool:
    """Returns whether a process survives the call, which it does if the call merely raises an exception."""
    return next(_one_by_one(_survive, [(function, arguments)], lambda task: False))


def _survive(task: tuple[Callable, tuple]) -> bool:
    function, arguments = task
    with contextlib.suppress(Exception):
        function(*arguments)
    return True
