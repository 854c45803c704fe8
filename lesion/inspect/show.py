"""A checkpoint in words: where it came from, a line a leaf, totals, and a line a leaf of what differs."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lesion.inspect import measure, opening
from lesion.inspect.measure import Measures
from lesion.inspect.opening import Leaf, Opened

SMALL = 64  # elements of an array that the page shows itself
COLUMNS = ("shape", "type", "count", "mean", "spread", "norm", "")


class Seen(NamedTuple):
    """A leaf that was looked at: `measures` None if it is no array or could not be read, `array` if it is shown."""

    name: str
    leaf: Leaf
    measures: Measures | None
    array: np.ndarray | None


def look(opened: Opened) -> Iterator[Seen]:
    """Reads all leaves, one group at a time, and keeps the small ones and the first layer's kernel."""
    first = first_kernel(opened)
    for name, array in opening.read(opened, list(opened.leaves)):
        keep = array is not None and (array.size <= SMALL or name == first)
        yield Seen(name, opened.leaves[name], _measured(array), array if keep else None)


def _measured(array: np.ndarray | None) -> Measures | None:
    return None if array is None or array.dtype.kind in "OSU" else measure.measure(array)


def first_kernel(opened: Opened) -> str | None:
    """The kernel that sees the picture: of a convolution, height and width first, of three channels or else of one."""
    for channels in (3, 1):
        for name, leaf in opened.leaves.items():
            if leaf.shape and len(leaf.shape) == 4 and leaf.shape[2] == channels and name.endswith("kernel"):
                return name
    return None


def origin(opened: Opened) -> list[str]:
    """Lines on where it came from, and on the run that it belongs to."""
    told = {k: v for k, v in flat(opened.provenance).items() if not k.startswith(("config.", "run.config."))}
    told = {k: v for k, v in told.items() if not k.startswith("history")}  # a curve is for the report
    lines = [str(opened.path), "", "where it came from" if told else "nothing beside it says where it came from"]
    lines += [f"  {name} = {value}" for name, value in told.items()]
    if opened.config:
        lines += ["", "configuration of its run", *(f"  {name} = {v}" for name, v in flat(opened.config).items())]
    return lines


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dictionaries as `a.b`; lists stay as they are."""
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, item in value.items() for k, v in flat(item, f"{name}.{key}" if name else str(key)).items()}


def header(names: Sequence[str]) -> str:
    """The first line of a table of these leaves."""
    return _line(_width(names), "name", COLUMNS)


def line(names: Sequence[str], seen: Seen) -> str:
    """A leaf's line."""
    leaf, told = seen.leaf, seen.measures
    if leaf.shape is None or leaf.dtype is None:
        return _line(_width(names), seen.name, ("", leaf.kind, "", "", "", "", ""))
    shape = "×".join(map(str, leaf.shape)) or "scalar"
    about = shape, leaf.dtype, f"{leaf.num_elements:,}"
    if told is None:
        return _line(_width(names), seen.name, (*about, "", "", "", "CANNOT BE READ"))
    warning = f"{told.not_finite:,} NOT FINITE" if told.not_finite else ""
    numbers = (f"{value:.4g}" for value in told[:3])
    return _line(_width(names), seen.name, (*about, *numbers, warning))


def totals(seen: Sequence[Seen]) -> list[str]:
    """Lines on the whole: arrays, elements and bytes, by the first part of the names too."""
    arrays = [one for one in seen if one.leaf.dtype]
    lines = [_total("in all", arrays)]
    parts = list(dict.fromkeys(one.name.partition("/")[0] for one in arrays))
    if len(parts) > 1:
        lines += [_total(part, [one for one in arrays if one.name.partition("/")[0] == part]) for part in parts]
    bad = [one for one in arrays if one.measures and one.measures.not_finite]
    lost = [one for one in arrays if not one.measures]
    lines += [f"NOT FINITE: {len(bad)} of {len(arrays)} arrays, the first {bad[0].name}"] if bad else []
    lines += [f"CANNOT BE READ: {len(lost)} of {len(arrays)} arrays, the first {lost[0].name}"] if lost else []
    return lines


def _total(name: str, some: Sequence[Seen]) -> str:
    elements, size = sum(one.leaf.num_elements for one in some), sum(one.leaf.num_bytes for one in some)
    return f"{name}: {len(some)} arrays, {elements:,} elements, {megabytes(size)}"


def megabytes(size: int) -> str:
    """Bytes as people say them."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size:,} bytes"


def compare(here: Opened, there: Opened) -> Iterator[str]:
    """Lines on what differs, leaf by leaf, as a share of the other's norm; the largest change is told last."""
    both = opening.pairs(here, there)
    names = [name for name, _ in both]
    yield f"difference from {there.path}, as a share of its norm"
    yield _line(_width(names), "name", ("relative", "largest", "", "", "", "", ""))
    found: dict[str, float] = {}
    others = opening.read(there, [other for _, other in both])
    for (name, array), (_, other) in zip(opening.read(here, names), others, strict=True):
        if array is None or other is None:
            yield _line(_width(names), name, ("", "", "CANNOT BE READ", "", "", "", ""))
        elif array.shape != other.shape:
            shapes = " and ".join("×".join(map(str, a.shape)) for a in (array, other))
            yield _line(_width(names), name, ("", "", f"SHAPES {shapes}", "", "", "", ""))
        else:
            relative, largest = measure.differ(array, other)
            found[name] = relative
            told = "same" if largest == 0 else f"{relative:.3%}"
            yield _line(_width(names), name, (told, f"{largest:.3g}", "", "", "", "", ""))
    if not both:
        yield "no array is in both: the folds of a frozen run hold the head alone"
    yield ""
    same = sum(value == 0 for value in found.values())
    yield f"{len(found)} arrays in both, {same} the same; {len(here.leaves) - len(both)} leaves only here, " + (
        f"{len(there.leaves) - len({other for _, other in both})} only there"
    )
    moved = {name: value for name, value in found.items() if value > 0 and math.isfinite(value)}
    if moved:
        most = max(moved, key=lambda name: moved[name])
        yield f"moved most: {most}, by {moved[most]:.3%}; median of those moved {np.median(list(moved.values())):.3%}"


def tell(opened: Opened, against: Path | None) -> list[Seen]:
    """Prints everything, line by line as it is read; returns what was seen."""
    print("\n".join(origin(opened)), end="\n\n")
    names, seen = list(opened.leaves), []
    print(header(names))
    for one in look(opened):
        print(line(names, one), flush=True)
        seen.append(one)
    print("", *totals(seen), sep="\n")
    if against:
        print()
        for text in compare(opened, opening.open_checkpoint(against)):
            print(text, flush=True)
    return seen


def _width(names: Sequence[str]) -> int:
    return max(map(len, ["name", *names]))


def _line(width: int, name: str, cells: Sequence[str]) -> str:
    shape, kind, count, *numbers, last = cells
    text = f"{name:<{width}}  {shape:<14} {kind:<9} {count:>12} " + " ".join(f"{cell:>11}" for cell in numbers)
    return f"{text}  {last}".rstrip()
