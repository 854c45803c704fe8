"""How large a checkpoint may be, checked before memory is taken."""

# The largest backbone has 0.25 GB of arrays; an optimiser's state, and float64, make a checkpoint six times as large.
MOST_BYTES = 4 * 2**30


def check(num_bytes: int) -> None:
    """Raises a ValueError if arrays of `num_bytes` bytes are more than `MOST_BYTES`."""
    if num_bytes > MOST_BYTES:
        raise ValueError(f"its arrays would take {num_bytes / 2**30:.0f} GiB, more than {MOST_BYTES / 2**30:.0f}")
