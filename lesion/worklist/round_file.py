"""The folder of a round: the queried slices, the pictures to show beside them, and the answers so far."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from lesion import files
from lesion.classes import PAPER, Classes
from lesion.errors import UserError
from lesion.worklist import FOLDER, csv_file, journal
from lesion.worklist.journal import Entry, JournalState

FILE = "round.json"
CLOSED = "closed.json"
PICTURES = "pictures"


class StackSlice(NamedTuple):
    """A slice in the stack of a patient and a sequence: its picture's file name, and its height in mm or None."""

    picture: str
    position_mm: float | None


class Item(NamedTuple):
    """A queried slice.

    Attributes:
        slice: pseudonymous id of the slice.
        patient: index of the patient in `Round.stacks`, from 0.
        place: index of the slice in the patient's stack of the round's sequence, from 0.
    """

    slice: str
    patient: int
    place: int


class Round(NamedTuple):
    """A round of queries; the fields are the keys of round.json.

    Attributes:
        number: number of the round, from 0.
        sequence: `flair`, `ce_t1wi` or `t2wi`.
        phantom: whether the slices are simulated, or "mixed".
        command: the command to run once all items are answered.
        patients: pseudonyms of the patients.
        stacks: {sequence: slices in anatomical order} for each patient.
        items: queried slices in reading order.
        classes: the classes that are told apart.
    """

    number: int
    sequence: str
    phantom: bool | str
    command: str
    patients: list[str]
    stacks: list[dict[str, list[StackSlice]]]
    items: list[Item]
    classes: Classes = PAPER

    def picture(self, item: Item) -> str:
        """Returns the file name of an item's own picture."""
        return self.stacks[item.patient][self.sequence][item.place].picture


def folder_of(workdir: Path, number: int) -> Path:
    """Returns the folder of a round."""
    return workdir / FOLDER / f"round_{number:03d}"


def write(workdir: Path, round_: Round) -> None:
    """Writes the folder of a round with its worklist.csv, whole or not at all; leaves an existing one alone."""
    folder = folder_of(workdir, round_.number)
    if folder.exists():
        return
    with files.new_folder(folder) as partial:
        (partial / FILE).write_text(json.dumps(round_._asdict()))
        rows = ((item.slice, round_.patients[item.patient], round_.picture(item)) for item in round_.items)
        csv_file.write(partial / csv_file.FILE, rows)


def numbers(workdir: Path) -> list[int]:
    """Returns the numbers of the rounds queried so far, in order."""
    folders = (path for path in (workdir / FOLDER).glob("round_*") if path.is_dir())
    return sorted(int(match[1]) for path in folders if (match := re.fullmatch(r"round_(\d+)", path.name)))


def newest(workdir: Path) -> Round:
    """Reads the newest round.

    Raises:
        UserError: if no round was queried, or the newest is damaged.
    """
    queried = numbers(workdir)
    if not queried:
        raise UserError(f"{workdir} has queried no round: begin with launch.active --config=configs/doctor.py")
    return read(folder_of(workdir, queried[-1]))


def read(folder: Path) -> Round:
    """Reads a round from its folder, see `write`.

    Raises:
        UserError: if it is damaged.
    """
    try:
        fields = files.read_json(folder / FILE)
        stacks = [
            {sequence: [StackSlice(*values) for values in stack] for sequence, stack in patient.items()}
            for patient in fields["stacks"]
        ]
        items = [Item(*values) for values in fields["items"]]
        return Round(**fields | {"stacks": stacks, "items": items, "classes": Classes.of(fields)})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / FILE} is damaged: remove {folder}, launch.active writes it again") from error


def answers(round_: Round, state: JournalState) -> dict[str, str]:
    """Returns {slice: label or `skip`} of the items answered so far."""
    entries = {item.slice: state.answer(round_.number, item.slice) for item in round_.items}
    return {slice_: entry.label for slice_, entry in entries.items() if entry}


def num_open(workdir: Path, round_: Round) -> int:
    """Returns the number of items without an answer."""
    return len(round_.items) - len(answers(round_, journal.read(workdir / FOLDER)))


def close(workdir: Path, round_: Round) -> dict[str, str] | None:
    """Closes a round if it is fully answered: its answers do not change after that, so they may be trained on.

    Returns:
        {slice: label or `skip`}, or None while some items have no answer.
    """
    path = folder_of(workdir, round_.number) / CLOSED
    if not path.exists():
        with journal.locked(workdir / FOLDER) as state:
            labels = answers(round_, state)
            if len(labels) < len(round_.items):
                return None
            files.write_text(path, json.dumps(labels, indent=1) + "\n")
    return closed_answers(workdir, round_.number)


def closed_answers(workdir: Path, number: int) -> dict[str, str] | None:
    """Reads the answers of a closed round, {slice: label or `skip`}; None if the round is open.

    Raises:
        UserError: if they are damaged.
    """
    path = folder_of(workdir, number) / CLOSED
    try:
        return dict(files.read_json(path)) if path.exists() else None
    except ValueError as error:
        raise UserError(f"{path} is damaged: restore the file from a copy") from error


def import_worklist(workdir: Path, round_: Round, path: Path) -> str:
    """Adds the answers of a filled-in worklist to the journal; returns a message with their number.

    Raises:
        UserError: if the table is wrong (see `csv_file.read`), if the page or another worklist gave another answer to a
            slice, or if the round is closed and the file has new answers. Nothing is added then.
    """
    rows = csv_file.read(path, [item.slice for item in round_.items], round_.classes)
    new: list[Entry] = []

    def decide(state: JournalState) -> list[Entry]:
        new.extend(csv_file.diff(path, rows, round_.number, state))
        if new and closed_answers(workdir, round_.number) is not None:
            raise UserError(f"{path}: round {round_.number + 1} is closed: its answers were trained on")
        return new

    journal.add(workdir / FOLDER, decide)
    left = num_open(workdir, round_)
    rest = f"{left} of {len(round_.items)} slices are left" if left else f"all are answered, go on: {round_.command}"
    return f"round {round_.number + 1}: {len(new)} new answers; {rest}"


def save_picture(workdir: Path, name: str, png: bytes) -> None:
    """Writes a picture unless it exists."""
    path = workdir / FOLDER / PICTURES / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            temporary.write_bytes(png)
