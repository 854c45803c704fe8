"""Checkpoints that a fit goes on from: Orbax, written beside the training, atomic, the newest few kept."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from flax import serialization

from lesion import trees
from lesion.errors import UserError
from lesion.runs import checkpoint

TREE, RECORD = "tree", "record"


class Checkpoint(NamedTuple):
    """A checkpoint: its number, a nested dictionary of arrays by name, and JSON beside it."""

    number: int
    tree: dict[str, Any]
    record: dict[str, Any]


class _Manager(ocp.CheckpointManager):
    """Orbax's, which asks by itself whether SIGTERM came; JAX counts all processes' requests, see `StopSignal`."""

    def reached_preemption(self, step: int) -> bool:
        """Returns False: the loop asks."""
        del step
        return False


class Checkpointer:
    """Writes and finds the checkpoints of one fit. An I/O object: it holds the folder and Orbax's writer."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Takes the folder, which gets one a checkpoint, and how many of the newest stay; the first process writes."""
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

    def latest_path(self) -> Path | None:
        """Returns the folder of the newest checkpoint, once it is wholly written."""
        self._manager.wait_until_finished()
        number = self._manager.latest_step()
        return None if number is None else self.folder / str(number)

    def restore_latest(self, run: dict[str, Any]) -> Checkpoint | None:
        """Returns the checkpoint to go on from; None if there is none.

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
                _check_same_run(path, record["run"], run)
                return Checkpoint(numbers[0], tree, record)
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


def _check_same_run(path: Path, recorded: dict[str, Any], run: dict[str, Any]) -> None:
    different = sorted(name for name in recorded.keys() | run.keys() if recorded.get(name) != run.get(name))
    if different:
        raise UserError(f"the checkpoint {path} is of another run ({different[0]} differs): name another --workdir")


def to_tree(state: Any) -> dict[str, Any]:
    """Returns a NamedTuple of arrays as nested dictionaries; empty parts, which Orbax cannot keep, are left out."""
    return trees.unflatten(trees.flatten(serialization.to_state_dict(state)))


def from_tree(like: Any, tree: dict[str, Any]) -> Any:
    """Returns a state of the structure of `like` from what `to_tree` made of one."""
    structure = trees.flatten(serialization.to_state_dict(like), keep_empty=True)
    return serialization.from_state_dict(like, trees.unflatten({**structure, **trees.flatten(tree)}))
