"""Spreads a function over the cores and tells how far it is."""

import concurrent.futures as futures
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from lesion.progress import track

Task = TypeVar("Task")
Result = TypeVar("Result")


def spread(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    stage: str,
    on_crash: Callable[[Task], Result],
    chunk: int = 1,
    few: int = 64,
) -> Iterator[Result]:
    """Yields `function(task)` for each task, in order.

    Args:
        function: top-level, so that it can be sent to another process.
        tasks: what to do.
        stage: its name in the progress display.
        on_crash: gives the result of a task whose process died (a codec written in C, on broken pixels).
        chunk: tasks sent at once.
        few: up to so many tasks are done in this process, for starting others takes longer; 0 if tasks may crash.
    """
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16)
    if len(tasks) <= few or (few and workers == 1):
        yield from track(stage, map(function, tasks), len(tasks))
    else:
        yield from track(stage, _pooled(function, tasks, on_crash, workers, chunk), len(tasks))


def _pooled(function: Callable, tasks: Sequence, on_crash: Callable, workers: int, chunk: int) -> Iterator[Any]:
    # Spawned, not forked: the caller may hold threads (JAX, progress), and a fork of those can hang.
    context = multiprocessing.get_context("spawn")
    done = 0
    try:
        with futures.ProcessPoolExecutor(workers, context) as pool:
            for result in pool.map(function, tasks, chunksize=chunk):
                done += 1
                yield result
    except futures.process.BrokenProcessPool:
        # Which task it was is unknown, so the rest goes one by one, each death costing one task only.
        rest, at = tasks[done:], 0
        while at < len(rest):
            with futures.ProcessPoolExecutor(1, context) as single:
                try:
                    while at < len(rest):
                        yield single.submit(function, rest[at]).result()
                        at += 1
                except futures.process.BrokenProcessPool:
                    yield on_crash(rest[at])
                    at += 1


def survives(function: Callable, *arguments: Any) -> bool:
    """Whether a call leaves its process alive; an exception is no death."""
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as single:
        return not isinstance(single.submit(function, *arguments).exception(), futures.process.BrokenProcessPool)
