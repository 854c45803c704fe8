"""What is seen of a sweep: a live table on a terminal, a line for what is new in a log."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lesion.runs import rundir

FINISHED, FAILED = "finished", "failed"
ORDER = (FAILED, "runs", FINISHED, "waits")
STYLES = {FINISHED: "bold", FAILED: "bold reverse", "runs": "", "waits": "dim"}  # told apart without colour too
BETWEEN = 14  # characters that the table puts between and beside its four columns
TAIL_BYTES = 4000


class Row(NamedTuple):
    """How one setting is.

    Attributes:
        name: of the setting.
        state: `waits`, `runs`, `finished` or `failed`.
        told: the score, the last line of the log, why it failed.
        job: its number, "" if it has none.
    """

    name: str
    state: str
    told: str
    job: str


class Board:
    """Shows rows. An I/O object: it remembers what was shown."""

    def __init__(self, title: str) -> None:
        """`title` stands over the table."""
        self._title, self._shown = title, dict[str, str]()
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None

    def __enter__(self) -> "Board":
        if self._live:
            self._live.start()
        else:
            print(self._title, flush=True)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()

    def show(self, rows: Sequence[Row]) -> None:
        """Shows how it is now."""
        if self._live:
            self._live.update(_table(self._title, rows, self._console.width), refresh=True)
            return
        for row in rows:
            if self._shown.get(row.name) != row.state:
                self._shown[row.name] = row.state
                job = f" (job {row.job})" * bool(row.job)
                said = f", {row.told}" if row.told and row.state in (FINISHED, FAILED) else ""
                print(f"{row.name}: {row.state}{job}{said}", flush=True)


def _table(title: str, rows: Sequence[Row], width: int) -> Table:
    """A line a setting; where not all fit on the terminal, those that wait are cut off."""
    caption = f"{counts(rows)}; AUC [95 % interval]"
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE)
    for column in ("setting", "state", "job", "score, or what it says"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    room = width - BETWEEN - max(len(row.name) + len(FINISHED) + max(len(row.job), 3) for row in rows)
    for row in sorted(rows, key=lambda row: ORDER.index(row.state)):
        told = Text(row.told)
        told.truncate(max(room, 20), overflow="ellipsis")
        table.add_row(Text(row.name), Text(row.state, STYLES[row.state]), row.job, told)
    return table


def counts(rows: Sequence[Row]) -> str:
    """`3 finished, 1 runs`."""
    found = Counter(row.state for row in rows)
    return ", ".join(f"{found[state]} {state}" for state in ORDER if found[state])


def score(folder: Path) -> str:
    """What a finished run scored: of launch.train the AUCs, of launch.active the areas under the curves."""
    metrics = json.loads((folder / rundir.METRICS).read_text())
    if "strategies" in metrics:
        areas = {name: told["area"]["auc"] for name, told in metrics["strategies"].items()}
        return "area under AUC: " + ", ".join(f"{name} {_interval(*area)}" for name, area in areas.items())
    scores = {unit: metrics[unit]["auc"] for unit in ("slice", "patient") if unit in metrics}
    return "AUC: " + ", ".join(f"{unit}s {_interval(s['value'], s['low'], s['high'])}" for unit, s in scores.items())


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else "")


def last_line(log: Path) -> str:
    """What a job said last; a bar that is drawn over and over counts as its last state."""
    try:
        with open(log, "rb") as file:
            file.seek(max(file.seek(0, 2) - TAIL_BYTES, 0))
            lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip() and "submitit" not in line[:20]]
    return said[-1] if said else ""
