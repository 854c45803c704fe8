"""What is to be run: the settings that a configuration's `sweep(add)` names."""

import copy
import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lesion import cli
from lesion.active.experiment import check, check_asking
from lesion.dataset import store
from lesion.errors import UserError
from lesion.runs import rundir
from lesion.transfer import preview
from lesion.transfer.loading import Setup, check_config, load


class Setting(NamedTuple):
    """One of the runs.

    Attributes:
        name: of its folder, see `rundir.setting_name`.
        config: resolved.
        command: that runs it alone, but for --data and --workdir.
    """

    name: str
    config: ConfigDict
    command: tuple[str, ...]


def is_active(config: ConfigDict) -> bool:
    """Whether launch.active runs it, not launch.train."""
    return "strategies" in config


def settings(module: ModuleType, file: str, config: ConfigDict, overrides: Mapping[str, Any]) -> list[Setting]:
    """The settings of a configuration's sweep, checked as far as they can be without a dataset.

    Args:
        module: of configs/.
        file: its name as given to --config, with the argument.
        config: of it, with the `overrides` of the command line.
        overrides: {field: value}, of all settings.

    Raises:
        UserError: if it has no sweep, or a setting cannot be run.
    """
    if not hasattr(module, "sweep"):
        there = ", ".join(name for name, other in cli.list_configs().items() if hasattr(other, "sweep"))
        raise UserError(f"{file.partition(':')[0]} has no sweep(add): name one that has, such as {there}")
    named: list[dict[str, Any]] = []
    module.sweep(lambda **fields: named.append(fields))
    found = [_setting(file, config, fields, overrides) for fields in named]
    if len({one.name for one in found}) < len(found) or not found:
        raise UserError(f"the sweep of {file} names {'a setting twice' if found else 'nothing'}")
    return found


def _setting(file: str, config: ConfigDict, fields: dict[str, Any], overrides: Mapping[str, Any]) -> Setting:
    name, known = rundir.setting_name(tuple(fields.items())), cli.flatten(config)
    for field in fields:
        if field in overrides:
            raise UserError(f"--config.{field}: the sweep sets it, leave it out")
        if field not in known:
            raise UserError(f"the sweep of {file} sets {field}, which its configuration does not have")
    made = copy.deepcopy(config)  # what follows another field goes on following it
    try:
        made.update_from_flattened_dict(fields)
    except TypeError as error:
        raise UserError(f"the sweep of {file}, {name}: {error}") from error
    if "fusion" in made:
        raise UserError("a sweep of fusion is not built: launch.train runs one")
    try:
        check_config(made)
        if is_active(made):
            check_asking(made)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    if is_active(made) and made.oracle == "doctor":
        raise UserError(f"{name}: a doctor answers one run at a time, launch.active makes it")
    program = "launch.active" if is_active(made) else "launch.train"
    given = [f"--config.{field}={value}" for field, value in (dict(overrides) | fields).items()]
    return Setting(name, made.lock(), ("python", "-m", program, f"--config={file}", *given))


def loaded(todo: Iterable[Setting], data_dir: Path) -> list[Setup]:
    """What each starts from, checked on the dataset; writes nothing.

    Raises:
        UserError: if one cannot be run on it.
    """
    todo, found = list(todo), []
    for one, setup in zip(todo, preview.load_all([(load, one.config) for one in todo], data_dir), strict=True):
        try:
            if isinstance(setup, UserError):
                raise setup
            if is_active(one.config):
                check(one.config, setup)
        except UserError as error:
            raise UserError(f"{one.name}: {error}") from error
        found.append(setup)
    return found


def is_finished(one: Setting, setup: Setup, workdir: Path) -> bool:
    """Whether its folder holds its results; a `UserError` if it holds those of another run."""
    path, run = workdir / one.name / rundir.CONFIG, setup.run
    if path.exists() and not run["weights"]["pretrained"]:
        there = json.loads(path.read_text())["weights"]
        # Drawn there on another processor: the same seed, perhaps other last digits.
        run = run | {"weights": there if there.get("seed") == run["weights"]["seed"] else run["weights"]}
    return rundir.is_finished(workdir / one.name, run)


def is_phantom(data_dir: Path) -> bool:
    """Whether any of the patients are simulated."""
    return bool(store.load_info(data_dir)["phantom"])


def shown_command(one: Setting, data_dir: Path, workdir: Path) -> str:
    """What to type to run it alone."""
    return shlex.join([*one.command, f"--data={data_dir}", f"--workdir={workdir / one.name}"])
