"""What the configurations share beside fields: how they are called, and sweeps as tuples."""

from collections.abc import Callable
from typing import Any

SEQUENCES = ("flair", "ce_t1wi", "t2wi")  # the paper's; of those that lesion.dicom.SEQUENCES knows


def split_arg(arg: str, defaults: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the parts of `a,b`, the defaults where there are none: `resnet50` alone keeps the default sequence."""
    given = tuple(part for part in arg.split(",") if part)
    if len(given) > len(defaults):
        raise ValueError(f"config argument {arg!r}: at most {len(defaults)} parts, BACKBONE,SEQUENCE")
    return given + defaults[len(given) :]


def settings(sweep: Callable[[Callable[..., Any]], None]) -> tuple:
    """Returns what a `sweep(add)` names: a tuple a setting, of (field, value)."""
    found: list[tuple] = []
    sweep(lambda **overrides: found.append(tuple(overrides.items())))
    return tuple(found)
