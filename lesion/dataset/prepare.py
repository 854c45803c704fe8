"""The job of `launch/prepare.py`: a DICOM tree in, a dataset out, everything or nothing.

    scan (headers, all files) → choose (tables, duplicates, series) → picture (pixels, a series at a time) → write

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lesion import files
from lesion.dataset import LABELS, UNLABELED, preprocess, pseudonyms, qc_figures, render, store
from lesion.dicom import scan, tables
from lesion.errors import UserError

UNLABELED_NAME = "unlabeled"
_NAMES = {number: name for name, number in LABELS.items()} | {UNLABELED: UNLABELED_NAME}


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
        UserError: see `lesion.dicom.scan`; or `output` holds something else.
        OSError: a full disk; nothing is left behind.
    """
    inputs = scan.read_inputs(folder)
    _check_places(folder, output, private)
    key = pseudonyms.read_key(private)
    listing = scan.list_files(folder, leave_out=(private, output))
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        return _already_there(folder, output, listing, key)
    key = key or pseudonyms.new_key()
    mark = stamp(key, folder, listing)

    found = scan.scan(folder, listing, strict)
    series, left_out = scan.choose(folder, found, inputs)
    made_of, broken = render.picture_all(series, strict)
    patient_ids = {picture.patient_id for made in made_of for picture in made}
    patients = {original: pseudonyms.pseudonym(key, "patient", original) for original in patient_ids}
    records: dict[str, list[store.Record]] = collections.defaultdict(list)
    lowest = {patient_id: _lowest(made_of, patient_id) for patient_id in patient_ids}
    table = [(pseudonym, "patient", original) for original, pseudonym in patients.items()]
    for one, made in zip(series, made_of, strict=True):
        for picture in made:
            original = f"{picture.sop_uid}:{picture.number}"
            slice_id = pseudonyms.pseudonym(key, "slice", original)
            table.append((slice_id, "slice", original))
            record = store.Record(
                slice_id,
                patients[picture.patient_id],
                inputs.patients.get(picture.patient_id, UNLABELED),
                picture.png,
                preprocess.output_spacing(picture.plan),
                picture.digest,
                round(picture.position_mm - lowest[picture.patient_id], 1),
            )
            records[one.sequence].append(record)
    _check_classes(folder, records)
    readers, said = _readers(inputs, patients)
    table += [(pseudonym, "reader", original) for original, pseudonym in readers.items()]
    rejects = sorted(found.rejects + broken)
    skipped = collections.Counter(skip.reason for skip in [*found.skipped, *left_out])
    info = {
        "phantom": scan.phantom_share(series),
        "fingerprint": fingerprint(records),
        "sequences": {name: count(records[name]) for name in sorted(records)},
        "patients": {
            name: counts["patients"] for name, counts in count([r for rows in records.values() for r in rows]).items()
        },
        "files_read": len(listing),
        "skipped": dict(sorted(skipped.items())),
        "rejected": dict(sorted(collections.Counter(r.kind for r in rejects).items())),
        "labeled_patients_without_slices": sum(
            label != UNLABELED and patient not in patients for patient, label in inputs.patients.items()
        ),
        "listed_slices_not_found": len(scan.slices_not_found(found, inputs)),
        "preprocess": preprocess.settings(),
        "stamp": mark,
    }
    if said:
        info["readers"] = dict(collections.Counter(reader for _, reader, _ in said))
    examples = qc_figures.pick_examples(series, made_of)
    _write(output, records, info, examples, said)
    try:
        pseudonyms.save(private, key, sorted(table), [(r.file, f"{r.kind}: {r.reason}") for r in rejects])
    except BaseException:  # a dataset whose pseudonyms nobody can resolve is no use
        shutil.rmtree(output, ignore_errors=True)
        raise
    return _summary(info, output, private)


def _readers(inputs: scan.Inputs, patients: dict[str, str]) -> tuple[dict[str, str], list[tuple[str, str, int]]]:
    """The readers' pseudonyms in the order of the file, and (patient, reader, label) under pseudonyms, sorted.

    A reader is a person as well; that one is simulated is no secret, and must not be lost. Answers on patients without
    a usable slice are left out: nothing is compared there.
    """
    names = {}
    for number, reader in enumerate(dict.fromkeys(reader for reader, _ in inputs.readers), start=1):
        names[reader] = f"{'simulated_' if reader.lower().startswith(tables.SIMULATED) else ''}reader_{number}"
    said = [
        (patients[patient], names[reader], label)
        for (reader, patient), (label, _) in inputs.readers.items()
        if patient in patients
    ]
    return names, sorted(said)


def _lowest(made_of: Sequence[Sequence[render.Picture]], patient_id: str) -> float:
    """Where the patient's lowest slice was scanned: heights are told from there, whatever the scanner's origin."""
    heights = [p.position_mm for made in made_of for p in made if p.patient_id == patient_id]
    return min((height for height in heights if math.isfinite(height)), default=0.0)


