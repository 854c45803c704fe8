"""Opens any Orbax checkpoint by its metadata; arrays are read a few at a time, when they are asked for.

Every form is taken: what the entry points here write (converted weights, folds, the checkpoints that training goes on
from, a doctor's model), and foreign ones: of a CheckpointManager or of a bare checkpointer, in one file or a folder a
leaf, dictionaries, lists and tuples; also those that hold a part of a tree, or of which a part is lost.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from lesion.errors import UserError
from lesion.runs import checkpoint

METADATA = "_METADATA"
GROUP_BYTES = 32 * 2**20  # what is read at once, unless one leaf is larger
WRAPPERS = {"backbone", "default", "state", "tree", "variables"}  # parts of a name that say where, not what
DEPTH = 4  # folders below the one named that are searched


class Leaf(NamedTuple):
    """A leaf as the metadata tell it: `shape` and `dtype` are None for what is no array, of kind `kind`."""

    item: Path
    place: int
    shape: tuple[int, ...] | None
    dtype: str | None
    kind: str

    @property
    def num_elements(self) -> int:
        """Its elements."""
        return int(np.prod(self.shape)) if self.shape is not None else 0

    @property
    def num_bytes(self) -> int:
        """In memory; bfloat16 and the like by their names in jax.numpy."""
        return self.num_elements * jax.numpy.dtype(self.dtype).itemsize if self.dtype else 0


class Opened(NamedTuple):
    """A checkpoint.

    Attributes:
        path: as it was found, of several the newest.
        leaves: by name, in order.
        provenance: what is written beside it; {} if nothing is.
        config: of the run that it belongs to; {} if there is none.
    """

    path: Path
    leaves: dict[str, Leaf]
    provenance: dict[str, Any]
    config: dict[str, Any]


def open_checkpoint(path: Path) -> Opened:
    """Reads what is in a checkpoint without reading its arrays.

    Args:
        path: its folder; or one of numbered checkpoints, of which the newest is taken.

    Raises:
        UserError: if there is none, if there are several, or its metadata cannot be read.
    """
    path = path.absolute()
    items = _items(path)
    numbers = sorted(int(p.name) for p in path.iterdir() if p.name.isdigit()) if path.is_dir() and not items else []
    if numbers:
        path = path / str(numbers[-1])
        items = _items(path)
    if not items:
        raise UserError(_not_one(path))
    leaves: dict[str, Leaf] = {}
    for item in items:
        prefix = f"{item.name}/" if len(items) > 1 else ""
        for place, (name, leaf) in enumerate(_names(_tree(item))):
            array = getattr(leaf, "shape", None) is not None and leaf.dtype is not None
            shape, dtype = (tuple(leaf.shape), np.dtype(leaf.dtype).name) if array else (None, None)
            kind = type(leaf).__name__.removesuffix("Metadata").lower()
            leaves[prefix + name] = Leaf(item, place, shape, dtype, kind)
    leaves = dict(sorted(leaves.items(), key=lambda item: _natural(item[0])))
    provenance = _provenance(path)
    return Opened(path, leaves, provenance, _config(path, provenance))


def read(opened: Opened, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray | None]]:
    """Reads leaves in groups of at most `GROUP_BYTES`: (name, array) in order, None for one that cannot be read."""
    group: list[str] = []
    for name in names:
        one = opened.leaves[name]
        size = sum(opened.leaves[other].num_bytes for other in group) + one.num_bytes
        if group and (size > GROUP_BYTES or one.item != opened.leaves[group[0]].item):
            yield from _read_group(opened, group)
            group = []
        group.append(name)
    if group:
        yield from _read_group(opened, group)


def pairs(here: Opened, there: Opened) -> list[tuple[str, str]]:
    """Names of the arrays that both have: the same name, or the same but for what wraps it."""
    plain = {_plain(name): name for name in reversed(there.leaves)}
    found = ((name, name if name in there.leaves else plain.get(_plain(name))) for name in here.leaves)
    return [(name, other) for name, other in found if other and here.leaves[name].dtype and there.leaves[other].dtype]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `blocks_10` behind `blocks_9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _plain(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in WRAPPERS)


def _items(path: Path) -> list[Path]:
    """The trees in a folder: itself, or those of its folders that hold one."""
    if (path / METADATA).is_file():
        return [path]
    return sorted(p.parent for p in path.glob(f"*/{METADATA}")) if path.is_dir() else []


def _not_one(path: Path) -> str:
    if not path.exists():
        return f"there is no {path}: name the folder of a checkpoint"
    patterns = ("/".join(["*"] * depth + [METADATA]) for depth in range(2, DEPTH + 1))
    inside = sorted({str(p.parent.parent.relative_to(path)) for pattern in patterns for p in path.glob(pattern)})
    if inside:
        more = f" and {len(inside) - 5} more" if len(inside) > 5 else ""
        return f"{path} holds several checkpoints: name one of them ({', '.join(inside[:5])}{more})"
    return f"no Orbax checkpoint in {path}: it has no {METADATA}, name another folder or write it anew"


def _tree(item: Path) -> Any:
    try:
        with checkpoint.quiet(), ocp.PyTreeCheckpointer() as checkpointer:
            return checkpointer.metadata(item).item_metadata.tree
    except Exception as error:  # Orbax raises nearly every kind on broken metadata
        reason = str(error).partition("\n")[0][:120]
        raise UserError(f"the metadata of {item} cannot be read ({reason}): name another checkpoint") from error


def _names(tree: Any) -> list[tuple[str, Any]]:
    """(name, leaf) in the order in which JAX flattens the tree."""

    def word(key: Any) -> str:
        return str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))))

    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [("/".join(map(word, keys)) or "(the whole)", leaf) for keys, leaf in flat]


def _read_group(opened: Opened, names: list[str]) -> Iterator[tuple[str, np.ndarray | None]]:
    item = opened.leaves[names[0]].item
    tree = _tree(item)
    wanted = {opened.leaves[name].place for name in names if opened.leaves[name].dtype}
    try:
        found = _restore(item, tree, wanted)
    except Exception:  # as above; one that is lost must not hide the others
        if len(names) > 1:
            for name in names:
                yield from _read_group(opened, [name])
            return
        found = {}
    yield from ((name, found.get(opened.leaves[name].place)) for name in names)


def _restore(item: Path, tree: Any, wanted: set[int]) -> dict[int, np.ndarray]:
    """The leaves at these places."""
    leaves, structure = jax.tree_util.tree_flatten(tree)
    like = [
        np.zeros(leaf.shape, leaf.dtype) if place in wanted else ocp.PLACEHOLDER for place, leaf in enumerate(leaves)
    ]
    how = [ocp.RestoreArgs(restore_type=np.ndarray)] * len(leaves)
    both = (jax.tree_util.tree_unflatten(structure, some) for some in (like, how))
    with checkpoint.quiet(), ocp.PyTreeCheckpointer() as checkpointer:
        restored = jax.tree.leaves(checkpointer.restore(item, args=ocp.args.PyTreeRestore(*both)))
    return {place: np.asarray(restored[place]) for place in wanted}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _provenance(path: Path) -> dict[str, Any]:
    """Written beside the tree: by `save_variables`, or as the record of a checkpoint that training goes on from."""
    places = (path / checkpoint.PROVENANCE, path.parent / checkpoint.PROVENANCE, path / "record" / "metadata")
    return next(filter(None, map(_json, places)), {})


def _config(path: Path, provenance: dict[str, Any]) -> dict[str, Any]:
    """The run's, from the checkpoint itself or from a config.json above it."""
    run = provenance.get("run")
    told = provenance.get("config") or (run.get("config") if isinstance(run, dict) else None)
    if "source" in provenance:  # converted weights, which may lie in a run's folder and are not of the run
        return {}
    above = (_json(parent / "config.json").get("config") for parent in list(path.parents)[:3])
    return told if isinstance(told, dict) else next((c for c in above if isinstance(c, dict)), {})
