"""The folder of a round: the queried slices, the pictures to show beside them, and the answers so far."""

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lesion import files
from lesion.classes import PAPER, Classes
from lesion.errors import UserError
from lesion.worklist import CANNOT_TELL, CONTRADICTION, FOLDER, UNDO, csv_file, journal
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
        digest: hash of the slice's id and its picture, which an answer repeats; `write` fills it in.
    """

    slice: str
    patient: int
    place: int
    digest: str = ""


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
        fit: number of the fit, from 0, that the answers go into: rounds that ask again have that of another.
        again: why the slices are asked again: `contradiction`, `cannot_tell`; "" where they are new.
        said: {label: number of slices} that were said of each patient before.
        contradictions: what becomes of a patient with both classes, see `answers.SETTLED_BY`.
    """

    number: int
    sequence: str
    phantom: bool | str
    command: str
    patients: list[str]
    stacks: list[dict[str, list[StackSlice]]]
    items: list[Item]
    classes: Classes = PAPER
    fit: int = 0
    again: str = ""
    said: Sequence[dict[str, int]] = ()
    contradictions: str = "ask"

    @property
    def title(self) -> str:
        """What the round is called where a person reads it."""
        reason = {CONTRADICTION: "contradictions are asked again", CANNOT_TELL: "what could not be told is asked again"}
        return f"round {self.fit + 1}" + (f" ({reason[self.again]})" if self.again else "")

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

    def digest(item: Item) -> str:
        png = (workdir / FOLDER / PICTURES / round_.picture(item)).read_bytes()
        return hashlib.sha256(item.slice.encode() + b"\0" + png).hexdigest()[:16]

    round_ = round_._replace(items=[item._replace(digest=digest(item)) for item in round_.items])
    with files.new_folder(folder) as partial:
        (partial / FILE).write_text(json.dumps(round_._asdict()))
        rows = ((item.slice, round_.patients[item.patient], round_.picture(item)) for item in round_.items)
        csv_file.write(partial / csv_file.FILE, rows)


def numbers(workdir: Path) -> list[int]:
    """Returns the numbers of the rounds queried so far, in order."""
    folders = (path for path in (workdir / FOLDER).glob("round_*") if path.is_dir())
    return sorted(int(match[1]) for path in folders if (match := re.fullmatch(r"round_(\d+)", path.name)))


def folders(workdir: Path) -> list[Path]:
    """Returns the folders of the rounds queried so far, in order."""
    return [folder_of(workdir, number) for number in numbers(workdir)]


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
        command = command_in(folder.parents[1], fields["command"])
        read = {"stacks": stacks, "items": items, "classes": Classes.of(fields), "command": command}
        return Round(**fields | read)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / FILE} is damaged: remove {folder}, launch.active writes it again") from error


def entries(round_: Round, state: JournalState) -> list[Entry]:
    """Returns the answers to a round's items that count, in the order in which they were given."""
    found = (state.answer(round_.number, item.slice) for item in round_.items)
    order = {id_: number for number, id_ in enumerate(state.entries)}
    return sorted((entry for entry in found if entry), key=lambda entry: order[entry.id])


def command_in(workdir: Path, command: str) -> str:
    """Returns a recorded command with the run's present folder as its --workdir: the run may have been moved since."""
    words = shlex.split(command)
    for i, word in enumerate(words):
        if word in ("--workdir", "-workdir"):
            words[i + 1 : i + 2] = [str(workdir)]
        elif word.startswith(("--workdir=", "-workdir=")):
            words[i] = f"--workdir={workdir}"
    return shlex.join(words)


def answers(round_: Round, state: JournalState) -> dict[str, str]:
    """Returns {slice: label} of the items answered so far."""
    return {entry.slice: entry.label for entry in entries(round_, state)}


def num_open(workdir: Path, round_: Round) -> int:
    """Returns the number of items without an answer."""
    return len(round_.items) - len(answers(round_, journal.read(workdir / FOLDER)))


def close(workdir: Path, round_: Round) -> dict[str, str] | None:
    """Closes a round if it is fully answered: its answers do not change after that, so they may be trained on.

    Returns:
        {slice: label}, or None while some items have no answer.
    """
    path = folder_of(workdir, round_.number) / CLOSED
    if not path.exists():
        with journal.locked(workdir / FOLDER) as state:
            given = entries(round_, state)
            if len(given) < len(round_.items):
                return None
            files.write_json(path, [entry._asdict() for entry in given])
    return closed_answers(workdir, round_.number)


def closed_answers(workdir: Path, number: int) -> dict[str, str] | None:
    """Returns {slice: label} of a closed round, None if it is open; see `closed_entries`."""
    closed = closed_entries(workdir, number)
    return None if closed is None else {entry.slice: entry.label for entry in closed}


def closed_entries(workdir: Path, number: int) -> list[Entry] | None:
    """Reads the answers of a closed round, in the order in which they were given; None if the round is open.

    Raises:
        UserError: if they are damaged.
    """
    path = folder_of(workdir, number) / CLOSED
    try:
        return [Entry(**fields) for fields in files.read_json(path)] if path.exists() else None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: restore the file from a copy") from error


def import_worklist(workdir: Path, round_: Round, path: Path) -> str:
    """Adds the answers of a filled-in worklist to the journal; returns a message with their number.

    Raises:
        UserError: if the table is wrong (see `csv_file.read`), if the page or another worklist gave another answer to a
            slice, or if the round is closed and the file has new answers. Nothing is added then.
    """
    rows = csv_file.read(path, [item.slice for item in round_.items], round_.classes)
    found: list[csv_file.Difference] = []

    def decide(state: JournalState) -> list[Entry]:
        found.append(csv_file.diff(workdir, path, rows, round_.number, state))
        if found[0].entries and closed_entries(workdir, round_.number) is not None:
            raise UserError(f"{path}: {round_.title} is closed: its answers were trained on")
        return found[0].entries

    journal.add(workdir / FOLDER, decide)
    (new, num_emptied), left = found[0], num_open(workdir, round_)
    num_back = sum(bool(entry.undoes) for entry in new)
    rest = f"{left} of {len(round_.items)} slices are left" if left else f"all are answered, go on: {round_.command}"
    told = [f"{round_.title}: {len(new) - num_back} new answers"]
    told += [f"{num_back} taken back"] * bool(num_back)
    kept = f"{num_emptied} emptied cells change nothing: the word {UNDO} there takes the answer back"
    return "; ".join([*told, *[kept] * bool(num_emptied), rest])


def save_picture(workdir: Path, name: str, png: bytes) -> None:
    """Writes a picture unless it exists."""
    path = workdir / FOLDER / PICTURES / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            temporary.write_bytes(png)
