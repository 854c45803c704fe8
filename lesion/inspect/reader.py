"""A reader of any Orbax checkpoint: opens its metadata, then reads arrays a few at a time, when they are needed.

It opens the checkpoints of the programs here (converted weights, folds, resumable training states, a doctor's model)
and foreign ones: of a CheckpointManager or a bare checkpointer, in one file or a folder for each leaf, of dictionaries,
lists and tuples; also those that hold only part of a tree, or of which a part is lost.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from lesion import files
from lesion.errors import UserError
from lesion.runs import checkpoint

METADATA = "_METADATA"
GROUP_BYTES = 32 * 2**20  # largest group of leaves that is read at once
WRAPPERS = {"backbone", "default", "state", "tree", "variables"}  # parts of a name that say only how a tree was wrapped
DEPTH = 4  # number of levels of folders that are searched for checkpoints


class Leaf(NamedTuple):
    """A leaf of a checkpoint, as described by the metadata.

    Attributes:
        item: folder of the tree that holds the leaf.
        position: index of the leaf in that tree, as JAX flattens it.
        shape: shape of the array; None if the leaf is no array.
        dtype: name of the array's type, as in jax.numpy; None if the leaf is no array.
        kind: kind of leaf: array, string, scalar, ...
    """

    item: Path
    position: int
    shape: tuple[int, ...] | None
    dtype: str | None
    kind: str

    @property
    def num_elements(self) -> int:
        """Number of elements, 0 if the leaf is no array."""
        return int(np.prod(self.shape)) if self.shape is not None else 0

    @property
    def num_bytes(self) -> int:
        """Number of bytes in memory, 0 if the leaf is no array."""
        return self.num_elements * jax.numpy.dtype(self.dtype).itemsize if self.dtype else 0


class Checkpoint(NamedTuple):
    """A checkpoint without its arrays.

    Attributes:
        path: folder of the checkpoint; the newest of several numbered ones.
        leaves: {name: leaf}, in natural order of the names.
        provenance: record beside the tree; {} if there is none.
        config: configuration of the run that it belongs to; {} if there is none.
    """

    path: Path
    leaves: dict[str, Leaf]
    provenance: dict[str, Any]
    config: dict[str, Any]


def open_checkpoint(path: Path) -> Checkpoint:
    """Opens a checkpoint without reading its arrays.

    Args:
        path: folder of a checkpoint, or of numbered checkpoints, of which the newest is opened.

    Raises:
        UserError: if there is no checkpoint, if there are several, or if the metadata cannot be read.
    """
    path = path.absolute()
    items = _find_items(path)
    numbers = [int(folder.name) for folder in path.glob("*") if folder.name.isdigit()] if not items else []
    if numbers:
        path = path / str(max(numbers))
        items = _find_items(path)
    if not items:
        raise UserError(_not_found(path))
    leaves: dict[str, Leaf] = {}
    for item in items:
        prefix = f"{item.name}/" if len(items) > 1 else ""
        named, _ = jax.tree_util.tree_flatten_with_path(_read_metadata(item))
        for position, (keys, metadata) in enumerate(named):
            name = jax.tree_util.keystr(keys, simple=True, separator="/") or "(the whole)"
            is_array = getattr(metadata, "shape", None) is not None and metadata.dtype is not None
            shape, dtype = (tuple(metadata.shape), np.dtype(metadata.dtype).name) if is_array else (None, None)
            kind = type(metadata).__name__.removesuffix("Metadata").lower()
            leaves[prefix + name] = Leaf(item, position, shape, dtype, kind)
    leaves = {name: leaves[name] for name in sorted(leaves, key=_natural)}
    provenance = _read_provenance(path)
    return Checkpoint(path, leaves, provenance, _find_config(path, provenance))


def read_arrays(source: Checkpoint, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray | None]]:
    """Yields (name, array) in order, None for an array that cannot be read; reads `GROUP_BYTES` or one leaf at once."""
    group: list[str] = []
    for name in names:
        leaf = source.leaves[name]
        num_bytes = sum(source.leaves[other].num_bytes for other in group) + leaf.num_bytes
        if group and (num_bytes > GROUP_BYTES or leaf.item != source.leaves[group[0]].item):
            yield from _read_group(source, group)
            group = []
        group.append(name)
    if group:
        yield from _read_group(source, group)


def match_arrays(source: Checkpoint, other: Checkpoint) -> list[tuple[str, str]]:
    """Returns (name, other's name) of the arrays in both, whose names are equal or differ only in `WRAPPERS`."""
    unwrapped = {_unwrap(name): name for name in reversed(other.leaves)}
    pairs = ((name, name if name in other.leaves else unwrapped.get(_unwrap(name))) for name in source.leaves)
    return [(a, b) for a, b in pairs if b and source.leaves[a].dtype and other.leaves[b].dtype]


def _unwrap(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in WRAPPERS)


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns a sort key that puts `blocks_10` after `blocks_9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _find_items(path: Path) -> list[Path]:
    """Returns the folders that hold a tree: `path` itself, or its subfolders."""
    if (path / METADATA).is_file():
        return [path]
    return sorted(metadata.parent for metadata in path.glob(f"*/{METADATA}"))


def _not_found(path: Path) -> str:
    """Returns the error message for a folder that is no checkpoint."""
    if not path.exists():
        return f"there is no {path}: name the folder of a checkpoint"
    patterns = ("/".join(["*"] * depth + [METADATA]) for depth in range(2, DEPTH + 1))
    inside = sorted({str(p.parent.parent.relative_to(path)) for pattern in patterns for p in path.glob(pattern)})
    if inside:
        more = f" and {len(inside) - 5} more" if len(inside) > 5 else ""
        return f"{path} holds several checkpoints: name one of them ({', '.join(inside[:5])}{more})"
    return f"no Orbax checkpoint in {path}: it has no {METADATA}, name another folder"


def _read_metadata(item: Path) -> Any:
    """Returns the tree of leaf metadata of an item."""
    try:
        with checkpoint.quiet(), ocp.PyTreeCheckpointer() as checkpointer:
            return checkpointer.metadata(item).item_metadata.tree
    except Exception as error:  # Orbax raises nearly every kind of error on broken metadata
        reason = str(error).partition("\n")[0][:120]
        raise UserError(f"the metadata of {item} cannot be read ({reason}): name another checkpoint") from error


def _read_group(source: Checkpoint, names: list[str]) -> Iterator[tuple[str, np.ndarray | None]]:
    """Yields (name, array) of leaves of one item, read together, or one by one if that fails."""
    item = source.leaves[names[0]].item
    metadata = _read_metadata(item)
    try:
        arrays = _restore(item, metadata, {source.leaves[name].position for name in names if source.leaves[name].dtype})
    except Exception:  # of any kind, as above; a lost leaf must not hide the others
        if len(names) > 1:
            for name in names:
                yield from _read_group(source, [name])
            return
        arrays = {}
    yield from ((name, arrays.get(source.leaves[name].position)) for name in names)


def _restore(item: Path, metadata: Any, wanted: set[int]) -> dict[int, np.ndarray]:
    """Returns {position: array} of the wanted leaves; reads no others."""
    leaves, structure = jax.tree_util.tree_flatten(metadata)
    templates = [
        np.zeros(leaf.shape, leaf.dtype) if position in wanted else ocp.PLACEHOLDER
        for position, leaf in enumerate(leaves)
    ]
    as_numpy = [ocp.RestoreArgs(restore_type=np.ndarray)] * len(leaves)
    trees = (jax.tree_util.tree_unflatten(structure, values) for values in (templates, as_numpy))
    with checkpoint.quiet(), ocp.PyTreeCheckpointer() as checkpointer:
        restored = jax.tree.leaves(checkpointer.restore(item, args=ocp.args.PyTreeRestore(*trees)))
    return {position: np.asarray(restored[position]) for position in wanted}


def _read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file, {} if there is no such file or no object in it."""
    try:
        value = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_provenance(path: Path) -> dict[str, Any]:
    """Returns the record beside a tree: that of `save_variables`, or that of a resumable training state."""
    paths = (path / checkpoint.PROVENANCE, path.parent / checkpoint.PROVENANCE, path / "record" / "metadata")
    return next(filter(None, map(_read_json, paths)), {})


def _find_config(path: Path, provenance: dict[str, Any]) -> dict[str, Any]:
    """Returns the run's configuration, from the provenance or from a config.json in the folders above."""
    if "source" in provenance:  # converted weights belong to no run, even in a run's folder
        return {}
    run = provenance.get("run")
    recorded = provenance.get("config") or (run.get("config") if isinstance(run, dict) else None)
    above = (_read_json(parent / "config.json").get("config") for parent in list(path.parents)[:3])
    return next((config for config in (recorded, *above) if isinstance(config, dict)), {})
