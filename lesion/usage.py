"""What a program tells of itself: its help, its flags, its configuration's fields, the configurations there are."""

import ast
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

CONFIGS = Path(__file__).parents[1] / "configs"
SHARED = "common"  # what others are made from, nothing to run
HELP = {"help", "helpshort", "h", "?"}
INDENT = 38
ARGUMENTS = "BACKBONE: resnet50, efficientnet_lite0, ... (README, Backbones); SEQUENCE: flair, ce_t1wi or t2wi"


class Listed(NamedTuple):
    """A module of configs/, as its source tells without being run.

    Attributes:
        file: as --config takes it.
        about: first line of its docstring.
        argument: what may follow its name after a colon, "" for nothing.
        program: that runs it, e.g. `launch.train`.
        sweeps: whether it has a `sweep(add)`.
    """

    file: str
    about: str
    argument: str
    program: str
    sweeps: bool


def listed() -> list[Listed]:
    """The configurations there are."""
    return [_listed(path) for path in sorted(CONFIGS.glob("*.py")) if path.stem not in ("__init__", SHARED)]


def _listed(path: Path) -> Listed:
    tree = ast.parse(path.read_text())
    doc = ast.get_docstring(tree) or ""
    given = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    program = re.search(r"python -m (launch\.\w+)", doc)
    sweeps = any(isinstance(node, ast.FunctionDef) and node.name == "sweep" for node in tree.body)
    about, argument = doc.partition("\n")[0], str(given.get("ARGUMENT", ""))
    return Listed(f"configs/{path.name}", about, argument, program[1] if program else "", sweeps)


def configs_text() -> str:
    """A line or two for each configuration: file and argument, program, what it is."""
    lines = ["Values of --config; what is in brackets may be left out:", ""]
    for one in listed():
        argument = f"[:{one.argument}]" if one.argument else ""
        lines.append(f"  {one.file}{argument}   with {one.program}{', launch.sweep' * one.sweeps}")
        lines += textwrap.wrap(one.about, _width() - 6, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join([*lines, "", ARGUMENTS, "Fields of one, and what each means: --config=FILE --help"])


def asked(argv: Sequence[str]) -> bool:
    """Whether help is asked for."""
    return any(arg.startswith("-") and arg.lstrip("-") in HELP for arg in argv[1:])


def help_text(program: Mapping[str, Any], argv: Sequence[str], config: ConfigDict | None, file: str) -> str:
    """What `--help` shows.

    Args:
        program: globals of the module that runs.
        argv: of the process.
        config: whose fields may be overridden, if it has one.
        file: where that comes from, as given to --config.
    """
    spec = program.get("__spec__")
    name = f"python -m {spec.name}" if spec else argv[0]
    parts = [f"{name}\n\n{(program.get('__doc__') or '').strip()}", "Flags:", *_own_flags(argv[0])]
    if config is not None:
        title = f"Fields of --config={file}, overridden by --config.FIELD=VALUE:"
        parts += ["", title, *_fields(config), "", f"Other configurations: {name} --config=list"]
    return "\n".join([parts[0], "", *parts[1:]])


def _own_flags(module: str) -> Iterator[str]:
    """Of the program, those that must be given first."""
    own = {f.name: f for f in flags.FLAGS.get_key_flags_for_module(module)}
    needed = {name for name, flag in own.items() if any("other than None" in v.message for v in flag.validators)}
    for name in sorted(own, key=lambda name: (name not in needed, name)):
        flag = own[name]
        default = "..." if flag.default_as_str is None else _short(flag.default_as_str.strip("'"))
        end = " Must be given." if name in needed else ""
        shown = f"--{name}" if flag.boolean else f"--{name}={default}"
        yield _line(shown, (flag.help or "") + end)


def _fields(config: ConfigDict) -> Iterator[str]:
    said = comments()
    for name, value in flat(config).items():
        if isinstance(value, ConfigDict):
            continue
        yield _line(f"--config.{name}={_short(value)}", about(name, said))


def flat(config: ConfigDict, before: str = "") -> dict[str, Any]:
    """Every field by its dotted name, those that hold fields too; in the order they were made."""
    found: dict[str, Any] = {}
    for key in config:
        found[f"{before}{key}"] = config[key]
        if isinstance(config[key], ConfigDict):
            found |= flat(config[key], f"{before}{key}.")
    return found


def about(name: str, said: Mapping[str, str]) -> str:
    """What `comments` say of a field: of itself, of the shared one that it stands over, of any of its last name."""
    return said.get(name) or said.get(name.partition(".")[2]) or said.get(name.rpartition(".")[2]) or ""


def comments() -> dict[str, str]:
    """What the comments in configs/ say of each field, by its dotted name; those of `common.py` count most."""
    found: dict[str, str] = {}
    paths = sorted(CONFIGS.glob("*.py"), key=lambda path: path.stem == SHARED)
    for path in paths:
        above: list[str] = []
        for line in path.read_text().splitlines():
            if line.strip().startswith("#"):
                above.append(line.strip("# "))
                continue
            field = re.match(r"\s+config\.([\w.]+) = (?:.*?)(?:  # (.*))?$", line)
            comment = field and (field[2] or " ".join(above))
            if field and comment:
                found[field[1]] = comment
            above = []
    return found


def _line(left: str, right: str) -> str:
    """Two columns; the second is wrapped, or begins a line below where the first is too wide."""
    lines = textwrap.wrap(right, max(_width() - INDENT, 30)) or [""]
    first = f"  {left}".ljust(INDENT - 1) + " " + lines[0] if len(left) < INDENT - 3 else f"  {left}"
    rest = lines[1:] if len(left) < INDENT - 3 else lines
    return "\n".join([first.rstrip(), *(" " * INDENT + line for line in rest if line)])


def _short(value: Any) -> str:
    text = str(value) if not isinstance(value, str) or value else "''"
    return text if len(text) <= 30 else text[:27] + "..."


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 120)
