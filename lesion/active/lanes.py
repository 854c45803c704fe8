"""Runs of one program, so many side by side, each finished batch kept on disk until all are done."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lesion import trees
from lesion.active.program import RoundInfo, Run

WEIGHTS = "weights_sha256"


def side_by_side(run: Callable[..., tuple[RoundInfo, Any]], lanes: int) -> Callable[..., tuple[RoundInfo, Any]]:
    """Compiles `run(Run, *shared)` for `lanes` runs at a time, their arrays stacked; one is not vmapped."""

    def many(runs: Run, *shared: Any):
        if lanes == 1:  # a loop that ends at run time, and a switch, cost more under vmap
            return jax.tree.map(lambda x: x[None], run(jax.tree.map(lambda x: x[0], runs), *shared))
        return jax.vmap(lambda one: run(one, *shared))(runs)

    return jax.jit(many)


def all_runs(
    compiled: Callable[..., tuple[RoundInfo, Any]], runs: Sequence[Run], shared: Sequence[Any], lanes: int, kept: Path
) -> Iterator[list[tuple[RoundInfo, str]]]:
    """Runs them, batch by batch, or takes what a killed process left.

    Args:
        compiled: by `side_by_side` with the same `lanes`.
        runs: any number; the last batch is filled up with copies.
        shared: further arguments.
        lanes: how many at a time.
        kept: folder of the batches done.

    Yields:
        Of each batch what happened in its runs, as NumPy, and the hashes of their last weights.
    """
    kept.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(runs), lanes):
        path = kept / f"{start:05d}.npz"
        if not path.exists():
            batch = list(runs[start : start + lanes])
            stacked = jax.tree.map(lambda *x: jnp.stack(x), *batch, *[batch[-1]] * (lanes - len(batch)))
            info, state = jax.device_get(compiled(stacked, *shared))
            hashes = [trees.sha256(jax.tree.map(lambda x, i=i: x[i], dict(state.params))) for i in range(len(batch))]
            _save(path, {WEIGHTS: np.array(hashes)} | {k: v[: len(batch)] for k, v in info._asdict().items()})
        with np.load(path) as saved:
            arrays = {name: saved[name] for name in RoundInfo._fields}
            yield [
                (RoundInfo(**{name: array[i] for name, array in arrays.items()}), str(weights))
                for i, weights in enumerate(saved[WEIGHTS])
            ]


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """All at once or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
