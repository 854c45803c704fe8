"""What a user got wrong, in one line."""

import contextlib
import errno
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

flags.disclaim_key_flags()  # what is defined here belongs to who calls: --help shows it there

MENDED_BY = {
    errno.ENOSPC: "free some space, or name a folder on another disk, and run the command again",
    errno.EACCES: "name a folder that may be read and written",
    errno.EROFS: "name a folder that may be written",
}


class UserError(Exception):
    """Bad input: one line that says what, where and how to mend it."""


class Interrupted(Exception):  # noqa: N818  # nothing went wrong
    """A SIGTERM was heeded and everything saved: one line that says how far it got."""


def define_config(default: str) -> None:
    """The flag --config=FILE.py or FILE.py:ARGUMENT, whose fields --config.FIELD=VALUE overrides."""
    with _one_line(sys.argv):  # where only fields are given, ml_collections reads the default file at once
        config_flags.DEFINE_config_file("config", default, "Configuration; --config.FIELD=VALUE overrides.")


def _parse_flags(argv: Sequence[str]) -> list[str]:
    with _one_line(argv):
        return flags.FLAGS(argv)


@contextlib.contextmanager
def _one_line(argv: Sequence[str]) -> Iterator[None]:
    """What is wrong with the flags ends the process with one line."""
    try:
        yield
    except AttributeError as error:  # ml_collections, of a field that the configuration lacks
        name = re.findall(r"\w+", str(error))[0]
        near = re.search(r'Did you mean "(\w+)"', str(error))
        field = next((a.partition("=")[0] for a in argv if re.search(rf"\.{name}\b", a)), name)
        sys.exit(f"error: the configuration has no field {field}: {f'is it {near[1]}?' if near else 'see its file'}")
    except (flags.Error, KeyError, TypeError, ValueError) as error:
        sys.exit(f"error: {_last_line(error)}; --help tells the flags")


def _last_line(error: Exception) -> str:
    """Of a message; ml_collections puts whole tracebacks into one, what was wrong last."""
    return re.sub(r"^\w*Error: ", "", str(error).strip().splitlines()[-1].strip())


def run(main: Callable[[Sequence[str]], Any], **kwargs: Any) -> None:
    """Runs an absl `main`; what a user got wrong and a full disk end in one line and exit status 1, SIGTERM in 143."""

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"error: unexpected argument {argv[1]!r}: flags are written --name=value")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # libraries tell at INFO what only their authors need
        try:
            main(argv)
        except UserError as error:
            sys.exit(f"error: {error}")
        except Interrupted as error:
            print(f"{error}: the same command goes on from there", file=sys.stderr)
            sys.exit(128 + signal.SIGTERM)
        except OSError as error:  # a full disk, a folder that may not be written
            if not error.strerror:
                sys.exit(f"error: {_last_line(error)}")
            what = f"{error.strerror}: {error.filename or 'output'}"
            sys.exit(": ".join(["error", what, *filter(None, [MENDED_BY.get(error.errno or 0)])]))

    app.run(guarded, flags_parser=_parse_flags, **kwargs)
