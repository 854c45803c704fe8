"""Orbax checkpoints with their provenance beside them."""

import contextlib
import functools
import shutil
import sys
from collections.abc import Callable, Iterator
from logging import getLogger
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from lesion import files, trees
from lesion.errors import UserError

VARIABLES = "variables"
PROVENANCE = "provenance.json"


def alone() -> ocp.options.MultiprocessingOptions:
    """Returns options for Orbax by which this process reads or writes by itself, whatever the others do."""
    here = jax.process_index()
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(here, {here}, f"process{here}")


def save_variables(
    directory: Path | str,
    variables: dict,
    provenance: dict[str, Any],
    beside: Callable[[Path], None] = lambda folder: None,
) -> str:
    """Writes `directory` with the tree and where it came from, all at once.

    Args:
        directory: must not exist, or hold the same tree from the same source already.
        variables: nested dictionaries of arrays.
        provenance: JSON-able; the tree's hash is added as `sha256`.
        beside: writes further files into the folder.

    Returns:
        The tree's hash.

    Raises:
        UserError: if `directory` holds anything else.
    """
    directory = Path(directory).absolute()
    record = {**provenance, "sha256": trees.sha256(variables)}
    if directory.exists():
        if (directory / PROVENANCE).exists() and files.read_json(directory / PROVENANCE) == record:
            return record["sha256"]
        raise UserError(f"{directory} exists and holds something else: name a new folder with --output")
    with files.new_folder(directory) as partial:
        # Asked beforehand: on a full disk Orbax's threads each print a traceback of their own.
        if shutil.disk_usage(partial).free < 1.1 * trees.num_bytes(variables) + 2**20:
            raise UserError(f"no space left for {directory}: free some and run the same command again")
        with ocp.StandardCheckpointer(multiprocessing_options=alone()) as checkpointer:
            checkpointer.save(partial / VARIABLES, variables)
        beside(partial)
        files.write_json(partial / PROVENANCE, record)
    return record["sha256"]


def read_provenance(directory: Path) -> dict[str, Any]:
    """Returns where a checkpoint of `save_variables` came from; a `UserError` if there is none."""
    if not (directory / PROVENANCE).exists():
        raise UserError(f"no weights in {directory}: make them with launch.convert_weights --output={directory}")
    return files.read_json(directory / PROVENANCE)


def read_tree(path: Path) -> dict:
    """Reads an Orbax checkpoint of nested dictionaries as NumPy arrays; its names are the structure."""
    with quiet(), ocp.StandardCheckpointer(multiprocessing_options=alone()) as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata.tree
        like = trees.unflatten({k: np.zeros(m.shape, m.dtype) for k, m in trees.flatten(metadata).items()})
        return checkpointer.restore(path, like)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences Orbax, which warns that a part of a checkpoint has no metadata of the whole."""
    _silence_closed_loops()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@functools.cache
def _silence_closed_loops() -> None:
    """Silences what threads print about an event loop that was closed.

    Once an array cannot be read Orbax closes its event loop; TensorStore's threads, still reading the others, then
    each print a traceback about that, and asyncio what else failed: some of it long after the error that is raised, so
    that it is silenced for good.
    """
    getLogger("asyncio").addFilter(lambda record: "exception was never retrieved" not in record.getMessage())
    default_hook = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
            default_hook(unraisable)

    sys.unraisablehook = hook


def load_variables(directory: Path | str) -> tuple[dict, dict[str, Any]]:
    """Reads what `save_variables` wrote.

    Returns:
        The tree as NumPy arrays, and its provenance.

    Raises:
        UserError: if there is no such checkpoint or its content is not what was written.
    """
    directory = Path(directory).absolute()
    provenance = read_provenance(directory)
    try:
        variables = read_tree(directory / VARIABLES)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"the checkpoint in {directory} cannot be read: remove the folder and convert again") from error
    if trees.sha256(variables) != provenance["sha256"]:
        raise UserError(f"the checkpoint in {directory} is damaged: remove the folder and convert again")
    return variables, provenance
