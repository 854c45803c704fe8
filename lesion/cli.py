"""Command lines: configurations and their overrides, help texts, and how a program ends."""

import ast
import difflib
import errno
import importlib.util
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from lesion.errors import Interrupted, UserError

ROOT = Path(__file__).parents[1]  # the folder that holds configs/: the checkout, or where the package is installed
LIST = "list"
HELP = {"help", "helpshort", "helpfull", "h", "?"}
# {former name of a configuration's field: its present name}, for the message about an unknown field.
RENAMED = {
    "seeds": "num_repeats",
    "labels": "label_control",
    "lanes": "parallel_runs",
    "plateau": "stabilizing_predictions",
    "per_patient": "max_per_patient",
}
# What absl and ml_collections raise on flags that cannot be: told in one line.
USER_MISTAKES = (flags.Error, AttributeError, KeyError, TypeError, ValueError)
PARSERS: dict[type, flags.ArgumentParser] = {
    bool: flags.BooleanParser(),
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
}
MENDED_BY = {
    errno.ENOSPC: "free some space, or name a folder on another disk, and run the command again",
    errno.EACCES: "name a folder that may be read and written",
    errno.EROFS: "name a folder that may be written",
}


def run(main: Callable[[Sequence[str]], Any], config: str = "") -> None:
    """Runs an absl `main` and ends the process.

    A user's mistake or a full disk ends in a one-line message and exit status 1, SIGTERM in exit status 143.

    Args:
        main: the program; called after the flags are parsed.
        config: default of --config; empty for a program that takes no configuration.
    """

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"error: unexpected argument {argv[1]!r}: flags are written --name=value")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # libraries log at INFO what only their authors need
        try:
            main(argv)
        except UserError as error:
            sys.exit(f"error: {one_line(error)}")
        except Interrupted as error:
            print(f"{error}: the same command goes on from there", file=sys.stderr)
            sys.exit(128 + signal.SIGTERM)
        except BrokenPipeError:  # the reader has closed the pipe, as `... | head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout at exit
            sys.exit(128 + signal.SIGPIPE)
        except OSError as error:  # a full disk, a folder that may not be written
            if not error.strerror:
                sys.exit(f"error: {_last_line(error)}")
            reason = f"{error.strerror}: {error.filename or 'output'}"
            sys.exit(": ".join(["error", reason, *filter(None, [MENDED_BY.get(error.errno or 0)])]))

    def parse(argv: Sequence[str]) -> list[str]:
        for stream in (sys.stdout, sys.stderr):  # under a batch system they may take ASCII only
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            return _parse(argv, main.__globals__, config)
        except UserError as error:
            sys.exit(f"error: {one_line(error)}")
        except USER_MISTAKES as error:
            sys.exit(f"error: {_last_line(error)}; --help lists the flags")

    app.run(guarded, flags_parser=parse)


def _parse(argv: Sequence[str], program: Mapping[str, Any], default: str) -> list[str]:
    """Parses flags, the configuration's file and its overrides; --help and --config=list print and exit."""
    argv = flags.FLAGS.read_flags_from_files(list(argv), force_gnu=False)
    wants_help = any(arg.startswith("-") and arg.lstrip("-") in HELP for arg in argv[1:])
    file = ""
    if default:
        file, argv = _split_config(argv, default)
        if file == LIST:
            _print_and_exit(_configs_text())
        argv = [argv[0], *([] if wants_help else override_flags(load_config(file), argv[1:]))]
        flags.DEFINE_integer("seed", None, "The same as --config.seed.")
        about = "Configuration file: FILE.py or FILE.py:ARGUMENT; `list` shows all of them."
        path, *argument = file.split(":", 1)
        config_flags.DEFINE_config_file("config", ":".join([str(_find(path)), *argument]), about, sys_argv=argv)
    if wants_help:
        _print_and_exit(_help_text(program, file))
    return flags.FLAGS(argv)


