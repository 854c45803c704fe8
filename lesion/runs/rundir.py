"""A run's folder: what it is a run of, and whether it is finished."""

import datetime
import importlib.metadata
import json
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lesion import files
from lesion.errors import UserError
from lesion.runs.processes import is_first

CONFIG = "config.json"
METRICS = "metrics.json"
FAILED = "failed.json"
NOT_COMPARED = {"device", "command", "started", "finished"}
RECORDED = ("versions.", "data.preprocess.", "baseline.")  # beginnings of names that are recorded, not compared
PLACES = (".weights", ".file")  # ends of names: where weights lie does not matter, their hash does
PACKAGES = ("lesion", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn", "pillow")


def versions() -> dict[str, str]:
    """Returns the versions of what computes the numbers."""
    return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES}


def identity(
    config: ConfigDict, info: dict[str, Any], split_hash: str, weights: dict[str, Any], device: str
) -> dict[str, Any]:
    """Returns what makes two runs the same run, JSON-able.

    Args:
        config: resolved.
        info: of the dataset (`cohort.json`).
        split_hash: of the folds.
        weights: the backbone's provenance.
        device: kind, e.g. `cpu`; recorded, not compared.
    """
    return {
        "config": json.loads(config.to_json()),
        # How slices were prepared: for launch.predict. The fingerprint tells already whether they are the same.
        "data": {name: info[name] for name in ("fingerprint", "preprocess") if name in info},
        "phantom": info["phantom"],
        "split_hash": split_hash,
        "weights": weights,
        "device": device,
    }


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{name}.{key}" if name else key).items()}


def differences(recorded: dict[str, Any], run: dict[str, Any]) -> list[str]:
    """Returns in what `run`, see `identity`, differs from the one recorded in a config.json; [] for the same run."""
    before, now = _flat(recorded), _flat(json.loads(json.dumps(run)))
    return [
        f"{name} is {before.get(name)!r} there, {now.get(name)!r} now"
        for name in sorted((now.keys() | before.keys()) - NOT_COMPARED)
        if not name.startswith(RECORDED) and not name.endswith(PLACES) and before.get(name) != now.get(name)
    ]


def open_run(workdir: Path, run: dict[str, Any]) -> bool:
    """Claims `workdir` for a run.

    Args:
        workdir: made if it is not there.
        run: see `identity`; `command` in it stands for what was typed.

    Returns:
        Whether this very run is finished there.

    Raises:
        UserError: if the folder holds another run; it names the first differences.
    """
    path = workdir / CONFIG
    if path.exists() or not is_first():
        return is_finished(workdir, run)
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_json(path, {"command": command()} | run | {"versions": versions(), "started": now()})
    return False


def is_finished(workdir: Path, run: dict[str, Any]) -> bool:
    """Returns whether this very run is finished in `workdir`; a `UserError` if that holds another one."""
    if not (workdir / CONFIG).exists():
        return False
    different = differences(files.read_json(workdir / CONFIG), run)
    if different:
        shown = "; ".join(different[:3]) + (f"; and {len(different) - 3} more" if len(different) > 3 else "")
        raise UserError(f"{workdir} holds another run ({shown}): name another --workdir, or remove this one")
    return (workdir / METRICS).exists()


def command() -> str:
    """Returns what was typed to start this process, as a command that can be pasted."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = spec.name if spec else f"launch.{Path(sys.argv[0]).stem}"
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def now() -> str:
    """Returns the time, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def fail(folder: Path, error: Exception) -> str:
    """Writes into a run's folder why there is no result, and returns it: one line."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / FAILED, {"error": line, "when": now(), "command": command()})
    return line


def setting_name(overrides: tuple[tuple[str, Any], ...]) -> str:
    """Returns a folder's name for what a run differs in: `head.widths=512-256,head.dropout=0.5`."""

    def text(value: Any) -> str:
        if isinstance(value, tuple | list):
            return "-".join(map(str, value)) or "none"
        return str(value).replace("/", "_") or "none"

    return ",".join(f"{name}={text(value)}" for name, value in overrides)


def finish(workdir: Path, metrics: dict[str, Any]) -> None:
    """Writes the results last: a folder that has them is finished."""
    record = files.read_json(workdir / CONFIG)
    files.write_json(workdir / CONFIG, record | {"finished": now()})
    files.write_json(workdir / METRICS, metrics)
