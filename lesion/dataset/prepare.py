"""Turns a DICOM tree into a dataset, everything or nothing: the work of `launch/prepare.py`.

    scan (headers, all files) → find stacks (tables, duplicates, series) → render (pixels, a stack at a time) → write

The output is built in a hidden folder beside it and renamed at the end. What names a patient goes to the private
folder only.
"""

import collections
import errno
import hashlib
import hmac
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lesion import files
from lesion.dataset import LABELS, LABELS_OR_NONE, SEQUENCES, UNLABELED, preprocess, pseudonyms, qc_figures, store
from lesion.dataset.render import RenderedSlice, render_stacks
from lesion.dicom import scan, tables
from lesion.dicom.scan import ListedFile, Stack
from lesion.errors import UserError

Records = dict[str, list[store.Record]]  # by sequence


def prepare(folder: Path, output: Path, private: Path, strict: bool = False) -> str:
    """Turns a DICOM tree with its tables into a dataset.

    Args:
        folder: the tree, with patients.csv and perhaps slices.csv, series.csv and readers.csv.
        output: the dataset's folder; must not exist, be empty, or hold this very dataset.
        private: for key, pseudonym table and rejects.csv; made if missing.
        strict: stop at the first broken file.

    Returns:
        One paragraph for the user; it names no file and no patient of the tree.

    Raises:
        UserError: a table or the tree is wrong (see `lesion.dicom`), no slice is left, or `output` holds something
            else.
        OSError: a full disk; nothing is left behind.
    """
    user = tables.read_tables(folder)
    _check_folders(folder, output, private)
    key = pseudonyms.read_key(private)
    listing = scan.list_files(folder, leave_out=(private, output))
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        return _check_up_to_date(folder, output, listing, key)
    key = key or pseudonyms.new_key()
    stamp = _stamp(key, folder, listing)  # before the files are read: one that changes meanwhile is noticed next time

    scanned = scan.scan_files(folder, listing, strict)
    stacks, unused = scan.find_stacks(folder, scanned, user)
    if not stacks:
        raise UserError(
            f"{folder} has MR images, but no chosen slice of {', '.join(SEQUENCES)}: tell the sequences in "
            f"{tables.SERIES} (series_instance_uid,sequence), the slices in {tables.SLICES}"
        )
    rendered, undecodable = render_stacks(stacks, strict)
    rejected = scanned.rejected + undecodable

    slices = [slice_ for of_stack in rendered for slice_ in of_stack]
    patients = pseudonyms.pseudonymize(key, "patient", (slice_.patient_id for slice_ in slices))
    slice_ids = pseudonyms.pseudonymize(key, "slice", (slice_.original_id for slice_ in slices))
    records = _make_records(stacks, rendered, user.labels, patients, slice_ids)
    _check_classes(folder, records)
    every_record = [record for of_sequence in records.values() for record in of_sequence]
    readers, answers = _pseudonymize_readers(user, patients)
    info = {
        "phantom": _phantom_mark(stacks),
        "fingerprint": _fingerprint(records),
        "sequences": {name: _count(records[name]) for name in sorted(records)},
        "patients": {name: counts["patients"] for name, counts in _count(every_record).items()},
        "files_read": len(listing),
        "skipped": _tally(file.reason for file in [*scanned.skipped, *unused]),
        "rejected": _tally(file.kind for file in rejected),
        "labeled_patients_without_slices": sum(
            label != UNLABELED and patient_id not in patients for patient_id, label in user.labels.items()
        ),
        "listed_slices_not_found": len(scan.slices_not_found(scanned, user)),
        "preprocess": preprocess.settings(),
        "stamp": stamp,
    }
    if answers:
        info["readers"] = dict(collections.Counter(reader for _, reader, _ in answers))
    _write(output, records, info, qc_figures.pick_examples(stacks, rendered), answers)

    kinds = {"patient": patients, "slice": slice_ids, "reader": readers}
    table = [pseudonyms.Row(name, kind, original) for kind in kinds for original, name in kinds[kind].items()]
    try:
        pseudonyms.save(private, key, table, rejected)
    except BaseException:  # a dataset whose pseudonyms nobody can resolve is no use
        shutil.rmtree(output, ignore_errors=True)
        raise
    return _summary(info, output, private)


