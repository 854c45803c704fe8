"""The folder of a round: what is asked, what to show beside it, and how far the answers are."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from lesion import files
from lesion.errors import UserError
from lesion.worklist import FOLDER, csv_file, journal
from lesion.worklist.journal import Entry, Held

FILE = "round.json"
CLOSED = "closed.json"
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
    with files.new_folder(folder) as partial:
        (partial / FILE).write_text(json.dumps(this._asdict()))
        rows = ((item.slice, this.patients[item.patient], this.picture(item)) for item in this.items)
        csv_file.write(partial / csv_file.FILE, rows)


def numbers(workdir: Path) -> list[int]:
    """Of the rounds that were asked, in order."""
    found = (re.fullmatch(r"round_(\d+)", path.name) for path in (workdir / FOLDER).glob("round_*") if path.is_dir())
    return sorted(int(match[1]) for match in found if match)


def newest(workdir: Path) -> Round:
    """The round that is asked now.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    there = numbers(workdir)
    if not there:
        raise UserError(f"{workdir} asks no doctor: begin with launch.active --config=configs/doctor.py")
    return read(folder_of(workdir, there[-1]))


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


def answers(this: Round, held: Held) -> dict[str, str]:
    """Labels by slice id, or `skip`, of those answered so far."""
    found = {item.slice: held.answer(this.number, item.slice) for item in this.items}
    return {slice_: entry.label for slice_, entry in found.items() if entry}


def num_open(workdir: Path, this: Round) -> int:
    """Slices that are not answered yet."""
    return len(this.items) - len(answers(this, journal.read(workdir / FOLDER)))


def close(workdir: Path, this: Round) -> dict[str, str] | None:
    """Takes a round's answers for good: labels by slice id, or `skip`; None while some are missing.

    From then on nothing changes them, whatever was trained on them stays true.
    """
    path = folder_of(workdir, this.number) / CLOSED
    if not path.exists():
        with journal.locked(workdir / FOLDER) as held:
            found = answers(this, held)
            if len(found) < len(this.items):
                return None
            files.write_text(path, json.dumps(found, indent=1) + "\n")
    return closed(workdir, this.number)


def closed(workdir: Path, number: int) -> dict[str, str] | None:
    """The answers that a round was closed with, None if it is open.

    Raises:
        UserError: if they are damaged.
    """
    path = folder_of(workdir, number) / CLOSED
    try:
        return dict(json.loads(path.read_text())) if path.exists() else None
    except ValueError as error:
        raise UserError(f"{path} is damaged: restore the file from a copy") from error


def take(workdir: Path, this: Round, path: Path) -> str:
    """Takes the answers of a filled-in worklist into the journal, and tells how many.

    Raises:
        UserError: see `worklist.read`; or the page, or another worklist, says otherwise of a slice; or the round is
            closed and the file says something new. Nothing is taken.
    """
    rows, source = csv_file.read(path, [item.slice for item in this.items]), csv_file.source(path)
    new: list[Entry] = []

    def decide(held: Held) -> list[Entry]:
        new.extend(csv_file.news(path, rows, source, this.number, held))
        if new and closed(workdir, this.number) is not None:
            raise UserError(f"{path}: round {this.number + 1} is closed: its answers were trained on")
        return new

    journal.add(workdir / FOLDER, decide)
    left = num_open(workdir, this)
    then = f"{left} of {len(this.items)} slices are left" if left else f"all are answered, go on: {this.command}"
    return f"round {this.number + 1}: {len(new)} new answers; {then}"


def save_picture(workdir: Path, name: str, png: bytes) -> None:
    """Keeps a picture unless it is there."""
    path = workdir / FOLDER / PICTURES / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            temporary.write_bytes(png)
