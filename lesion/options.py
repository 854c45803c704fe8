"""The flags that programs share, and the overrides of a configuration, checked against it."""

import ast
import difflib
import importlib.util
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from lesion import errors, usage

flags.disclaim_key_flags()  # what is defined here belongs to who calls: --help shows it there

LIST = "list"
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
KINDS_OF_MANY = {bool: "truth values", int: "whole numbers", float: "numbers", str: "words"}


def define_config(default: str) -> None:
    """The flag --config=FILE.py or FILE.py:ARGUMENT, whose fields --config.FIELD=VALUE overrides, and --seed.

    Ends the process with one line if what the command line says of it is wrong; with a list if that is asked for.
    """
    sys.argv[:] = named_seed(sys.argv)
    flags.DEFINE_integer("seed", None, "The same as --config.seed.")
    argv = flags.FLAGS.read_flags_from_files(sys.argv, force_gnu=False)
    value = config_value(argv, default)
    if value == LIST:
        print(usage.configs_text())
        sys.exit(0)
    if value != default or any(_given(argv)):
        try:
            check_overrides(load_config(value), argv)
        except errors.UserError as error:
            sys.exit(f"error: {error}")
    about = "Configuration, FILE.py or FILE.py:ARGUMENT; `list` tells which there are."
    with errors.one_line():  # where only fields are given, ml_collections reads the default file at once
        config_flags.DEFINE_config_file("config", default, about)


def define_data() -> None:
    """The flag --data."""
    flags.DEFINE_string("data", None, "Dataset folder written by launch.prepare.", required=True)


def define_workdir(about: str) -> None:
    """The flag --workdir, which is `about`."""
    flags.DEFINE_string("workdir", None, about, required=True)


def define_dry_run() -> None:
    """The flag --dry_run."""
    flags.DEFINE_bool("dry_run", False, "Check everything, tell what would run and write nothing.")


def named_seed(argv: Sequence[str]) -> list[str]:
    """`argv` with --seed as the override that it stands for, at the end: --config must come before it."""
    rest, seeds = list(argv), []
    while (at := next((i for i, arg in enumerate(rest) if re.match(r"--?seed(=|$)", arg)), None)) is not None:
        _, _, value = rest.pop(at).partition("=")
        seeds.append(f"--config.seed={value or (rest.pop(at) if at < len(rest) else '')}")
    return rest + seeds


def config_value(argv: Sequence[str], default: str) -> str:
    """What --config is given as, the last time."""
    value = default
    for i, arg in enumerate(argv):
        if found := re.fullmatch(r"--?config(?:=(.*))?", arg):
            value = found[1] if found[1] is not None else (*argv, "")[i + 1]
    return value


def config_file(flag: Any) -> tuple[str, dict[str, Any]]:
    """Of the parsed flag --config: what it was given as, and {field: value} of its overrides."""
    return config_flags.get_config_filename(flag), config_flags.get_override_values(flag)


def load_module(value: str) -> ModuleType:
    """The module that FILE.py or FILE.py:ARGUMENT names; a `UserError` if there is none."""
    path = Path(value.partition(":")[0])
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        there = ", ".join(one.file for one in usage.listed())
        raise errors.UserError(f"no configuration {path}: there are {there}; --config={LIST} tells what each is")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise errors.UserError(f"{path} is no configuration: it has no get_config")
    return module


def load_config(value: str) -> ConfigDict:
    """What --config=`value` names, without overrides; a `UserError` if there is none."""
    module = load_module(value)
    try:
        return module.get_config(*value.split(":", 1)[1:])
    except (TypeError, ValueError) as error:
        raise errors.UserError(f"--config={value}: {error}; --config={LIST} tells what can be given") from error


def check_overrides(config: ConfigDict, argv: Sequence[str]) -> None:
    """Raises a `UserError` for an override of a field that there is not, or whose value is of another type."""
    fields = usage.flat(config)
    for name, text in _given(argv):
        if name not in fields:
            near = _nearest(name, list(fields))
            mend = f"is it --config.{near}?" if near else "--help tells which there are"
            raise errors.UserError(f"the configuration has no field --config.{name}: {mend}")
        check_value(name, fields[name], text)


def check_value(name: str, default: Any, text: str) -> None:
    """Raises a one-line `UserError` if `text` is not of the type of field `name`, which is `default` unless set."""
    if isinstance(default, ConfigDict):
        if not text.startswith("{"):
            one = next(iter(default), None)
            mend = f"name one of them, such as --config.{name}.{one}=..." if one else "it takes {'name': value}"
            raise errors.UserError(f"--config.{name}={text}: it holds fields: {mend}")
    elif not _fits(default, text):
        takes, example = _told(default), f'"{default!r}"' if isinstance(default, tuple) else str(default).lower()
        raise errors.UserError(f"--config.{name}={text}: it takes {takes}, such as --config.{name}={example}")


def _given(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and values of the overrides in `argv`, as they were typed."""
    for i, arg in enumerate(argv[1:], 1):
        if found := re.match(r"--?(no)?config\.([^=]+)(?:=(.*))?$", arg, re.DOTALL):
            value = found[3] if found[3] is not None else (*argv, "")[i + 1]
            alone = found[1] or (found[3] is None and value[:1] in ("", "-"))
            yield found[2], "true" if alone else value


def _nearest(name: str, names: list[str]) -> str | None:
    """The field that was perhaps meant: by its last part, so that `lr` finds `optim.lr`, or by all of it."""
    last = name.rpartition(".")[2]
    leaves = {known.rpartition(".")[2]: known for known in reversed(names)}
    if last in leaves:
        return leaves[last]
    near = difflib.get_close_matches(name, names, 1) or difflib.get_close_matches(last, list(leaves), 1)
    return leaves.get(near[0], near[0]) if near else None


def _fits(default: Any, text: str) -> bool:
    if isinstance(default, bool):
        return text.lower() in ("true", "false", "t", "f", "1", "0")
    if isinstance(default, int):
        return bool(re.fullmatch(r"\s*[-+]?\d+\s*", text))
    if isinstance(default, float):
        try:
            return math.isfinite(float(text))
        except ValueError:
            return False
    return not isinstance(default, tuple) or _fits_many(default, text)


def _fits_many(default: tuple, text: str) -> bool:
    """Whether it is a tuple whose members are of the type of those there now."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return False
    kinds = {type(one) for one in default}
    return isinstance(value, tuple | list) and (len(kinds) != 1 or {type(one) for one in value} <= kinds)


def _told(default: Any) -> str:
    if not isinstance(default, tuple):
        return KINDS.get(type(default), type(default).__name__)
    kinds = {type(one) for one in default}
    of = KINDS_OF_MANY.get(kinds.pop(), "") if len(kinds) == 1 else ""
    return f"a tuple of {of}" if of else "a tuple"
