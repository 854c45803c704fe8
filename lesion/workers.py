"""A function mapped over tasks by several processes, with a progress display."""

import concurrent.futures as futures
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from lesion.progress import track

Task = TypeVar("Task")
Result = TypeVar("Result")
MAX_WORKERS = 16


def parallel_map(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    stage: str,
    on_crash: Callable[[Task], Result],
    chunk_size: int = 1,
    max_serial: int = 64,
) -> Iterator[Result]:
    """Yields `function(task)` for each task, in order.

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
    else:
        results = _pooled(function, tasks, on_crash, min(cores, MAX_WORKERS), chunk_size)
    yield from track(stage, results, len(tasks))


def _pooled(
    function: Callable, tasks: Sequence, on_crash: Callable, num_workers: int, chunk_size: int
) -> Iterator[Any]:
    # Spawned, not forked: the caller may run threads (JAX, progress), and a forked process can then hang.
    context = multiprocessing.get_context("spawn")
    done = 0
    try:
        with futures.ProcessPoolExecutor(num_workers, context) as pool:
            for result in pool.map(function, tasks, chunksize=chunk_size):
                done += 1
                yield result
    except futures.process.BrokenProcessPool:
        # The task that crashed is unknown, so the rest is done one by one: each crash then costs one task only.
        while done < len(tasks):
            with futures.ProcessPoolExecutor(1, context) as single:
                try:
                    while done < len(tasks):
                        yield single.submit(function, tasks[done]).result()
                        done += 1
                except futures.process.BrokenProcessPool:
                    yield on_crash(tasks[done])
                    done += 1


def survives(function: Callable, *arguments: Any) -> bool:
    """Returns whether a process survives the call, which it does if the call merely raises an exception."""
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as single:
        return not isinstance(single.submit(function, *arguments).exception(), futures.process.BrokenProcessPool)
