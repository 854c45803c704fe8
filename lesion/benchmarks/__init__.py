"""Measurements that anyone can repeat: of the phantom's worth, and of speed."""

from collections.abc import Sequence


def render(rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """A table as text, or as Markdown for the README; the first row is the heading."""
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
