"""Where a step runs: `jit` on one device, `pmap` on several, on one machine or more. Chosen here and nowhere else."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lesion.errors import UserError

AXIS = "devices"
Fetch = Callable[[Any], Any]


class Devices(NamedTuple):
    """How to run a pure function on the devices there are.

    Attributes:
        axis_name: for the function's collectives; None on one device.
        total: number of devices, of all machines.
        compile: (function, roles, donate) -> compiled function. Each argument's role is `r` replicated (see
            `replicate`), `s` split (see `split`) or `b` broadcast (as it is); `donate` numbers arguments whose memory
            the result may take. Results are replicated.
        replicate: a tree to every device.
        split: host arrays [total · b, ...] of the global batch to this machine's share of them.
        fetch: a replicated result to NumPy.
    """

    axis_name: str | None
    total: int
    compile: Callable[..., Callable]
    replicate: Fetch
    split: Fetch
    fetch: Fetch


def _one() -> Devices:
    def compile_(fn: Callable, roles: str, donate: Sequence[int] = ()) -> Callable:
        del roles
        return jax.jit(fn, donate_argnums=tuple(donate))

    return Devices(None, 1, compile_, jax.device_put, lambda tree: tree, jax.device_get)


def _several() -> Devices:
    local, here = jax.local_device_count(), jax.process_index()

    def compile_(fn: Callable, roles: str, donate: Sequence[int] = ()) -> Callable:
        in_axes = tuple(None if role == "b" else 0 for role in roles)
        return jax.pmap(fn, AXIS, in_axes=in_axes, donate_argnums=tuple(donate))

    replicas = jax.pmap(lambda tree, _: tree, in_axes=(None, 0))

    def replicate(tree: Any) -> Any:
        # 2026-11: between processes pmap wants at least one array.
        return replicas(tree, np.zeros(local)) if jax.tree.leaves(tree) else tree

    def split(tree: Any) -> Any:
        def one(x: np.ndarray) -> np.ndarray:
            by_device = x.reshape(jax.device_count(), -1, *x.shape[1:])
            return by_device[here * local : (here + 1) * local]

        return jax.tree.map(one, tree)

    def fetch(tree: Any) -> Any:
        return jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data)[0], tree)

    return Devices(AXIS, jax.device_count(), compile_, replicate, split, fetch)


def connect(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of a run on several machines; before anything else of JAX.

    Args:
        coordinator: HOST:PORT of the first process; None takes all three from SLURM, if it started several tasks.
        num_processes: of all machines.
        process_id: of this one, from 0.

    Raises:
        UserError: if only some are given, or nobody answers.
    """
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    if any(given) and not all(given):
        raise UserError("--coordinator, --num_processes and --process_id belong together: give all three or none")
    if not any(given) and int(os.environ.get("SLURM_NTASKS", "1")) == 1:
        return
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"could not join the other processes ({reason}): is --coordinator the same in each?") from error


def devices() -> Devices:
    """The devices of this run."""
    return _one() if jax.device_count() == 1 else _several()
