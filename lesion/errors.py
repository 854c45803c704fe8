"""What a user got wrong, in one line."""

import contextlib
import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import app, flags, logging

from lesion import usage

MENDED_BY = {
    errno.ENOSPC: "free some space, or name a folder on another disk, and run the command again",
    errno.EACCES: "name a folder that may be read and written",
    errno.EROFS: "name a folder that may be written",
}


class UserError(Exception):
    """Bad input: one line that says what, where and how to mend it."""


class Interrupted(Exception):  # noqa: N818  # nothing went wrong
    """A SIGTERM was heeded and everything saved: one line that says how far it got."""


def _parse_flags(argv: Sequence[str], program: Mapping[str, Any]) -> list[str]:
    if not usage.asked(argv):
        with one_line():
            return flags.FLAGS(argv)
    with contextlib.suppress(flags.Error):  # what must be given need not be, to read the help
        flags.FLAGS([arg for arg in argv if not usage.asked(["", arg])], known_only=True)
    own = flags.FLAGS["config"] if "config" in flags.FLAGS else None
    config, file = (None, "") if own is None else (own.value, own.config_filename)  # type: ignore[attr-defined]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends as with any other program
    print(usage.help_text(program, argv, config, file))
    sys.exit(0)


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """What is wrong with the flags ends the process with one line."""
    try:
        yield
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
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
        except BrokenPipeError:  # `... | head`: what was wanted has been read
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left at its end
            sys.exit(128 + signal.SIGPIPE)
        except OSError as error:  # a full disk, a folder that may not be written
            if not error.strerror:
                sys.exit(f"error: {_last_line(error)}")
            what = f"{error.strerror}: {error.filename or 'output'}"
            sys.exit(": ".join(["error", what, *filter(None, [MENDED_BY.get(error.errno or 0)])]))

    def parse(argv: Sequence[str]) -> list[str]:
        return _parse_flags(argv, main.__globals__)

    app.run(guarded, flags_parser=parse, **kwargs)
