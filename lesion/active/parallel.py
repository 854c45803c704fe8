"""Runs of one program side by side; each finished batch stays on disk until all are done."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lesion import files, trees
from lesion.active.program import RoundInfo, Run
from lesion.errors import UserError

WEIGHTS = "weights_sha256"


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compiles a function that runs on one device, also where fits run on many; `options` are those of `jax.jit`."""
    return jax.jit(function, **options)


def side_by_side(run: Callable[..., tuple[RoundInfo, Any]], num_runs: int) -> Callable[..., tuple[RoundInfo, Any]]:
    """Compiles `run(Run, *shared)` for `num_runs` runs at a time, with stacked arrays; a single one is not vmapped."""

    def run_batch(runs: Run, *shared: Any):
        if num_runs == 1:  # a loop that ends at run time, and a switch, cost more under vmap
            return jax.tree.map(lambda x: x[None], run(jax.tree.map(lambda x: x[0], runs), *shared))
        return jax.vmap(lambda each: run(each, *shared))(runs)

    return jax.jit(run_batch)


def run_all(
    run_batch: Callable[..., tuple[RoundInfo, Any]],
    runs: Sequence[Run],
    titles: Sequence[str],
    shared: Sequence[Any],
    num_runs: int,
    folder: Path,
) -> Iterator[list[tuple[RoundInfo, str]]]:
    """Runs `runs` batch by batch, or loads the batches that a killed process finished.

    Args:
        run_batch: function from `side_by_side` with the same `num_runs`.
        runs: any number of runs; the last batch is filled up with copies.
        titles: titles of the runs, for messages.
        shared: further arguments of `run_batch`.
        num_runs: number of runs in a batch.
        folder: folder of the finished batches.

    Yields:
        For each batch a list of (results as NumPy arrays, hash of the last weights), one per run.

    Raises:
        UserError: if a run diverged.
    """
    for start in range(0, len(runs), num_runs):
        path = folder / f"{start:05d}-{num_runs}.npz"  # another machine may run another number at a time
        if not path.exists():
            batch = list(runs[start : start + num_runs])
            stacked = jax.tree.map(lambda *x: jnp.stack(x), *batch, *[batch[-1]] * (num_runs - len(batch)))
            info, state = jax.device_get(run_batch(stacked, *shared))
            params = [jax.tree.map(lambda x, i=i: x[i], dict(state.params)) for i in range(len(batch))]
            save(path, RoundInfo(*(x[: len(batch)] for x in info)), params, titles[start : start + num_runs])
        yield load(path)


def save(path: Path, info: RoundInfo, params: Sequence[dict], titles: Sequence[str]) -> None:
    """Saves the results of runs, arrays [runs, R, ...], and hashes of their last weights; whole or not at all.

    Raises:
        UserError: if a run diverged; nothing is saved then.
    """
    for title, probs in zip(titles, info.probs, strict=True):
        finite = np.isfinite(probs).all(1)
        if not finite.all():
            raise UserError(f"{title}: diverged in round {int(np.argmin(finite)) + 1}: lower --config.optim.lr")
    hashes = np.array([trees.sha256(tree) for tree in params])
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{WEIGHTS: hashes}, **info._asdict())  # type: ignore[arg-type]


def load(path: Path) -> list[tuple[RoundInfo, str]]:
    """Loads a file that `save` wrote: (results, hash of the last weights) of each run."""
    with np.load(path) as saved:
        arrays = {name: saved[name] for name in RoundInfo._fields}
        return [
            (RoundInfo(**{name: array[i] for name, array in arrays.items()}), str(weights))
            for i, weights in enumerate(saved[WEIGHTS])
        ]