def _make_records(
    stacks: Sequence[Stack],
    rendered: Sequence[Sequence[RenderedSlice]],
    labels: dict[str, int],
    patients: dict[str, str],
    slice_ids: dict[str, str],
) -> Records:
    """Returns the records of all slices by sequence, under the pseudonyms of patients and slices."""
    lowest = _lowest_positions(slice_ for of_stack in rendered for slice_ in of_stack)
    records: Records = collections.defaultdict(list)
    for stack, slices in zip(stacks, rendered, strict=True):
        for slice_ in slices:
            record = store.Record(
                slice_id=slice_ids[slice_.original_id],
                patient=patients[slice_.patient_id],
                label=labels.get(slice_.patient_id, UNLABELED),
                image=slice_.png,
                spacing_mm=preprocess.output_spacing(slice_.plan),
                digest=slice_.digest,
                position_mm=round(slice_.position_mm - lowest.get(slice_.patient_id, 0.0), 1),
            )
            records[stack.sequence].append(record)
    return records


def _lowest_positions(slices: Iterable[RenderedSlice]) -> dict[str, float]:
    """Returns where each patient's lowest slice lies: heights are told from there, whatever the scanner's origin."""
    lowest: dict[str, float] = {}
    for slice_ in slices:
        if math.isfinite(slice_.position_mm):
            lowest[slice_.patient_id] = min(lowest.get(slice_.patient_id, math.inf), slice_.position_mm)
    return lowest


def _pseudonymize_readers(
    user: tables.UserTables, patients: dict[str, str]
) -> tuple[dict[str, str], list[tuple[str, str, int]]]:
    """Returns the readers' pseudonyms in the order of the file, and their (patient, reader, label), sorted.

    A reader is a person as well; that one is simulated is no secret, and must not be lost. Answers on patients without
    a usable slice are left out: nothing is compared there.
    """
    names = {}
    for number, reader in enumerate(dict.fromkeys(reader for reader, _ in user.readers), start=1):
        names[reader] = f"{'simulated_' if reader.lower().startswith(tables.SIMULATED) else ''}reader_{number}"
    answers = [
        (patients[patient_id], names[reader], label)
        for (reader, patient_id), (label, _) in user.readers.items()
        if patient_id in patients
    ]
    return names, sorted(answers)


def _phantom_mark(stacks: Sequence[Stack]) -> bool | str:
    """Returns True if every used image is marked as of a phantom, False if none is, else "mixed"."""
    marks = {member.instance.phantom for stack in stacks for member in stack.members if member.chosen}
    return "mixed" if len(marks) > 1 else marks == {True}


def _count(records: Sequence[store.Record]) -> dict[str, dict[str, int]]:
    """Returns the numbers of patients and slices by label, every label present."""
    counts = {}
    for name, label in LABELS_OR_NONE.items():
        patients = [record.patient for record in records if record.label == label]
        counts[name] = {"patients": len(set(patients)), "slices": len(patients)}
    return counts


def _tally(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(collections.Counter(words).items()))


