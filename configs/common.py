"""Helpers shared by the configurations: parsing their arguments, and sweeps as tuples."""

from collections.abc import Callable
from typing import Any

SEQUENCES = ("flair", "ce_t1wi", "t2wi")  # the paper's, a subset of lesion.dicom.SEQUENCES


def split_arg(arg: str, defaults: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the parts of `a,b`; missing ones are the defaults: `resnet50` alone keeps the default sequence."""
    given = tuple(part for part in arg.split(",") if part)
    if len(given) > len(defaults):
        raise ValueError(f"config argument {arg!r}: at most {len(defaults)} parts, BACKBONE,SEQUENCE")
    return given + defaults[len(given) :]


def settings(sweep: Callable[[Callable[..., Any]], None]) -> tuple:
    """Returns the settings that `sweep(add)` adds, each a tuple of (field, value)."""
    added: list[tuple] = []
    sweep(lambda **overrides: added.append(tuple(overrides.items())))
    return tuple(added)