def count(records: Sequence[store.Record]) -> dict[str, dict[str, int]]:
    """Patients and slices by label name, every label present."""
    return {
        name: {
            "patients": len({r.patient for r in records if r.label == number}),
            "slices": sum(r.label == number for r in records),
        }
        for number, name in sorted(_NAMES.items(), key=lambda item: item[0] % 3)  # unlabelled last
    }


def fingerprint(records: dict[str, list[store.Record]]) -> str:
    """SHA-256 over (sequence, slice id, label, digest of the pixels), sorted: the same for the same dataset."""
    rows = sorted((name, r.slice_id, r.label, r.digest) for name, some in records.items() for r in some)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def stamp(key: bytes, folder: Path, listing: Sequence[tuple[str, int, int]]) -> str:
    """Returns a hash of the inputs and of what is done to them; keyed, so that it confirms no guess about a patient."""
    parts: list[object] = [listing, scan.VERSION, sorted(preprocess.SETTINGS.items())]
    for name in (tables.PATIENTS, tables.SLICES, tables.SERIES):
        path = folder / name
        parts.append(path.read_bytes().hex() if path.exists() else None)
    if (folder / tables.READERS).exists():  # only then: without one, a dataset made before there were any stays valid
        parts.append((folder / tables.READERS).read_bytes().hex())
    return hmac.new(key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()


def _check_places(folder: Path, output: Path, private: Path) -> None:
    """The dataset must lie neither around the patients' listing nor around the key."""
    source, target, secret = folder.resolve(), output.resolve(), private.resolve()
    if source == target or target in source.parents:
        raise UserError(f"--output={output} contains the DICOM tree: name a folder of its own")
    if secret == target or target in secret.parents:
        raise UserError(f"--private={private} lies in the output, which is meant to be shared: name another folder")
    if secret == source:
        raise UserError(f"--private={private} is the DICOM tree itself: name a folder inside it or elsewhere")


def _already_there(folder: Path, output: Path, listing: Sequence[tuple[str, int, int]], key: bytes | None) -> str:
    if not output.is_dir() or not (output / store.INFO_FILE).exists():
        raise UserError(f"{output} holds something that is no dataset of this program: name a new folder with --output")
    info = store.load_info(output)
    if key is None or info.get("stamp") != stamp(key, folder, listing):
        raise UserError(
            f"{output} was prepared from other inputs, or these have changed since: name a new --output, or delete it"
        )
    return f"{output} is up to date: nothing to do"


def _check_classes(folder: Path, records: dict[str, list[store.Record]]) -> None:
    labels = {record.label for some in records.values() for record in some}
    for name, number in LABELS.items():
        if number not in labels:
            raise UserError(f"no slice of a patient with {name} is left in {folder}: see slices.csv and patients.csv")


def _write(
    output: Path,
    records: dict[str, list[store.Record]],
    info: dict[str, Any],
    examples: list[qc_figures.Example],
    said: list[tuple[str, str, int]],
) -> None:
    try:
        with files.new_folder(output) as partial:
            for name, some in sorted(records.items()):
                store.write(partial, name, some)
            qc_figures.draw_preprocessing(partial / "preprocessing.png", examples, phantom=info["phantom"])
            qc_figures.draw_cohort(partial / "cohort.png", records, phantom=info["phantom"])
            if said:
                files.write_csv(partial / store.READERS_FILE, ("patient", "reader", "label"), said)
            (partial / store.INFO_FILE).write_text(json.dumps(info, indent=1) + "\n")
    except Exception as error:
        # The record writer is C++ and tells of a full disk in words only.
        if "no space left" in str(error).lower() and not isinstance(error, OSError):
            raise OSError(errno.ENOSPC, "No space left on device", str(output)) from error
        raise


def _summary(info: dict[str, Any], output: Path, private: Path) -> str:
    lines = [f"{info['files_read']} files read"]
    for word in ("skipped", "rejected"):
        if info[word]:
            lines.append(f"{word}: " + ", ".join(f"{n} × {reason}" for reason, n in info[word].items()))
    for name, counts in info["sequences"].items():
        parts = [f"{c['slices']} slices of {c['patients']} {label}" for label, c in counts.items() if c["slices"]]
        lines.append(f"{name}: " + ", ".join(parts))
    if info.get("readers"):
        lines.append("answers of " + ", ".join(f"{name}: {n}" for name, n in sorted(info["readers"].items())))
    if info["phantom"] == "mixed":
        lines.append("warning: phantom and patient images are mixed")
    if info["labeled_patients_without_slices"]:
        lines.append(f"{info['labeled_patients_without_slices']} labelled patients have no chosen slice")
    if info["listed_slices_not_found"]:
        lines.append(f"{info['listed_slices_not_found']} rows of slices.csv name no readable image: see rejects.csv")
    return "\n".join([*lines, f"dataset: {output}", f"key, pseudonyms and rejects.csv: {private}"])
