"""Turns a DICOM tree into a dataset, everything or nothing: the work of `launch/prepare.py`.

    scan (headers, all files) → find series → decide (rules, tables, visits) → render (pixels) → write

The output is built in a hidden folder beside it and renamed at the end. What names a patient goes to the private
folder only.
"""

import collections
import csv
import errno
import hashlib
import hmac
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lesion import files
from lesion.classes import Classes
from lesion.dataset import (
    SEQUENCES,
    UNLABELED,
    labels_or_none,
    preprocess,
    pseudonyms,
    qc_figures,
    series_found,
    store,
)
from lesion.dataset.render import LOOK, Rendered, RenderedSlice, render_all
from lesion.dicom import decide, read, scan, tables
from lesion.dicom.folder import Found, Options, find, not_used, read_tables, tables_of_new_patients
from lesion.dicom.scan import ListedFile
from lesion.dicom.series import Series
from lesion.errors import UserError

README = """# A dataset of slices

Made by `launch.prepare`. One TFDS dataset a sequence (ArrayRecord, PNG), read with `tfds.builder_from_directory`.

- `cohort.json`: counts, how the slices were prepared, what was left out.
- `patients.csv`, `readers.csv`: what the user told of patients, and doctors' answers, if there were any.
- `preprocessing.png`, `cohort.png`: what was cut away, and what the slices look like.
- `source_pixels.csv`: of each slice the SHA-256 of its decoded pixels (rescaled, float32), without a key: whoever has
  the same slice can tell that it is in here, and a later cohort that shares a patient is known by it.

Patients, slices and readers have pseudonyms, made with a key that stays with the scans. Look at the slices before you
share them: a face or text may be left in the pixels.

In the words of DICOM PS3.15, Basic Application Level Confidentiality Profile: every attribute that the profile removes
or replaces is absent, for no DICOM header is kept. Of its options:

| option | here |
|---|---|
| Clean Pixel Data | partly: {text} |
| Clean Recognizable Visual Features | not met: slices through a face show it |
| Retain UIDs, Device Identity, Institution Identity, Longitudinal Temporal Information | not used: none is kept |
| Retain Patient Characteristics | only what `patients.csv` told: see that file |

Isotropic 3D series, from which a face can be rendered: {faces} are in it, {left_out} were left out (`--nofaces`).

Spacing is kept because sizes mean something, and a slice's position above the patient's lowest one because neighbours
are shown together; neither is an attribute that the profile names.
"""
OCR_WORDS = {  # of cohort.json, and what the README says
    "used": "text was read (OCR) where a slice may hold some, and removed; faint or tiny text over the head may stay",
    "not needed": "no slice is a picture, a secondary or an 8-bit image, or said to hold text; white text is removed",
    "not used": "OCR was not used (--noocr): white text is removed, grey or small text over the head may stay",
}
Records = dict[str, list[store.Record]]  # by sequence


def survey(folder: Path, private: Path, options: Options = Options()) -> str:  # noqa: B008  # a constant
    """Tells what would become of each series of a folder, and writes series_found.csv and its page; no dataset.

    Args:
        folder: the tree; its tables are heeded as far as they are there.
        private: the private folder.
        options: how to read it.

    Returns:
        Tables for the terminal; they name no patient.

    Raises:
        UserError: see `find`.
    """
    user = tables_of_new_patients(folder)
    pseudonyms.check_writable(private)
    with pseudonyms.keeping_rejects(private):
        found = find(folder, private, _list_files(folder, private), user, options)
    key = pseudonyms.make_key(private)
    pseudonyms.save(private, (), found.scanned.rejected)
    thumbnails = series_found.draw_thumbnails(found.series)
    series_found.write(private, found.series, thumbnails)
    lines = [_overview(found, key)]
    if unread := _tally(file.kind for file in found.scanned.rejected):
        lines.append(f"{_counts('rejected', unread)}; {private / pseudonyms.REJECTS_FILE} names the files")
    return "\n".join([*lines, f"all {len(found.series)} series: {private / series_found.PAGE_FILE}"])


