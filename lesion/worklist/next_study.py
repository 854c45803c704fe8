"""The tables with which launch.prepare begins the next study: what a run's doctor said, under the patients' own ids."""

import csv
from pathlib import Path

from lesion import files
from lesion.classes import Classes
from lesion.dataset import pseudonyms, store
from lesion.dicom import tables
from lesion.errors import UserError
from lesion.worklist import NO_CLASS, NOT_USABLE, answers, labels, round_file

FOLDER = "next_study"


def write(workdir: Path, data_dir: Path, private: Path) -> str:
    """Writes PRIVATE/next_study/patients.csv and slices.csv, readable by their owner alone; returns what was written.

    patients.csv has every patient of the dataset, with the label of the dataset or else of the doctor, and what the
    user told besides; slices.csv every slice but those that were said to be not usable.

    Args:
        workdir: folder of a run with a doctor; gets labels.csv.
        data_dir: the dataset of the run.
        private: private folder of the scans, whose pseudonyms the dataset has.

    Raises:
        UserError: if a folder is not what it should be.
    """
    info, config = store.load_info(data_dir), files.read_json(_config_of(workdir))
    if config["data"].get("fingerprint") != info["fingerprint"]:
        raise UserError(f"{workdir} was not run on {data_dir}: name its dataset with --data")
    classes = Classes.of(info)
    slices = {name: store.load_slices(data_dir, name) for name, counts in info["sequences"].items() if counts}
    patient_of: dict[str, str] = {}
    label_of: dict[str, str] = {}
    for of_sequence in slices.values():
        patient_of |= dict(zip(of_sequence.slice_id.tolist(), of_sequence.patient.tolist(), strict=True))
        names = [classes[label] if label >= 0 else "" for label in of_sequence.label.tolist()]
        label_of |= dict(zip(of_sequence.patient.tolist(), names, strict=True))
    labels.write(workdir)
    settled = answers.settle(labels.said(workdir, patient_of), patient_of, config["config"]["contradictions"])
    for slice_, label in settled.items():
        if label not in NO_CLASS:
            label_of[patient_of[slice_]] = label_of[patient_of[slice_]] or label

    original = {row.pseudonym: row.original for row in pseudonyms.read_table(private)}
    lacking = sum(name not in original for name in (*patient_of, *label_of))
    if lacking:
        raise UserError(f"{private} lacks {lacking} pseudonyms of {data_dir}: name the private folder of its scans")
    further = store.load_patients(data_dir)
    columns = list(dict.fromkeys(column for cells in further.values() for column in cells))
    patients = [
        (original[patient], label, *(further.get(patient, {}).get(column, "") for column in columns))
        for patient, label in sorted(label_of.items())
    ]
    usable = [slice_ for slice_ in sorted(patient_of) if settled.get(slice_) != NOT_USABLE]
    chosen = [_uid_and_frame(original[slice_], original[patient_of[slice_]]) for slice_ in usable]
    folder = private / FOLDER
    pseudonyms.check_writable(private)
    folder.mkdir(mode=0o700, exist_ok=True)
    header = "patient_id", "label", *columns
    listed: dict[str, list[tuple[str, ...]]] = {
        tables.PATIENTS: [header, *patients],
        tables.SLICES: [("sop_instance_uid", "frame"), *chosen],
    }
    for name, rows in listed.items():
        with pseudonyms.private_file(folder / name) as stream:
            csv.writer(stream).writerows(rows)
    known = sum(bool(label) for label in label_of.values())
    return (
        f"{known} of {len(label_of)} patients with a label, {len(usable)} of {len(patient_of)} slices: "
        f"{folder} holds {tables.PATIENTS} and {tables.SLICES}, to lie beside the scans for launch.prepare"
    )


def _config_of(workdir: Path) -> Path:
    path = workdir / "config.json"
    if not path.is_file() or not round_file.numbers(workdir):
        raise UserError(f"{workdir} has queried no round: begin with launch.active --config=configs/doctor.py")
    return path


def _uid_and_frame(original: str, patient_id: str) -> tuple[str, str]:
    """Returns SOPInstanceUID and frame of what a slice's pseudonym stands for, see `RenderedSlice.original_id`."""
    sop_uid, _, frame = original.removeprefix(f"{patient_id}:").rpartition(":")
    return sop_uid, frame