def _split_config(argv: Sequence[str], default: str) -> tuple[str, list[str]]:
    """Returns the last value given to --config, and the other arguments."""
    file, rest = default, list[str]()
    arguments = iter(argv)
    for arg in arguments:
        if match := re.fullmatch(r"--?config(?:=(.*))?", arg):
            file = match[1] if match[1] is not None else next(arguments, "")
        else:
            rest.append(arg)
    return file, rest


def _print_and_exit(text: str) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends as with any other program
    print(text)
    sys.exit(0)


def one_line(error: UserError) -> str:
    """Returns a message in one line: it may repeat a value of a flag, which may hold several."""
    return re.sub(r"\s*[\r\n]+\s*", " ", str(error))


def _last_line(error: Exception) -> str:
    """Returns the last line of a message: ml_collections puts a whole traceback into one, and its cause last."""
    return re.sub(r"^\w*Error: ", "", (str(error).strip() or type(error).__name__).splitlines()[-1].strip())


def config_source() -> tuple[str, dict[str, Any]]:
    """Returns the value of --config and its overrides, {field: value}; to be called after the flags are parsed."""
    flag = flags.FLAGS["config"]
    return config_flags.get_config_filename(flag), config_flags.get_override_values(flag)


def _find(path: str) -> Path:
    """Returns the path as given if it exists, else the one below `ROOT`: programs may be started in any folder."""
    return Path(path) if Path(path).exists() or not (ROOT / path).exists() else ROOT / path


def load_module(file: str) -> ModuleType:
    """Imports the module that FILE.py or FILE.py:ARGUMENT names; raises a `UserError` if there is none."""
    path = _find(file.partition(":")[0])
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        names = ", ".join(list_configs())
        raise UserError(f"no configuration {path}: there are {names}; --config={LIST} describes each")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} is no configuration: it has no get_config")
    return module


