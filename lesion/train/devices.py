"""The devices that steps run on: `jit` on one, `pmap` on several, of one machine or more; chosen only here."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lesion.errors import UserError

AXIS = "devices"
Fetch = Callable[[Any], Any]


class Devices(NamedTuple):
    """Functions that run a pure function on one device or several.

    Attributes:
        axis_name: name of the axis of devices, for the function's collectives; None on one device.
        num_devices: number of devices of all machines together.
        compile: (function, roles, donate) -> compiled function. `roles` has a letter for each argument: `r` replicated
            (see `replicate`), `s` split (see `split`), `b` broadcast (passed as it is); `donate` lists the indices of
            arguments whose memory may be reused. Results are replicated.
        replicate: copies a tree to every device.
        split: maps host arrays [num_devices · b, ...] of the global batch to this machine's share of them.
        fetch: returns a replicated result as NumPy arrays.
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
        # 2026-11: with several processes pmap fails on a tree without arrays.
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
    """Joins the other processes of a run on several machines; must come before any other use of JAX.

    Args:
        coordinator: HOST:PORT of the first process; None takes all three from SLURM, if srun started several tasks.
        num_processes: number of processes on all machines.
        process_id: index of this process, from 0.

    Raises:
        UserError: if only some of the three are given, or the coordinator does not answer.
    """
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    if any(given) and not all(given):
        raise UserError("--coordinator, --num_processes and --process_id belong together: give all three or none")
    # Not SLURM_NTASKS: sbatch sets it for its script too, which is a single process.
    if not any(given) and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    try:
        detection = "deactivate" if all(given) else "slurm"
        jax.distributed.initialize(coordinator, num_processes, process_id, cluster_detection_method=detection)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"could not join the other processes ({reason}): is --coordinator the same in each?") from error
    if not any(given) and owns_visible_gpus(os.environ):
        for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
            jax.config.update(name, "all")


def owns_visible_gpus(environ: Mapping[str, str]) -> bool:
    """Returns whether a SLURM task may use every GPU it sees; JAX by default uses the one with the task's local index.

    True for the only task on a node, and for a task that is bound to some of the node's GPUs (--gpus-per-task).
    """
    if environ["SLURM_STEP_NUM_TASKS"] == environ.get("SLURM_STEP_NUM_NODES"):
        return True
    visible, on_node = environ.get("CUDA_VISIBLE_DEVICES"), environ.get("SLURM_GPUS_ON_NODE")
    return visible is not None and on_node is not None and len(visible.split(",")) < int(on_node)


def devices() -> Devices:
    """Returns the devices that JAX sees."""
    return _single() if jax.device_count() == 1 else _parallel()
