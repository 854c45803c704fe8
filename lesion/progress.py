"""Progress on stderr: how far a stage is and how long it will take; a bar on a terminal, occasional lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
CLEAR = "\r\x1b[K"
LOG_EVERY_S = 10.0  # least time between two lines in a log


class Line:
    """A line of progress: rewritten in place on a terminal, printed anew from time to time in a log."""

    def __init__(self) -> None:
        self._terminal, self._shown = sys.stderr.isatty(), time.monotonic()

    def show(self, text: str, stays: bool = False) -> None:
        """Shows `text`; with `stays` it is never skipped, and on a terminal the next text does not overwrite it."""
        if self._terminal:
            print(CLEAR + text, end="\n" if stays else "", file=sys.stderr, flush=True)
        elif stays or time.monotonic() - self._shown >= LOG_EVERY_S:
            self._shown = time.monotonic()
            print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Returns a duration in words: `40 s`, `12 min`, `2 h 10 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def track(stage: str, items: Iterable[T], total: int) -> Iterator[T]:
    """Yields `items` while showing on stderr how many of `total` are done and how long the rest will take."""
    if total == 0:
        return
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
