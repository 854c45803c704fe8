"""A run's folder: the run's identity, and whether it is finished."""

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
from lesion.runs import processes

CONFIG = "config.json"
METRICS = "metrics.json"
FAILED = "failed.json"
NOT_COMPARED = {"device", "command", "started", "finished"}
RECORDED = ("versions.", "data.preprocess.", "baseline.")  # prefixes of names that are recorded, not compared
PLACES = (".weights", ".file", ".given_labels")  # suffixes of names of paths: hashes are compared instead
PACKAGES = ("lesion", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn", "pillow")


def versions() -> dict[str, str]:
    """Returns {name: version} of Python and of the packages that affect the numbers."""
    return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES}


def identity(
    config: ConfigDict, info: dict[str, Any], split_hash: str, weights: dict[str, Any], device: str
) -> dict[str, Any]:
    """Returns the JSON-able description of a run; two runs are the same if theirs are.

    Args:
        config: the run's resolved configuration.
        info: the dataset's description (`cohort.json`).
        split_hash: hash of the folds.
        weights: provenance of the backbone's weights.
        device: kind of the device, e.g. `cpu`; recorded, not compared.
    """
    return {
        "config": json.loads(config.to_json()),
        # `preprocess` is for launch.predict, which prepares new slices alike; the fingerprint identifies the dataset;
        # the classes are the names that are shown.
        "data": {name: info[name] for name in ("fingerprint", "preprocess", "classes") if name in info},
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
    """Returns a line for each field in which `run`, see `identity`, differs from one `recorded` in a config.json."""
    old, new = _flat(recorded), _flat(json.loads(json.dumps(run)))
    return [
        f"{name} is {old.get(name)!r} there, {new.get(name)!r} now"
        for name in sorted((new.keys() | old.keys()) - NOT_COMPARED)
        if not name.startswith(RECORDED) and not name.endswith(PLACES) and old.get(name) != new.get(name)
    ]


def open_run(workdir: Path, run: dict[str, Any]) -> bool:
    """Claims `workdir` for a run by writing config.json, unless it is there; the first process does so for all.

    Args:
        workdir: the run's folder; made if missing.
        run: see `identity`; a `command` in it is recorded in place of this process's.

    Returns:
        Whether the run is finished.

    Raises:
        UserError: if the folder holds another run; the message names the first differences.
    """

    def claim() -> bool:
        if not (workdir / CONFIG).exists():
            workdir.mkdir(parents=True, exist_ok=True)
            record = {"command": command()} | run | {"versions": versions(), "started": now()}
            files.write_json(workdir / CONFIG, record)
        return is_finished(workdir, run)

    return processes.of_first("claim", claim)


def is_finished(workdir: Path, run: dict[str, Any]) -> bool:
    """Returns whether the run is finished in `workdir`; raises a `UserError` if the folder holds another one."""
    if not (workdir / CONFIG).exists():
        return False
    different = differences(files.read_json(workdir / CONFIG), run)
    if different:
        first = "; ".join(different[:3]) + (f"; and {len(different) - 3} more" if len(different) > 3 else "")
        raise UserError(f"{workdir} holds another run ({first}): name another --workdir, or remove this one")
    return (workdir / METRICS).exists()


def command() -> str:
    """Returns the command that started this process, quoted for a shell."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = spec.name if spec else f"launch.{Path(sys.argv[0]).stem}"
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def now() -> str:
    """Returns the time in UTC, to the second, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def fail(folder: Path, error: Exception) -> str:
    """Writes the error to failed.json in a run's folder, and returns its first line."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / FAILED, {"error": line, "when": now(), "command": command()})
    return line


def setting_name(overrides: tuple[tuple[str, Any], ...]) -> str:
    """Returns the folder's name of a run with overrides: `head.widths=512-256,head.dropout=0.5`."""

    def text(value: Any) -> str:
        if isinstance(value, tuple | list):
            return "-".join(map(str, value)) or "none"
        return str(value).replace("/", "_") or "none"

    return ",".join(f"{name}={text(value)}" for name, value in overrides)


def finish(workdir: Path, metrics: dict[str, Any]) -> None:
    """Records the time, then writes metrics.json, which marks the run as finished."""
    record = files.read_json(workdir / CONFIG)
    files.write_json(workdir / CONFIG, record | {"finished": now()})
    files.write_json(workdir / METRICS, metrics)
