"""How a program ends early: with a line for its user."""


class UserError(Exception):
    """Bad input: one line that says what, where and how to mend it."""


class Interrupted(Exception):  # noqa: N818  # nothing went wrong
    """A signal to stop was handled and everything saved: one line that says how far it got."""