def prepare(folder: Path, output: Path, private: Path, options: Options = Options()) -> str:  # noqa: B008  # a constant
    """Turns a DICOM tree with its tables into a dataset.

    Args:
        folder: the tree, with patients.csv and perhaps slices.csv, series.csv and readers.csv.
        output: the dataset's folder; must not exist, be empty, or hold this very dataset.
        private: for key, pseudonym table, rejects.csv and series_found.csv with its page; made if missing.
        options: how to read it.

    Returns:
        One paragraph for the user; it names no file and no patient of the tree.

    Raises:
        UserError: a table or the tree is wrong (see `lesion.dicom`), no slice is left, one person has two ids, or
            `output` holds something else.
        OSError: a full disk; nothing is left behind.
    """
    user = read_tables(folder, options)
    _check_folders(folder, output, private)
    pseudonyms.check_writable(private)
    listing = _list_files(folder, private, output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        return _check_up_to_date(folder, output, listing, pseudonyms.read_key(private), options)
    pseudonyms.check_writable(output.absolute().parent, "--output")
    # Hashed before the files are read: one that changes meanwhile is noticed next time.
    inputs = _inputs(folder, listing, options)

    with pseudonyms.keeping_rejects(private):
        found = find(folder, private, listing, user, options)
    user = found.user
    key = pseudonyms.make_key(private)
    print(_overview(found, key), flush=True)
    thumbnails = series_found.draw_thumbnails(found.series)
    series_found.write(private, found.series, thumbnails)
    if not any(series.used for series in found.series):
        raise UserError(
            f"{folder} has MR images, but no chosen slice of {', '.join(SEQUENCES)}: "
            f"{private / series_found.PAGE_FILE} tells why, and there sequences can be corrected"
        )
    with pseudonyms.keeping_rejects(private):
        rendered = render_all(found.series, options.strict, options.ocr, options.window)
    qc_figures.draw_text(private, rendered)
    series_found.write(private, rendered.series, thumbnails)
    rejected = found.scanned.rejected + rendered.rejected

    slices = [slice_ for of_series in rendered.slices for slice_ in of_series]
    patients = pseudonyms.pseudonymize(key, "patient", (slice_.patient_id for slice_ in slices))
    _check_persons(slices, patients, private)
    slice_ids = pseudonyms.pseudonymize(key, "slice", (slice_.original_id for slice_ in slices))
    records = _make_records(rendered, user.labels, patients, slice_ids)
    every_record = [record for of_sequence in records.values() for record in of_sequence]
    readers, answers = _pseudonymize_readers(user, patients)
    info = {
        "phantom": _phantom_mark(rendered.series),
        "fingerprint": _fingerprint(records),
        "classes": list(options.classes),
        "sequences": {name: _count(records[name], options.classes) for name in sorted(records)},
        "patients": {name: counts["patients"] for name, counts in _count(every_record, options.classes).items()},
        "files_read": len(listing),
        "skipped": _tally(not_used(found.scanned, rendered.series)),
        "rejected": _tally(file.kind for file in rejected),
        "doubtful": _tally(note for series in rendered.series if series.used for note in series.notes),
        "same_pixels": rendered.same_pixels,
        "isotropic_3d_series": sum(map(decide.shows_face, rendered.series)),
        "isotropic_3d_series_left_out": decide.count_faces_left_out(rendered.series),
        "patients_of_several_visits": decide.count_several_visits(rendered.series),
        "labeled_patients_without_slices": sum(
            label != UNLABELED and patient_id not in patients for patient_id, label in user.labels.items()
        ),
        "listed_slices_not_found": len(scan.slices_not_found(found.scanned, user)),
        "preprocess": preprocess.settings(options.window),
        "ocr": _ocr_mark(found.series, options.ocr),
        "slices_with_text": sum(bool(slice_.proof) for slice_ in slices),
        "stamp": _stamp(key, inputs),
    }
    if answers:
        info["readers"] = dict(collections.Counter(reader for _, reader, _ in answers))

    # Written before the dataset, so that there is never one whose pseudonyms nobody can resolve.
    kinds = {"patient": patients, "slice": slice_ids, "reader": readers}
    table = [pseudonyms.Row(name, kind, original) for kind in kinds for original, name in kinds[kind].items()]
    pseudonyms.save(private, table, rejected)
    further = {patients[patient_id]: cells for patient_id, cells in user.patients.items() if patient_id in patients}
    sources = sorted((slice_ids[slice_.original_id], slice_.source_digest) for slice_ in slices)
    _write(output, records, info, qc_figures.pick_examples(rendered), answers, further, sources)
    return _summary(info, output, private)


def _list_files(folder: Path, *leave_out: Path) -> list[ListedFile]:
    """Returns all files of the tree but our own, also those of a run on a part of it or with another --private."""
    listing = scan.list_files(folder, leave_out)
    ours = {pseudonyms.FOLDER, *(files.lock_file(path).name for path in leave_out)}
    return [file for file in listing if ours.isdisjoint(Path(file.path).parts)]


def _overview(found: Found, key: bytes) -> str:
    """Returns what of a folder is used, and what is told of identities, before the long work."""
    patients = pseudonyms.pseudonymize(key, "patient", (series.patient_id for series in found.series))
    lines = [series_found.overview(found.series, patients)]
    if shared := len(found.scanned.shared_uids()):
        lines.append(f"{shared} SOPInstanceUIDs belong to several patients: their slices are kept apart by patient")
    if faces := sum(decide.shows_face(series) for series in found.series):
        lines.append(f"{faces} series are isotropic 3D: a face can be rendered from them (--nofaces leaves them out)")
    if left_out := decide.count_faces_left_out(found.series):
        lines.append(f"{left_out} isotropic 3D series are left out, for a face can be rendered from them (--nofaces)")
    if left_out := decide.count_visits_left_out(found.series):
        lines.append(f"{left_out} patients have several visits, of which one is used (--visits=all: all)")
    for alike in _alike_ids(patients):
        several = ", ".join(patients[patient_id] for patient_id in alike)
        lines.append(f"warning: the PatientIDs of {several} differ in case, blanks and signs only: one person?")
    return "\n".join(lines)


def _alike_ids(patient_ids: Iterable[str]) -> list[list[str]]:
    """Returns groups of ids that differ only in case, blanks and signs, as when somebody typed one twice."""
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for patient_id in sorted(patient_ids):
        groups[re.sub(r"[\W_]", "", patient_id.casefold())].append(patient_id)
    return [group for group in groups.values() if len(group) > 1]


def _check_persons(slices: Sequence[RenderedSlice], patients: dict[str, str], private: Path) -> None:
    """Raises a UserError if two patients have a slice of the same pixels: one person, or a copy under another id."""
    owner: dict[str, str] = {}
    pairs = collections.Counter[tuple[str, str]]()
    for slice_ in slices:
        other = owner.setdefault(slice_.source_digest, slice_.patient_id)
        if slice_.source_digest and other != slice_.patient_id:
            pairs[other, slice_.patient_id] += 1
    if not pairs:
        return
    path = private / "same_pixels.csv"
    with pseudonyms.private_file(path) as stream:
        rows = [(*pair, count) for pair, count in sorted(pairs.items())]
        csv.writer(stream).writerows([("patient_id", "same_as_patient_id", "slices"), *rows])
    (first, second), count = pairs.most_common(1)[0]
    raise UserError(
        f"{patients[first]} and {patients[second]} have {count} slices with the same pixels: one person under two ids?"
        f" {path} names all such pairs; take one of each pair out of the folder and of {tables.PATIENTS}"
    )


def _make_records(
    rendered: Rendered, labels: dict[str, int], patients: dict[str, str], slice_ids: dict[str, str]
) -> Records:
    """Returns the records of all slices by sequence, under the pseudonyms of patients and slices."""
    lowest = _lowest_positions(slice_ for of_series in rendered.slices for slice_ in of_series)
    records: Records = collections.defaultdict(list)
    for series, slices in zip(rendered.series, rendered.slices, strict=True):
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
            records[series.sequence].append(record)
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


def _phantom_mark(judged: Sequence[Series]) -> bool | str:
    """Returns True if every used image is marked as of a phantom, False if none is, else "mixed"."""
    used = (series for series in judged if series.used)
    marks = {member.instance.phantom for series in used for member in series.members if member.chosen}
    return "mixed" if len(marks) > 1 else marks == {True}


def _ocr_mark(judged: Sequence[Series], ocr: bool) -> str:
    """Returns whether slices were read for text, a key of `OCR_WORDS`."""
    needed = any(series.used and series.may_hold_text() for series in judged)
    return ("used" if ocr else "not used") if needed else "not needed"


def _count(records: Sequence[store.Record], classes: Classes) -> dict[str, dict[str, int]]:
    """Returns the numbers of patients and slices by label, every label present."""
    counts = {}
    for name, label in labels_or_none(classes).items():
        patients = [record.patient for record in records if record.label == label]
        counts[name] = {"patients": len(set(patients)), "slices": len(patients)}
    return counts


def _tally(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(collections.Counter(words).items()))


def _counts(word: str, tally: dict[str, int]) -> str:
    return f"{word}: " + ", ".join(f"{count} × {reason}" for reason, count in tally.items())


def _fingerprint(records: Records) -> str:
    """Returns a SHA-256 over (sequence, slice id, label, digest of the pixels), sorted: it identifies the dataset."""
    rows = sorted((name, r.slice_id, r.label, r.digest) for name, of_sequence in records.items() for r in of_sequence)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _inputs(folder: Path, listing: Sequence[ListedFile], options: Options) -> str:
    """Returns all that a dataset is made from, and what is done to it, as JSON."""
    parts: list[object] = [
        listing,
        preprocess.settings(options.window),
        options.faces,
        options.rules.read_bytes().hex(),
    ]
    masks = scan.list_files(options.masks, ()) if options.masks else None
    parts += [masks, options.min_lesion_mm2, options.visits, options.patient_from_folder, options.labels_column]
    parts += [options.classes, options.ocr, read.MAX_PIXELS]
    for name in (tables.PATIENTS, tables.SLICES, tables.SERIES, tables.READERS):
        path = folder / name
        parts.append(path.read_bytes().hex() if path.exists() else None)
    return json.dumps(parts)


def _stamp(key: bytes, inputs: str) -> str:
    """Returns a hash of the inputs; keyed, so that it confirms no guess about a patient."""
    return hmac.new(key, inputs.encode(), hashlib.sha256).hexdigest()


def _check_folders(folder: Path, output: Path, private: Path) -> None:
    """Raises a UserError if the dataset would lie around the patients' listing or around the key."""
    source, target, secret = folder.resolve(), output.resolve(), private.resolve()
    if source == target or target in source.parents:
        raise UserError(f"--output={output} contains the DICOM tree: name a folder of its own")
    if secret == target or target in secret.parents:
        raise UserError(f"--private={private} lies in the output, which is meant to be shared: name another folder")
    if secret == source:
        raise UserError(f"--private={private} is the DICOM tree itself: name a folder inside it or elsewhere")


def _check_up_to_date(
    folder: Path, output: Path, listing: Sequence[ListedFile], key: bytes | None, options: Options
) -> str:
    """Returns the message that there is nothing to do; raises a UserError if `output` holds anything else."""
    if not output.is_dir() or not (output / store.INFO_FILE).exists():
        raise UserError(f"{output} holds something that is no dataset of this program: name a new folder with --output")
    info = store.load_info(output)
    if key is None or info.get("stamp") != _stamp(key, _inputs(folder, listing, options)):
        raise UserError(
            f"{output} was prepared from other inputs, or these have changed since: name a new --output, or delete it"
        )
    return f"{output} is up to date: nothing to do"


def _write(
    output: Path,
    records: Records,
    info: dict[str, Any],
    examples: list[qc_figures.Example],
    answers: list[tuple[str, str, int]],
    further: dict[str, dict[str, str]],
    sources: list[tuple[str, str]],
) -> None:
    try:
        with files.new_folder(output) as partial:
            for sequence in sorted(records):
                store.write(partial, sequence, records[sequence])
            qc_figures.draw_preprocessing(partial / "preprocessing.png", examples, phantom=info["phantom"])
            qc_figures.draw_cohort(partial / "cohort.png", records, Classes.of(info), phantom=info["phantom"])
            if answers:
                files.write_csv(partial / store.READERS_FILE, ("patient", "reader", "label"), answers)
            store.write_patients(partial, further)
            files.write_csv(partial / store.SOURCE_FILE, ("slice_id", "sha256"), sources)
            counts = {"faces": info["isotropic_3d_series"], "left_out": info["isotropic_3d_series_left_out"]}
            files.write_text(partial / "README.md", README.format(text=OCR_WORDS[info["ocr"]], **counts))
            files.write_text(partial / store.INFO_FILE, json.dumps(info, indent=1) + "\n")
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOTEMPTY:
            message = "was made by another run meanwhile: the same command tells whether it is the same"
            raise UserError(f"{output} {message}") from error
        # The record writer is C++ and tells of a full disk in words only.
        if "no space left" in str(error).lower() and not isinstance(error, OSError):
            raise OSError(errno.ENOSPC, "No space left on device", str(output)) from error
        raise


def _summary(info: dict[str, Any], output: Path, private: Path) -> str:
    lines = [f"{info['files_read']} files read"]
    for word in ("skipped", "rejected"):
        if info[word]:
            lines.append(_counts(word, info[word]))
    for name, labels in info["sequences"].items():
        parts = [f"{c['slices']} slices of {c['patients']} {label}" for label, c in labels.items() if c["slices"]]
        lines.append(f"{name}: " + ", ".join(parts))
    if info.get("readers"):
        lines.append("answers of " + ", ".join(f"{name}: {count}" for name, count in sorted(info["readers"].items())))
    if info["same_pixels"]:
        lines.append(f"{info['same_pixels']} slices have the same pixels as others of their patient and count once")
    for note, count in info["doubtful"].items():
        lines.append(f"doubtful in {count} series: {note}")
    missing = [name for name in Classes.of(info) if not info["patients"][name]]
    if missing:
        lines.append(f"no patient with {' or '.join(missing)} has a slice: nothing can be trained on these labels yet")
    if looks := info["rejected"].get(LOOK):
        lines.append(f"{looks} slices are left out for what lies over the head: {private / pseudonyms.TEXT_FILE}")
    if info["slices_with_text"]:
        where = private / pseudonyms.TEXT_FILE
        lines.append(f"text was removed from {info['slices_with_text']} slices: before and after in {where}")
    if info["phantom"] == "mixed":
        lines.append("warning: phantom and patient images are mixed")
    if info["labeled_patients_without_slices"]:
        lines.append(f"{info['labeled_patients_without_slices']} labelled patients have no chosen slice")
    if info["listed_slices_not_found"]:
        lines.append(f"{info['listed_slices_not_found']} rows of slices.csv name no readable image: see rejects.csv")
    lines += [f"dataset: {output}", f"key, pseudonyms and rejects.csv: {private}"]
    return "\n".join([*lines, f"what became of each series: {private / series_found.PAGE_FILE}"])
