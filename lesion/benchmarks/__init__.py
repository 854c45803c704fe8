"""Measurements that anyone can repeat: of speed, and of what the phantom is worth."""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from lesion.progress import track

Name = TypeVar("Name")


class Row(NamedTuple):
    """A measured value, the value `other` of `beside` to compare it with, their unit, and the wanted ratio `aim`."""

    name: str
    value: float
    beside: str
    other: float
    unit: str
    aim: str


def medians(turns: Mapping[Name, Callable[[], float]], rounds: int, title: str = "benchmark") -> dict[Name, float]:
    """Returns the median of each contender's results over rounds of turns, after a first turn that only compiles."""
    for take_turn in turns.values():
        take_turn()
    results = [{name: turn() for name, turn in turns.items()} for _ in track(title, range(rounds), rounds)]
    return {name: statistics.median(result[name] for result in results) for name in turns}


def peak_mib() -> float:
    """Returns the peak memory of this process, MiB."""
    # Not `getrusage`: on Linux its peak includes that of the parent process.
    (peak_kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak_kib) / 2**10


def table(rows: Sequence[Row]) -> list[list[str]]:
    """Returns the rows as text, the heading first."""
    text = [["", "measured", "beside", "ratio", "wanted"]]
    for row in rows:
        digits = 0 if row.unit == "examples/s" else 2
        measured, beside = f"{row.value:.{digits}f} {row.unit}", f"{row.beside} {row.other:.{digits}f}"
        text.append([row.name, measured, beside, f"{row.value / row.other:.2f}", row.aim])
    return text


def render(rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """Returns a table as text, or as Markdown for a README; the first row is the heading."""
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
