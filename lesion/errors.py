"""What a user got wrong, in one line."""

import errno
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

MENDED_BY = {
    errno.ENOSPC: "free some space, or name a folder on another disk, and run the command again",
    errno.EACCES: "name a folder that may be read and written",
    errno.EROFS: "name a folder that may be written",
}


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
            what = f"{error.strerror or error}: {error.filename or 'output'}"
            sys.exit(": ".join(["error", what, *filter(None, [MENDED_BY.get(error.errno or 0)])]))

    app.run(guarded, **kwargs)
