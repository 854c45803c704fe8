"""What a user got wrong, in one line."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging


class UserError(Exception):
    """Bad input: one line that says what, where and how to mend it."""


def run(main: Callable[[Sequence[str]], Any], **kwargs: Any) -> None:
    """Runs an absl `main`; a `UserError` or a full disk ends in one line on stderr and exit status 1."""

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"error: unexpected argument {argv[1]!r}: flags are written --name=value")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # libraries tell at INFO what only their authors need
        try:
            main(argv)
        except UserError as error:
            sys.exit(f"error: {error}")
        except OSError as error:  # a full disk, a folder that may not be written
            sys.exit(f"error: {error.strerror or error}: {error.filename or 'output'}")

    app.run(guarded, **kwargs)
