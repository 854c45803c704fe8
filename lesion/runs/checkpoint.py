"""Orbax checkpoints of variables, with their provenance in a JSON file beside them."""

import contextlib
import functools
import shlex
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
    """Returns options with which Orbax reads or writes in this process alone, without waiting for the others."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(process, {process}, f"process{process}")


def check_space(folder: Path, tree: dict) -> None:
    """Raises a one-line `UserError` if the disk of `folder` is too full for a checkpoint of arrays."""
    # Checked beforehand, because on a full disk each of Orbax's threads prints a traceback of its own.
    if shutil.disk_usage(folder).free < 1.1 * sum(array.nbytes for array in jax.tree.leaves(tree)) + 2**20:
        raise UserError(f"no space left for a checkpoint in {folder}: free some and run the same command again")


def save_variables(
    directory: Path | str,
    variables: dict,
    provenance: dict[str, Any],
    beside: Callable[[Path], None] = lambda folder: None,
) -> str:
    """Writes variables and their provenance to a folder, atomically; returns the variables' hash.

    Args:
        directory: the folder; it must not exist, unless it holds the same variables of the same provenance.
        variables: nested dictionaries of arrays.
        provenance: JSON-able record of their origin; their hash is added to it as `sha256`.
        beside: called with the folder before it is complete, to write further files into it.

    Raises:
        UserError: if `directory` holds anything else, or the disk is too full.
    """
    directory = Path(directory).absolute()
    record = {**provenance, "sha256": trees.sha256(variables)}
    if directory.exists():
        if (directory / PROVENANCE).exists() and files.read_json(directory / PROVENANCE) == record:
            return record["sha256"]
        raise UserError(f"{directory} exists and holds something else: name a new folder with --output")
    with files.new_folder(directory) as partial:
        check_space(directory.parent, variables)
        with ocp.StandardCheckpointer(multiprocessing_options=alone()) as checkpointer:
            checkpointer.save(partial / VARIABLES, variables)
        beside(partial)
        files.write_json(partial / PROVENANCE, record)
    return record["sha256"]


def read_provenance(directory: Path) -> dict[str, Any]:
    """Returns the provenance of a checkpoint of `save_variables`; raises a `UserError` if there is none."""
    if not (directory / PROVENANCE).exists():
        flag = shlex.quote(f"--output={directory}")
        raise UserError(f"no weights in {directory}: make them with launch.convert_weights {flag}")
    return files.read_json(directory / PROVENANCE)


def read_tree(path: Path) -> dict:
    """Returns an Orbax checkpoint as nested dictionaries of NumPy arrays, whose structure its names give."""
    with quiet(), ocp.StandardCheckpointer(multiprocessing_options=alone()) as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata.tree
        like = trees.unflatten({k: np.zeros(m.shape, m.dtype) for k, m in trees.flatten(metadata).items()})
        return checkpointer.restore(path, like)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences Orbax's warnings, among them that one item of a checkpoint lacks the metadata of the whole."""
    _silence_closed_loops()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@functools.cache
def _silence_closed_loops() -> None:
    """Silences, for the rest of the process, what threads print about a closed event loop.

    When an array cannot be read, Orbax closes its event loop. TensorStore's threads, which are still reading other
    arrays, then print a traceback each, and asyncio prints other failures, some of them long after the error that
    callers see.
    """
    getLogger("asyncio").addFilter(lambda record: "exception was never retrieved" not in record.getMessage())
    default_hook = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
            default_hook(unraisable)

    sys.unraisablehook = hook


def load_variables(directory: Path | str) -> tuple[dict, dict[str, Any]]:
    """Returns the variables of a checkpoint of `save_variables`, as NumPy arrays, and their provenance.

    Raises:
        UserError: if there is no such checkpoint, or its content differs from what was written.
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
