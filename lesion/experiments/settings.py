"""The experiments of a sweep: the settings that a configuration's `sweep(add)` names."""

import copy
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from lesion import cli
from lesion.errors import UserError
from lesion.experiments.kinds import KINDS, Experiment, kind_of
from lesion.runs import rundir


def settings(module: ModuleType, file: str, config: ConfigDict, overrides: Mapping[str, Any]) -> list[Experiment]:
    """Returns the experiments of a configuration's sweep, checked as far as they can be without a dataset.

    Args:
        module: configuration module.
        file: its file as given to --config, with the argument.
        config: its configuration, with the `overrides`.
        overrides: {field: value} of the command line, for all settings.

    Raises:
        UserError: if the module has no sweep, or a setting cannot be run.
    """
    if not hasattr(module, "sweep"):
        others = ", ".join(name for name, other in cli.list_configs().items() if hasattr(other, "sweep"))
        raise UserError(f"{file.partition(':')[0]} has no sweep(add): name one that has, such as {others}")
    named: list[dict[str, Any]] = []
    module.sweep(lambda **fields: named.append(_flat(fields)))
    experiments = [_setting(file, config, fields, overrides) for fields in named]
    if len({experiment.name for experiment in experiments}) < len(experiments) or not experiments:
        raise UserError(f"the sweep of {file} names {'a setting twice' if experiments else 'nothing'}")
    return experiments


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {dotted name: value}: a group given in part, `optim={"lr": 0.01}`, sets `optim.lr` and keeps the rest."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        inner = {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, Mapping) else None
        flat |= {name: value} if inner is None else _flat(inner)
    return flat


def _setting(file: str, config: ConfigDict, fields: dict[str, Any], overrides: Mapping[str, Any]) -> Experiment:
    name, known = rundir.setting_name(tuple(fields.items())), cli.flatten(config)
    for field in fields:
        if field in overrides:
            raise UserError(f"--config.{field}: the sweep sets it, leave it out")
        if field not in known:
            raise UserError(f"the sweep of {file} sets {field}, which its configuration does not have")
    made = copy.deepcopy(config)  # keeps references between fields
    try:
        made.update_from_flattened_dict(fields)
    except TypeError as error:
        raise UserError(f"the sweep of {file}, {name}: {error}") from error
    kind = kind_of(made)
    if kind == "fusion":
        raise UserError("fusion cannot be swept: launch.train runs one")
    if kind == "doctor":
        raise UserError(f"{name}: a doctor answers one run at a time, launch.active makes it")
    try:
        KINDS[kind].check(made)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    given = [f"--config.{field}={value}" for field, value in (dict(overrides) | fields).items()]
    command = ("python", "-m", KINDS[kind].program, f"--config={file}", *given)
    return Experiment(name, made.lock(), kind, command=command)
