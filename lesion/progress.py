"""Which stage, how far, how long still: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
LOG_EVERY_S = 10.0


def track(stage: str, items: Iterable[T], total: int) -> Iterator[T]:
    """Yields `items` and shows on stderr how many of `total` are done and how long the rest will take."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            yield from progress.track(items, total=total, description=stage)
        return
    start = shown = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - shown >= LOG_EVERY_S and done < total:
            shown, left = now, (now - start) / done * (total - done)
            print(f"{stage}: {done} of {total}, {left:.0f} s left", file=sys.stderr, flush=True)
    print(f"{stage}: {done} of {total} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