def load_config(file: str) -> ConfigDict:
    """Returns the configuration that --config=`file` names, before overrides; raises a `UserError` if there is none."""
    module = load_module(file)
    try:
        return module.get_config(*file.split(":", 1)[1:])
    except (TypeError, ValueError) as error:
        raise UserError(f"--config={file}: {error}; --config={LIST} shows what can be given") from error


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Returns {dotted name: value} of all fields and groups of fields, in the order in which they were set."""
    fields: dict[str, Any] = {}
    for key in config:
        fields[f"{prefix}{key}"] = config[key]
        if isinstance(config[key], ConfigDict):
            fields |= flatten(config[key], f"{prefix}{key}.")
    return fields


def override_flags(config: ConfigDict, args: Sequence[str]) -> list[str]:
    """Returns `args` with every override in the form that ml_collections parses.

    --seed becomes --config.seed; a group's {'field': value} becomes one override for each field, so that the group's
    other fields keep their values; a tuple may be written a,b.

    Raises:
        UserError: if there is no such field, or a value does not have the type of the field's default.
    """
    fields, rewritten = flatten(config), list[str]()
    arguments = iter(args)
    for arg in arguments:
        arg = re.sub(r"^--?seed(?==|$)", "--config.seed", arg)
        parts = re.fullmatch(r"--?(no)?config\.([^=]+)(?:=(.*))?", arg, re.DOTALL)
        if parts is None:
            rewritten.append(arg)
            continue
        negated, name, text = parts.groups()
        default = fields[_known(name, fields)]
        if isinstance(default, bool):
            text = "false" if negated else "true" if text is None else text
        elif text is None:
            text = next(arguments, "")
        rewritten += _overrides(name, default, text)
    return rewritten


def _overrides(name: str, default: Any, text: str) -> list[str]:
    if isinstance(default, ConfigDict):
        return _group(name, default, text)
    if isinstance(default, tuple):
        text = repr(_tuple(name, default, text))
    elif type(default) in PARSERS:
        try:
            PARSERS[type(default)].parse(text)
        except ValueError as error:
            raise UserError(f"--config.{name}={text}: it takes a value like {str(default).lower()}") from error
    return [f"--config.{name}={text}"]


def _known(name: str, fields: Mapping[str, Any]) -> str:
    """Returns `name` if it is a field; raises a `UserError` that suggests another one if it is not."""
    if name in fields:
        return name
    last = name.rpartition(".")[2]
    leaves = {known.rpartition(".")[2]: known for known in reversed(list(fields))}
    if last in RENAMED:
        mend = f"it is called --config.{name[: -len(last)]}{RENAMED[last]} now"
    else:
        near = difflib.get_close_matches(name, fields, 1) or difflib.get_close_matches(last, leaves, 1)
        meant = leaves.get(last) or (leaves.get(near[0], near[0]) if near else "")
        mend = f"is it --config.{meant}?" if meant else "--help shows all fields"
    raise UserError(f"the configuration has no field --config.{name}: {mend}")


def _group(name: str, default: ConfigDict, text: str) -> list[str]:
    try:
        values = ast.literal_eval(text)
        given = [(f"{name}.{key}", value) for key, value in values.items()]
    except (AttributeError, SyntaxError, ValueError) as error:
        example = f"{name}.{next(iter(default), 'FIELD')}"
        raise UserError(f"--config.{name}={text}: it holds fields: set one, such as --config.{example}=...") from error
    fields = flatten(default, f"{name}.")
    return [flag for key, value in given for flag in _overrides(_known(key, fields), fields[key], str(value))]


def _tuple(name: str, default: tuple, text: str) -> tuple:
    """Parses `(512, 256)`, `512,256` or `entropy,random`; members must have the type of those of the default."""
    try:
        value = ast.literal_eval(text) if text else ()
    except (SyntaxError, ValueError):
        value = tuple(part.strip() for part in text.split(","))
    value = tuple(value) if isinstance(value, tuple | list) else (value,)
    kinds = {type(member) for member in default}
    if len(kinds) == 1 and not {type(member) for member in value} <= kinds:
        raise UserError(f"--config.{name}={text}: it takes values like {','.join(map(str, default))}")
    return value


def list_configs() -> dict[str, ModuleType]:
    """Returns {file, as --config takes it: module} of all configurations in configs/."""
    files = sorted(path.name for path in (ROOT / "configs").glob("*.py") if "\ndef get_config(" in path.read_text())
    return {f"configs/{name}": load_module(f"configs/{name}") for name in files}


def _configs_text() -> str:
    """Returns the text of --config=list: each configuration's file, argument, programs and purpose."""
    lines = ["Values of --config; parts in brackets are optional:", ""]
    for file, module in list_configs().items():
        program = re.search(r"python -m (launch\.\w+)", module.__doc__ or "")
        programs = (program[1] if program else "") + ", launch.sweep" * hasattr(module, "sweep")
        about = (module.__doc__ or "").partition("\n")[0]
        lines += [f"  {file}[:{module.ARGUMENT}]   with {programs}", f"      {about}"]
    arguments = "BACKBONE: a row of lesion/models/README.md, such as resnet50; SEQUENCE: flair, ce_t1wi or t2wi"
    return "\n".join([*lines, "", arguments, "The fields of one, with comments: --config=FILE --help"])


def _help_text(program: Mapping[str, Any], file: str) -> str:
    """Returns the text of --help: the program's docstring, its flags, and its configuration file if it takes one."""
    lines = [(program.get("__doc__") or "").strip(), flags.FLAGS.main_module_help()]
    if file:
        source = textwrap.indent(_find(file.partition(":")[0]).read_text(), "    ")
        lines += [f"{file}: each field is overridden by --config.FIELD=VALUE (--seed=N is --config.seed=N):", source]
        lines += [f"Other configurations: --config={LIST}"]
    return "\n\n".join(lines)