def _fingerprint(records: Records) -> str:
    """Returns a SHA-256 over (sequence, slice id, label, digest of the pixels), sorted: it identifies the dataset."""
    rows = sorted((name, r.slice_id, r.label, r.digest) for name, of_sequence in records.items() for r in of_sequence)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _stamp(key: bytes, folder: Path, listing: Sequence[ListedFile]) -> str:
    """Returns a hash of the inputs and of what is done to them; keyed, so that it confirms no guess about a patient."""
    parts: list[object] = [listing, scan.VERSION, sorted(preprocess.SETTINGS.items())]
    for name in (tables.PATIENTS, tables.SLICES, tables.SERIES):
        path = folder / name
        parts.append(path.read_bytes().hex() if path.exists() else None)
    if (folder / tables.READERS).exists():  # left out without one, so that datasets made before there were any hold
        parts.append((folder / tables.READERS).read_bytes().hex())
    return hmac.new(key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()


def _check_folders(folder: Path, output: Path, private: Path) -> None:
    """Raises a UserError if the dataset would lie around the patients' listing or around the key."""
    source, target, secret = folder.resolve(), output.resolve(), private.resolve()
    if source == target or target in source.parents:
        raise UserError(f"--output={output} contains the DICOM tree: name a folder of its own")
    if secret == target or target in secret.parents:
        raise UserError(f"--private={private} lies in the output, which is meant to be shared: name another folder")
    if secret == source:
        raise UserError(f"--private={private} is the DICOM tree itself: name a folder inside it or elsewhere")


def _check_up_to_date(folder: Path, output: Path, listing: Sequence[ListedFile], key: bytes | None) -> str:
    """Returns the message that there is nothing to do; raises a UserError if `output` holds anything else."""
    if not output.is_dir() or not (output / store.INFO_FILE).exists():
        raise UserError(f"{output} holds something that is no dataset of this program: name a new folder with --output")
    info = store.load_info(output)
    if key is None or info.get("stamp") != _stamp(key, folder, listing):
        raise UserError(
            f"{output} was prepared from other inputs, or these have changed since: name a new --output, or delete it"
        )
    return f"{output} is up to date: nothing to do"


def _check_classes(folder: Path, records: Records) -> None:
    labels = {record.label for of_sequence in records.values() for record in of_sequence}
    for name, label in LABELS.items():
        if label not in labels:
            raise UserError(f"no slice of a patient with {name} is left in {folder}: see slices.csv and patients.csv")


def _write(
    output: Path,
    records: Records,
    info: dict[str, Any],
    examples: list[qc_figures.Example],
    answers: list[tuple[str, str, int]],
) -> None:
    try:
        with files.new_folder(output) as partial:
            for sequence in sorted(records):
                store.write(partial, sequence, records[sequence])
            qc_figures.draw_preprocessing(partial / "preprocessing.png", examples, phantom=info["phantom"])
            qc_figures.draw_cohort(partial / "cohort.png", records, phantom=info["phantom"])
            if answers:
                files.write_csv(partial / store.READERS_FILE, ("patient", "reader", "label"), answers)
            files.write_text(partial / store.INFO_FILE, json.dumps(info, indent=1) + "\n")
    except Exception as error:
        # The record writer is C++ and tells of a full disk in words only.
        if "no space left" in str(error).lower() and not isinstance(error, OSError):
            raise OSError(errno.ENOSPC, "No space left on device", str(output)) from error
        raise


def _summary(info: dict[str, Any], output: Path, private: Path) -> str:
    lines = [f"{info['files_read']} files read"]
    for word in ("skipped", "rejected"):
        if info[word]:
            lines.append(f"{word}: " + ", ".join(f"{count} × {reason}" for reason, count in info[word].items()))
    for name, labels in info["sequences"].items():
        parts = [f"{c['slices']} slices of {c['patients']} {label}" for label, c in labels.items() if c["slices"]]
        lines.append(f"{name}: " + ", ".join(parts))
    if info.get("readers"):
        lines.append("answers of " + ", ".join(f"{name}: {count}" for name, count in sorted(info["readers"].items())))
    if info["phantom"] == "mixed":
        lines.append("warning: phantom and patient images are mixed")
    if info["labeled_patients_without_slices"]:
        lines.append(f"{info['labeled_patients_without_slices']} labelled patients have no chosen slice")
    if info["listed_slices_not_found"]:
        lines.append(f"{info['listed_slices_not_found']} rows of slices.csv name no readable image: see rejects.csv")
    return "\n".join([*lines, f"dataset: {output}", f"key, pseudonyms and rejects.csv: {private}"])
