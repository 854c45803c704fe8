"""The folder of a round: what is asked, what to show beside it, and how far the answers are."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from lesion.annotate import FOLDER, journal, worklist
from lesion.errors import UserError

FILE = "round.json"
PICTURES = "pictures"


class Shown(NamedTuple):
    """A picture beside others of its patient and sequence, in anatomical order: file name, height in mm or None."""

    picture: str
    position_mm: float | None


class Item(NamedTuple):
    """A slice that is asked for.

    Attributes:
        slice: its pseudonymous id.
        patient: number in `Round.stacks`.
        place: number in its patient's stack of the round's sequence.
    """

    slice: str
    patient: int
    place: int


class Round(NamedTuple):
    """What is asked.

    Attributes:
        number: from 0.
        sequence: `flair`, `ce_t1wi` or `t2wi`.
        phantom: whether the slices are simulated, or "mixed".
        command: that goes on when all is answered.
        patients: pseudonyms.
        stacks: of each patient, {sequence: what there is of it}.
        items: in the order of reading.
    """

    number: int
    sequence: str
    phantom: bool | str
    command: str
    patients: list[str]
    stacks: list[dict[str, list[Shown]]]
    items: list[Item]

    def picture(self, item: Item) -> str:
        """File name of an item's own picture."""
        return self.stacks[item.patient][self.sequence][item.place].picture


def folder_of(workdir: Path, index: int) -> Path:
    """Of a round."""
    return workdir / FOLDER / f"round_{index:03d}"


def write(workdir: Path, this: Round) -> None:
    """Makes the folder of a round with its worklist.csv, whole or not at all; one that is there is left alone."""
    folder = folder_of(workdir, this.number)
    if folder.exists():
        return
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=workdir / FOLDER))
    try:
        partial.chmod(0o755)
        (partial / FILE).write_text(json.dumps(this._asdict()))
        rows = ((item.slice, this.patients[item.patient], this.picture(item)) for item in this.items)
        worklist.write(partial / worklist.FILE, rows)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def newest(workdir: Path) -> Round:
    """The round that is asked now.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    folders = sorted((workdir / FOLDER).glob("round_*"))
    if not folders:
        raise UserError(f"{workdir} asks no doctor: begin with launch.active --config=configs/doctor.py")
    return read(folders[-1])


def read(folder: Path) -> Round:
    """What `write` wrote.

    Raises:
        UserError: if it is damaged.
    """
    try:
        fields: dict[str, Any] = json.loads((folder / FILE).read_text())
        stacks = [{name: [Shown(*x) for x in stack] for name, stack in one.items()} for one in fields["stacks"]]
        return Round(**fields | {"stacks": stacks, "items": [Item(*item) for item in fields["items"]]})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / FILE} is damaged: remove {folder}, launch.active writes it again") from error


def answers(workdir: Path, this: Round) -> dict[str, str]:
    """Labels by slice id, or `skip`, of those answered so far."""
    held = journal.read(workdir / FOLDER)
    found = {item.slice: held.answer(this.number, item.slice) for item in this.items}
    return {slice_: entry.label for slice_, entry in found.items() if entry}


def take(workdir: Path, this: Round, path: Path) -> str:
    """Takes the answers of a filled-in worklist, see `worklist.take`, and tells how many."""
    new = worklist.take(workdir / FOLDER, path, this.number, [item.slice for item in this.items])
    left = len(this.items) - len(answers(workdir, this))
    then = f"{left} of {len(this.items)} slices are left" if left else f"all are answered, go on: {this.command}"
    return f"round {this.number + 1}: {new} new answers; {then}"


def save_picture(workdir: Path, name: str, png: bytes) -> None:
    """Keeps a picture unless it is there."""
    path = workdir / FOLDER / PICTURES / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{name}.{os.getpid()}")
        temporary.write_bytes(png)
        temporary.replace(path)
