"""Checkpoints to go on from: Orbax, written beside the training, atomic, the newest few kept."""

import contextlib
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from flax import serialization
from jax.experimental import multihost_utils

from lesion import trees
from lesion.errors import UserError
from lesion.runs import checkpoint

TREE, RECORD = "tree", "record"


class Saved(NamedTuple):
    """A checkpoint: its number, a nested dictionary of arrays by name, and JSON beside it."""

    number: int
    tree: dict[str, Any]
    record: dict[str, Any]


class _Manager(ocp.CheckpointManager):
    """Orbax's, which asks by itself whether SIGTERM came; JAX counts the askings of all processes, see `Bell`."""

    def reached_preemption(self, step: int) -> bool:
        """Never: the loop asks."""
        del step
        return False


class Keeper:
    """Writes and finds the checkpoints of one fit. An I/O object: it holds the folder and Orbax's writer."""

    def __init__(self, folder: Path, keep: int) -> None:
        """`folder` gets one folder a checkpoint; the `keep` newest stay. Only the first process writes."""
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._manager = _Manager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                create=False,
                max_to_keep=keep,
                cleanup_tmp_directories=jax.process_index() == 0,
                multiprocessing_options=checkpoint.alone(),
            ),
            item_names=(TREE, RECORD),
        )

    def save(self, number: int, tree: dict[str, Any], record: dict[str, Any]) -> None:
        """Begins writing `tree`, NumPy arrays, and returns; a number that is there already is left alone.

        Raises:
            UserError: if the disk is too full.
        """
        if jax.process_index() or number in self._manager.all_steps():
            return
        # Asked beforehand: on a full disk Orbax's threads each print a traceback of their own.
        if shutil.disk_usage(self.folder).free < 1.1 * trees.num_bytes(tree) + 2**20:
            raise UserError(f"no space left for a checkpoint in {self.folder}: free some and run the command again")
        record = record | {"sha256": trees.sha256(tree)}
        items = ocp.args.Composite(tree=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record))
        self._manager.save(number, args=items)

    def last_path(self) -> Path | None:
        """Folder of the newest checkpoint that is wholly written."""
        self._manager.wait_until_finished()
        number = self._manager.latest_step()
        return None if number is None else self.folder / str(number)

    def newest(self, run: dict[str, Any]) -> Saved | None:
        """The checkpoint to go on from.

        Args:
            run: what its record must say it is of.

        Raises:
            UserError: if it is damaged; names it and the one before. If it is of another run.
        """
        numbers = sorted(self._manager.all_steps(), reverse=True)
        if not numbers:
            return None
        path = self.folder / str(numbers[0])
        reason = "its content is not what was written"
        try:
            tree = checkpoint.read_tree(path / TREE)
            record = self._manager.restore(numbers[0], args=ocp.args.Composite(record=ocp.args.JsonRestore()))[RECORD]
            if trees.sha256(tree) == record["sha256"]:
                _check_same(path, record["run"], run)
                return Saved(numbers[0], tree, record)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = str(error).partition("\n")[0][:120]
        before = f"go on from {self.folder / str(numbers[1])}" if len(numbers) > 1 else "begin anew"
        raise UserError(f"the checkpoint {path} is damaged ({reason}): remove that folder to {before}")

    def close(self, remove: bool = False) -> None:
        """Waits for what is being written; `remove` takes the checkpoints away: the fit is finished."""
        self._manager.wait_until_finished()
        self._manager.close()
        if remove and jax.process_index() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)


def _check_same(path: Path, there: dict[str, Any], now: dict[str, Any]) -> None:
    different = sorted(name for name in there.keys() | now.keys() if there.get(name) != now.get(name))
    if different:
        raise UserError(f"the checkpoint {path} is of another run ({different[0]} differs): name another --workdir")


def to_tree(state: Any) -> dict[str, Any]:
    """A NamedTuple of arrays as nested dictionaries by name; empty parts, which Orbax cannot keep, are left out."""
    return trees.unflatten(trees.flatten(serialization.to_state_dict(state)))


def from_tree(like: Any, tree: dict[str, Any]) -> Any:
    """The inverse of `to_tree`, for a state of the structure of `like`."""
    structure = trees.flatten(serialization.to_state_dict(like), keep_empty=True)
    return serialization.from_state_dict(like, trees.unflatten({**structure, **trees.flatten(tree)}))


class Bell:
    """Whether somebody asked the run to stop; with several processes all of them hear it at the same step."""

    def __init__(self) -> None:
        """Not rung yet."""
        self._event, self._asked = threading.Event(), 0

    def ring(self, *_: Any) -> None:
        """A signal handler."""
        self._event.set()

    def heard(self) -> bool:
        """Whether to stop now; all processes ask equally often, so that all get the same answer."""
        self._asked += 1
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(self._asked))
        return self._event.is_set()


@contextlib.contextmanager
def heed_sigterm() -> Iterator[Bell]:
    """Inside, SIGTERM rings the bell instead of ending the process at once."""
    bell = Bell()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield bell  # JAX's own coordination listens to the signal
        return
    before = signal.signal(signal.SIGTERM, bell.ring)
    try:
        yield bell
    finally:
        signal.signal(signal.SIGTERM, before)
