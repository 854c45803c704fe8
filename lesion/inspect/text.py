"""Describes a checkpoint as text: its origin, a line for each leaf, totals, differences from another checkpoint."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from lesion.inspect import measure, reader
from lesion.inspect.measure import Measures
from lesion.inspect.reader import Checkpoint, Leaf

SMALL = 64  # most elements of an array that the page shows in full


class LeafSummary(NamedTuple):
    """A leaf after reading: `measures` is None if it is no readable array of numbers, `array` None if not kept."""

    name: str
    leaf: Leaf
    measures: Measures | None
    array: np.ndarray | None


def summarize(source: Checkpoint) -> Iterator[LeafSummary]:
    """Yields the summary of each leaf, read group by group; keeps small arrays and the first layer's kernel."""
    first = first_kernel(source)
    for name, array in reader.read_arrays(source, list(source.leaves)):
        measures = None if array is None or array.dtype.kind in "OSU" else measure.measure(array)
        keep = array is not None and (array.size <= SMALL or name == first)
        yield LeafSummary(name, source.leaves[name], measures, array if keep else None)


def first_kernel(source: Checkpoint) -> str | None:
    """Returns the name of the first layer's kernel [height, width, 3 or else 1, filters], None if there is none."""
    for channels in (3, 1):
        for name, leaf in source.leaves.items():
            if leaf.shape and len(leaf.shape) == 4 and leaf.shape[2] == channels and name.endswith("kernel"):
                return name
    return None


def origin_lines(source: Checkpoint) -> list[str]:
    """Returns lines on the origin of a checkpoint and the configuration of its run."""
    hidden = ("config.", "run.config.", "history")  # configurations are shown below, learning curves in the report
    record = traverse_util.flatten_dict(source.provenance, sep=".")
    record = {name: value for name, value in record.items() if not name.startswith(hidden)}
    lines = [str(source.path), "", "where it came from" if record else "nothing beside it says where it came from"]
    lines += [f"  {name} = {value}" for name, value in record.items()]
    if source.config:
        config = traverse_util.flatten_dict(source.config, sep=".")
        lines += ["", "configuration of its run", *(f"  {name} = {value}" for name, value in config.items())]
    return lines


def total_lines(summaries: Sequence[LeafSummary]) -> list[str]:
    """Returns lines with numbers of arrays, elements and bytes, in all and by first part of the name, and warnings."""
    arrays = [summary for summary in summaries if summary.leaf.dtype]
    groups: dict[str, list[LeafSummary]] = {}
    for summary in arrays:
        groups.setdefault(summary.name.partition("/")[0], []).append(summary)
    lines = [_total_line("in all", arrays)]
    if len(groups) > 1:
        lines += [_total_line(name, group) for name, group in groups.items()]
    not_finite = [s.name for s in arrays if s.measures and s.measures.not_finite]
    unreadable = [s.name for s in arrays if not s.measures]
    for warning, names in (("NOT FINITE", not_finite), ("CANNOT BE READ", unreadable)):
        lines += [f"{warning}: {len(names)} of {len(arrays)} arrays, the first {names[0]}"] if names else []
    return lines


def _total_line(name: str, summaries: Sequence[LeafSummary]) -> str:
    elements = sum(summary.leaf.num_elements for summary in summaries)
    size = sum(summary.leaf.num_bytes for summary in summaries)
    size_text = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size:,} bytes"
    return f"{name}: {len(summaries)} arrays, {elements:,} elements, {size_text}"


def difference_lines(source: Checkpoint, other: Checkpoint) -> Iterator[str]:
    """Yields a line for each array in both, the difference as a share of the other's norm, then a summary."""
    pairs = reader.match_arrays(source, other)
    names, other_names = [name for name, _ in pairs], [name for _, name in pairs]
    width = _name_width(names)
    yield f"difference from {other.path}, as a share of its norm"
    yield _table_row(width, "name", "relative", "largest")
    relative: dict[str, float] = {}
    both = zip(reader.read_arrays(source, names), reader.read_arrays(other, other_names), strict=True)
    for (name, array), (_, other_array) in both:
        if array is None or other_array is None:
            yield _table_row(width, name, "", "", "CANNOT BE READ")
        elif array.shape != other_array.shape:
            yield _table_row(width, name, "", "", f"SHAPES {_shape(array.shape)} and {_shape(other_array.shape)}")
        else:
            relative[name], largest = measure.difference(array, other_array)
            share = "same" if largest == 0 else f"{relative[name]:.3%}"
            yield _table_row(width, name, share, f"{largest:.3g}")
    if not pairs:
        yield "no array is in both: the folds of a frozen run hold the head alone"
    yield ""
    num_same = sum(share == 0 for share in relative.values())
    only_source, only_other = len(source.leaves) - len(pairs), len(other.leaves) - len(set(other_names))
    yield (
        f"{len(relative)} arrays in both, {num_same} the same; {only_source} leaves only here, {only_other} only there"
    )
    moved = {name: share for name, share in relative.items() if share > 0 and math.isfinite(share)}
    if moved:
        most = max(moved, key=lambda name: moved[name])
        yield f"moved most: {most}, by {moved[most]:.3%}; median of those moved {np.median(list(moved.values())):.3%}"


def print_checkpoint(source: Checkpoint, against: Path | None) -> list[LeafSummary]:
    """Prints the whole description, line by line as leaves are read; returns the summaries of the leaves.

    Args:
        source: the checkpoint.
        against: folder of another checkpoint, whose differences are printed too; None for no comparison.
    """
    print("\n".join(origin_lines(source)), end="\n\n")
    width, summaries = _name_width(list(source.leaves)), []
    print(_table_row(width, "name", "shape", "type", "count", ("mean", "spread", "norm")))
    for summary in summarize(source):
        print(_leaf_line(width, summary), flush=True)
        summaries.append(summary)
    print("", *total_lines(summaries), sep="\n")
    if against:
        print()
        for line in difference_lines(source, reader.open_checkpoint(against)):
            print(line, flush=True)
    return summaries


def _leaf_line(width: int, summary: LeafSummary) -> str:
    name, leaf, measures, _ = summary
    if leaf.shape is None or leaf.dtype is None:
        return _table_row(width, name, "", leaf.kind)
    cells = (_shape(leaf.shape) or "scalar", leaf.dtype, f"{leaf.num_elements:,}")
    if measures is None:
        return _table_row(width, name, *cells, warning="CANNOT BE READ")
    numbers = [f"{value:.4g}" for value in (measures.mean, measures.spread, measures.norm)]
    warning = f"{measures.not_finite:,} NOT FINITE" if measures.not_finite else ""
    return _table_row(width, name, *cells, numbers, warning)


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _name_width(names: Sequence[str]) -> int:
    return max(map(len, ["name", *names]))


def _table_row(
    width: int,
    name: str,
    shape: str,
    dtype: str,
    count: str = "",
    numbers: Sequence[str] = ("", "", ""),
    warning: str = "",
) -> str:
    cells = " ".join(f"{number:>11}" for number in numbers)
    return f"{name:<{width}}  {shape:<14} {dtype:<9} {count:>12} {cells}  {warning}".rstrip()
