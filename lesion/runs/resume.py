"""Checkpoints from which a fit resumes: written by Orbax, atomically, while training goes on; the newest are kept."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp
from flax import serialization

from lesion import trees
from lesion.errors import UserError
from lesion.runs import checkpoint, processes

TREE, RECORD = "tree", "record"


class Checkpoint(NamedTuple):
    """A checkpoint: its number, nested dictionaries of NumPy arrays, and a JSON record beside them."""

    number: int
    tree: dict[str, Any]
    record: dict[str, Any]


class _Manager(ocp.CheckpointManager):
    """Orbax's manager without its own check for SIGTERM: JAX counts such checks, see `StopSignal.requested`."""

    def reached_preemption(self, step: int) -> bool:
        """Returns False, since the training loop checks for itself."""
        del step
        return False


class Checkpointer:
    """Writes and restores the checkpoints of one fit. An I/O object: it holds the folder and Orbax's writer."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Takes the folder of the checkpoints and how many of the newest to keep; only the first process writes."""
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._manager = _Manager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                create=False,
                max_to_keep=keep,
                cleanup_tmp_directories=processes.is_first(),
                multiprocessing_options=checkpoint.alone(),
            ),
            item_names=(TREE, RECORD),
        )

    def save(self, number: int, tree: dict[str, Any], record: dict[str, Any]) -> None:
        """Begins to write NumPy arrays and a record, and returns; a checkpoint that exists is not written again.

        All processes must call it; none returns before the first, which may have to wait for a slow disk.

        Raises:
            UserError: if the disk is too full.
        """
        if processes.is_first() and number not in self._manager.all_steps():
            checkpoint.check_space(self.folder, tree)
            record = record | {"sha256": trees.sha256(tree)}
            items = ocp.args.Composite(tree=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record))
            self._manager.save(number, args=items)
        processes.wait_for_all("checkpoint")

    def latest_path(self) -> Path | None:
        """Returns the folder of the newest checkpoint after waiting until it is complete; None if there is none."""
        self._manager.wait_until_finished()
        number = self._manager.latest_step()
        return None if number is None else self.folder / str(number)

    def restore_latest(self, run: dict[str, Any]) -> Checkpoint | None:
        """Returns the newest checkpoint; None if there is none.

        Args:
            run: the run's description, which must equal `run` in the checkpoint's record.

        Raises:
            UserError: if the checkpoint is of another run, or damaged; then the message names the one before it too.
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
        """Waits until all is written; with `remove` deletes the checkpoints, which a finished fit no longer needs."""
        self._manager.wait_until_finished()
        self._manager.close()
        if remove and processes.is_first():
            shutil.rmtree(self.folder, ignore_errors=True)


def _check_same_run(path: Path, recorded: dict[str, Any], run: dict[str, Any]) -> None:
    different = sorted(name for name in recorded.keys() | run.keys() if recorded.get(name) != run.get(name))
    if different:
        raise UserError(f"the checkpoint {path} is of another run ({different[0]} differs): name another --workdir")


def to_tree(state: Any) -> dict[str, Any]:
    """Returns a state as nested dictionaries of arrays, without its empty parts, which Orbax cannot store."""
    return trees.unflatten(trees.flatten(serialization.to_state_dict(state)))


def from_tree(like: Any, tree: dict[str, Any]) -> Any:
    """Returns the state that `to_tree` made `tree` of; `like` is any state of the same structure."""
    structure = trees.flatten(serialization.to_state_dict(like), keep_empty=True)
    return serialization.from_state_dict(like, trees.unflatten({**structure, **trees.flatten(tree)}))
