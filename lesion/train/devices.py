"""Where a step runs: `jit` on one device, `pmap` on several, on one machine or more; chosen here and nowhere else."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lesion.errors import UserError

AXIS = "devices"
Fetch = Callable[[Any], Any]


class Devices(NamedTuple):
    """How a pure function is run on the devices there are.

    Attributes:
        axis_name: for the function's collectives; None on one device.
        num_devices: of all machines.
        compile: (function, roles, donate) -> compiled function. Each argument's role is `r` replicated (see
            `replicate`), `s` split (see `split`) or `b` broadcast (as it is); `donate` numbers arguments whose memory
            the result may take. Results are replicated.
        replicate: a tree to every device.
        split: host arrays [num_devices · b, ...] of the global batch to this machine's share of them.
        fetch: a replicated result to NumPy.
    """

    axis_name: str | None
    num_devices: int
    compile: Callable[..., Callable]
    replicate: Fetch
    split: Fetch
    fetch: Fetch


def _single() -> Devices:
    def compile_(fn: Callable, roles: str, donate: Sequence[int] = ()) -> Callable:
        del roles
        return jax.jit(fn, donate_argnums=tuple(donate))

    return Devices(None, 1, compile_, jax.device_put, lambda tree: tree, jax.device_get)


def _parallel() -> Devices:
    local, here = jax.local_device_count(), jax.process_index()
    if local * jax.process_count() != jax.device_count():
        raise UserError(f"{local} devices here, {jax.device_count()} in all: every process needs equally many")

    def compile_(fn: Callable, roles: str, donate: Sequence[int] = ()) -> Callable:
        in_axes = tuple(None if role == "b" else 0 for role in roles)
        return jax.pmap(fn, AXIS, in_axes=in_axes, donate_argnums=tuple(donate))

    replicas = jax.pmap(lambda tree, _: tree, in_axes=(None, 0))

    def replicate(tree: Any) -> Any:
        # 2026-11: between processes pmap wants at least one array.
        return replicas(tree, np.zeros(local)) if jax.tree.leaves(tree) else tree

    def split(tree: Any) -> Any:
        def own_share(x: np.ndarray) -> np.ndarray:
            by_device = x.reshape(jax.device_count(), -1, *x.shape[1:])
            return by_device[here * local : (here + 1) * local]

        return jax.tree.map(own_share, tree)

    def fetch(tree: Any) -> Any:
        return jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data)[0], tree)

    return Devices(AXIS, jax.device_count(), compile_, replicate, split, fetch)


def connect(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of a run on several machines; before anything else of JAX.

    Args:
        coordinator: HOST:PORT of the first process; None takes all three from SLURM, if srun started several tasks.
        num_processes: of all machines.
        process_id: of this one, from 0.

    Raises:
        UserError: if only some are given, or nobody answers.
    """
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    if any(given) and not all(given):
        raise UserError("--coordinator, --num_processes and --process_id belong together: give all three or none")
    # Not SLURM_NTASKS: sbatch sets it for its script too, which is one process.
    if not any(given) and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    try:
        found_by = "deactivate" if all(given) else "slurm"
        jax.distributed.initialize(coordinator, num_processes, process_id, cluster_detection_method=found_by)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"could not join the other processes ({reason}): is --coordinator the same in each?") from error
    if not any(given) and owns_visible_gpus(os.environ):
        for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
            jax.config.update(name, "all")


def owns_visible_gpus(environ: Mapping[str, str]) -> bool:
    """Returns whether a SLURM task may take every GPU it sees; JAX lets it take one, numbered as the task on its node.

    True for the only task of a node, and for one that was bound to some of the node's GPUs (--gpus-per-task).
    """
    if environ["SLURM_STEP_NUM_TASKS"] == environ.get("SLURM_STEP_NUM_NODES"):
        return True
    visible, on_node = environ.get("CUDA_VISIBLE_DEVICES"), environ.get("SLURM_GPUS_ON_NODE")
    return visible is not None and on_node is not None and len(visible.split(",")) < int(on_node)


def devices() -> Devices:
    """Returns the devices of this run."""
    return _single() if jax.device_count() == 1 else _parallel()
