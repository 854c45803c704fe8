"""What a user got wrong, in one line."""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging


class UserError(Exception):
    """Bad input: one line that says what, where and how to mend it."""


class Interrupted(Exception):  # noqa: N818  # nothing went wrong
    """A SIGTERM was heeded and everything saved: one line that says how far it got."""


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
            sys.exit(f"error: {error.strerror or error}: {error.filename or 'output'}")

    app.run(guarded, **kwargs)
