"""Displays experiments: a live table on a terminal, one line per change in a log."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lesion import files
from lesion.runs import rundir

WAITS, RUNS, FINISHED, FAILED = "waits", "runs", "finished", "failed"
ORDER = (FAILED, RUNS, FINISHED, WAITS)
STYLES = {FINISHED: "bold", FAILED: "bold reverse", RUNS: "", WAITS: "dim"}  # distinct without colour too
BETWEEN = 14  # characters that the table puts between and beside its four columns
TAIL_BYTES = 4000


class Row(NamedTuple):
    """State of one experiment.

    Attributes:
        name: name of the experiment.
        state: `waits`, `runs`, `finished` or `failed`.
        text: its score, the last line of its log, or why it failed.
        job: number of its job, "" if it has none.
    """

    name: str
    state: str
    text: str
    job: str


class Board:
    """Prints rows, or draws them as a live table. An I/O object: it remembers the states it has printed."""

    def __init__(self, title: str, live: bool = True) -> None:
        """Takes the table's title; without `live` it prints lines, on a terminal too."""
        self._title, self._shown = title, dict[str, str]()
        self._console = Console()
        show_table = live and self._console.is_terminal
        self._live = Live(console=self._console, auto_refresh=False) if show_table else None

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
        """Shows the current state of the experiments."""
        if self._live:
            self._live.update(_table(self._title, rows, self._console.width), refresh=True)
            return
        for row in rows:
            if self._shown.get(row.name) != row.state:
                self._shown[row.name] = row.state
                job = f" (job {row.job})" * bool(row.job)
                text = f", {row.text}" if row.text and row.state in (FINISHED, FAILED) else ""
                print(f"{row.name}: {row.state}{job}{text}", flush=True)


def _table(title: str, rows: Sequence[Row], width: int) -> Table:
    """Renders one line per experiment; where not all fit on the terminal, those that wait are cut off."""
    caption = f"{counts(rows)}; AUC [95 % interval]"
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE)
    for column in ("experiment", "state", "job", "score, or last line of its log"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    room = width - BETWEEN - max(len(row.name) + len(FINISHED) + max(len(row.job), 3) for row in rows)
    for row in sorted(rows, key=lambda row: ORDER.index(row.state)):
        text = Text(row.text)
        text.truncate(max(room, 20), overflow="ellipsis")
        table.add_row(Text(row.name), Text(row.state, STYLES[row.state]), row.job, text)
    return table


def counts(rows: Sequence[Row]) -> str:
    """Returns the number of experiments in each state, such as `3 finished, 1 runs`."""
    totals = Counter(row.state for row in rows)
    return ", ".join(f"{totals[state]} {state}" for state in ORDER if totals[state])


def score(folder: Path) -> str:
    """Returns a finished run's scores: AUCs, areas under the curves of launch.active, p of permutations; else ""."""
    metrics = files.read_json(folder / rundir.METRICS) if (folder / rundir.METRICS).exists() else {}
    if "strategies" in metrics:
        areas = {name: result["area"]["auc"] for name, result in metrics["strategies"].items()}
        return "area under AUC: " + ", ".join(f"{name} {_interval(*area)}" for name, area in areas.items())
    if "num_shuffles" in metrics:
        return f"{metrics['num_shuffles']} shuffles: p {metrics['patient']['p']:.3f}"
    scores = {unit: metrics[unit]["auc"] for unit in ("slice", "patient") if unit in metrics}
    if not scores:
        return ""
    return "AUC: " + ", ".join(f"{unit}s {_interval(s['value'], s['low'], s['high'])}" for unit, s in scores.items())


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or math.isnan(value):
        return "undefined"
    known = low is not None and high is not None and not math.isnan(low)
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if known else "")


def last_line(log: Path) -> str:
    """Returns the last line of a log, "" if there is none; of a progress bar, its last state."""
    try:
        with open(log, "rb") as file:
            file.seek(max(file.seek(0, 2) - TAIL_BYTES, 0))
            lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    except OSError:
        return ""
    texts = [line.strip() for line in lines if line.strip() and "submitit" not in line[:20]]
    return texts[-1] if texts else ""
