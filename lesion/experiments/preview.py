"""Dry runs: describe what experiments would do, and write nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lesion.errors import UserError
from lesion.experiments.kinds import KINDS, Experiment, load_all, setup_rows

FAILS = "WOULD FAIL: "


class Preview(NamedTuple):
    """Description of what would run, and names of the experiments that would fail."""

    text: str
    failing: list[str]


def preview(experiment: Experiment, data_dir: Path, workdir: Path) -> str:
    """Describes what one experiment would do in `workdir`; raises the `UserError` that would keep it from running."""
    (setup,), kind = load_all([experiment], data_dir), KINDS[experiment.kind]
    if isinstance(setup, UserError):
        raise setup
    rows = [("would run", kind.describe(experiment.config, setup)), *setup_rows(experiment.config, setup)]
    return _render([*rows, ("into", f"{workdir}: {kind.progress(experiment.config, setup, workdir)}")])


def preview_all(title: str, experiments: list[Experiment], data_dir: Path, workdir: Path) -> Preview:
    """Describes what many experiments would do, after the checks of a real run.

    Args:
        title: title of all of them.
        experiments: experiments in running order.
        data_dir: dataset folder written by launch.prepare.
        workdir: folder they would be written to; need not exist.
    """
    setups = load_all(experiments, data_dir)
    rows = [("would run", title), *setup_rows(experiments[0].config, setups[0]), ("into", str(workdir.absolute()))]
    seen: dict[str, str] = {}
    lines = {e.name: _line(e, setup, workdir, seen) for e, setup in zip(experiments, setups, strict=True)}
    text = "\n".join([_render(rows), "", *(f"{name}: {line}" for name, line in lines.items())])
    return Preview(text, [name for name, line in lines.items() if line.startswith(FAILS)])


def _line(experiment: Experiment, setup: Any, workdir: Path, seen: dict[str, str]) -> str:
    """Returns an experiment's state and description; `seen` maps identities of runs to the first name of each."""
    if isinstance(setup, UserError):
        return f"{FAILS}{setup}"
    kind = KINDS[experiment.kind]
    try:
        progress = kind.progress(experiment.config, setup, workdir / experiment.name)
    except UserError as error:
        return f"{FAILS}{error}"
    if progress.startswith("finished"):
        return "finished already"
    if hasattr(setup, "run"):
        same = seen.setdefault(json.dumps(setup.run, sort_keys=True), experiment.name)
        if same != experiment.name:
            return f"the same run as {same}"
    return f"{progress}: {kind.describe(experiment.config, setup)}{_random(getattr(setup, 'run', {}))}"


def _random(run: Mapping[str, Any]) -> str:
    return "" if run.get("weights", {}).get("pretrained", True) else ", RANDOM weights"


def _render(rows: list[tuple[str, str]]) -> str:
    """Renders (heading, text) rows as two columns."""
    width = max(len(left) for left, _ in rows) + 2
    return "\n".join(["dry run: nothing is written", *(left.ljust(width) + right for left, right in rows)])
