"""Exceptions that end a program early with a one-line message for its user."""


class UserError(Exception):
    """A mistake in the input; the message says in one line what is wrong, where, and how to mend it."""


class InUseError(UserError):
    """Another process writes the same file or folder; the message names that process."""


class Interrupted(Exception):  # noqa: N818  # nothing went wrong
    """A stop that was requested by a signal; the message says in one line how far the run got and what is saved."""
