"""Writes and reads the cohort as a TFDS dataset, one configuration a sequence, without TensorFlow.

Two things make that possible: pictures are handed to the builder as PNG bytes, and the file format is ArrayRecord,
read as a random-access data source. TFDS shuffles records as it writes them, so a position means nothing: `load_slices`
sorts by slice id.
"""

import contextlib
import io
import json
import logging
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from lesion import files
from lesion.dataset import SEQUENCES, Slices
from lesion.dataset.preprocess import SIZE
from lesion.dicom.tables import FOLD, GROUP
from lesion.errors import UserError

SPLIT = "cohort"  # "all" is a reserved name
INFO_FILE = "cohort.json"
READERS_FILE = "readers.csv"  # patient,reader,label; only where the user gave one
SOURCE_FILE = "source_pixels.csv"  # slice_id,sha256 of each slice's decoded source pixels
PATIENTS_FILE = "patients.csv"  # patient and further columns of the user's patients.csv; only where there were any
FORMAT = "1.1.0"


class Record(NamedTuple):
    """One slice as it is written: `image` as PNG, ids pseudonymous, `digest` of the pixels; see `Slices`."""

    slice_id: str
    patient: str
    label: int
    image: bytes
    spacing_mm: tuple[float, float]
    digest: str
    position_mm: float


class Cohort(tfds.core.GeneratorBasedBuilder):
    """Slices of intracranial lesions, 224×224, grey."""

    VERSION = tfds.core.Version(FORMAT)
    BUILDER_CONFIGS = [  # noqa: RUF012 (as TFDS wants it)
        tfds.core.BuilderConfig(name=name, description=f"{name} slices") for name in SEQUENCES
    ]

    def __init__(self, *, records: Sequence[Record] = (), **kwargs: Any):
        self._records = records
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(SIZE, SIZE, 1), dtype=np.uint8, encoding_format="png"),
            "label": tfds.features.Scalar(dtype=np.int32),  # 0 encephalitis, 1 glioma, -1 unlabelled
            "patient": tfds.features.Text(),
            "slice_id": tfds.features.Text(),
            "spacing_mm": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "position_mm": tfds.features.Scalar(dtype=np.float32),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for record in self._records:
            yield (
                record.slice_id,
                {
                    "image": io.BytesIO(record.image),
                    "label": record.label,
                    "patient": record.patient,
                    "slice_id": record.slice_id,
                    "spacing_mm": np.array(record.spacing_mm, np.float32),
                    "position_mm": record.position_mm,
                },
            )


def write(folder: Path, sequence: str, records: Sequence[Record]) -> None:
    """Writes the slices of one sequence as `folder/cohort/<sequence>/<FORMAT>`.

    Raises:
        OSError: the disk is full.
    """
    tfds.disable_progress_bar()
    builder = Cohort(records=records, config=sequence, data_dir=str(folder), file_format="array_record")
    download_config = tfds.download.DownloadConfig(try_download_gcs=False)
    with contextlib.redirect_stdout(io.StringIO()), _quiet():
        builder.download_and_prepare(download_config=download_config)
    shutil.rmtree(folder / "downloads", ignore_errors=True)  # made by TFDS, empty


def load_slices(data_dir: str | os.PathLike, sequence: str) -> Slices:
    """Reads all slices of a sequence into memory, sorted by slice id.

    Args:
        data_dir: what `launch/prepare.py` wrote.
        sequence: "flair", "ce_t1wi" or "t2wi".

    Returns:
        `Slices`, the images [N, 224, 224].

    Raises:
        UserError: no dataset there, an unknown sequence, or one that no patient has.
    """
    info = load_info(data_dir)
    if sequence not in SEQUENCES:
        raise UserError(f"sequence {sequence!r} is unknown: choose one of {', '.join(SEQUENCES)}")
    folder = Path(data_dir, "cohort", sequence, FORMAT)
    if folder.parent.exists() and not folder.exists():
        raise UserError(f"{data_dir} is of another version of this program: delete it and run launch.prepare again")
    if not folder.exists():
        present = ", ".join(info["sequences"]) or "none"
        raise UserError(f"nobody in {data_dir} has a {sequence} slice: choose one of those there are ({present})")
    with _quiet():
        source = tfds.builder_from_directory(str(folder)).as_data_source(
            split=SPLIT, decoders={"image": tfds.decode.SkipDecoding()}
        )
        examples = sorted(source, key=lambda example: example["slice_id"])
    return Slices(
        image=np.stack([np.asarray(Image.open(io.BytesIO(example["image"]))) for example in examples]),
        label=np.array([example["label"] for example in examples], np.int32),
        patient=np.array([example["patient"].decode() for example in examples]),
        slice_id=np.array([example["slice_id"].decode() for example in examples]),
        spacing_mm=np.stack([example["spacing_mm"] for example in examples]).astype(np.float32),
        position_mm=np.array([example["position_mm"] for example in examples], np.float32),
    )


def load_info(data_dir: str | os.PathLike) -> dict[str, Any]:
    """Returns the contents of cohort.json, what `launch/prepare.py` counted.

    Raises:
        UserError: there is no dataset in that folder.
    """
    path = Path(data_dir, INFO_FILE)
    try:
        return files.read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        command = shlex.join(["python", "-m", "launch.prepare", "--input=DICOM_DIR", f"--output={data_dir}"])
        raise UserError(f"no dataset in {data_dir}: make one with {command}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: delete {data_dir} and run launch.prepare again") from error


def write_patients(folder: Path, patients: Mapping[str, Mapping[str, str]]) -> None:
    """Writes what the user told of the patients, {pseudonym: {column: text}}; no file where that is nothing.

    A group may be a family's name: it is written as a number, in the order of the pseudonyms.
    """
    columns = list(dict.fromkeys(column for cells in patients.values() for column in cells))
    if not columns:
        return
    number_of: dict[str, str] = {"": ""}
    rows = []
    for patient in sorted(patients):
        cells = dict(patients[patient])
        if GROUP in cells:
            cells[GROUP] = number_of.setdefault(cells[GROUP], f"group_{len(number_of)}")
        rows.append((patient, *(cells.get(column, "") for column in columns)))
    files.write_csv(folder / PATIENTS_FILE, ("patient", *columns), rows)


def copy_source_digests(data_dir: Path, workdir: Path) -> None:
    """Copies the hashes of source pixels into a run, so that a later cohort that shares a slice with it is known."""
    if (data_dir / SOURCE_FILE).exists():
        files.write_text(workdir / SOURCE_FILE, (data_dir / SOURCE_FILE).read_text(encoding="utf-8"))


def copy_readers(data_dir: Path, workdir: Path) -> None:
    """Copies what doctors said of the patients, if anything, into a run, so that its report compares with them."""
    if (data_dir / READERS_FILE).exists():
        files.write_text(workdir / READERS_FILE, (data_dir / READERS_FILE).read_text(encoding="utf-8"))


def load_patients(data_dir: str | os.PathLike) -> dict[str, dict[str, str]]:
    """Returns what the user told of the patients, {pseudonym: {column: text}}; empty where that is nothing.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(data_dir, PATIENTS_FILE)
    if not path.exists():
        return {}
    try:
        rows = files.read_csv(path)
        patients = {row.pop("patient"): row for row in rows}
        if any(row.get(FOLD) and not row[FOLD].isdecimal() for row in rows):
            raise ValueError("a fold is no number")
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): delete {data_dir} and run launch.prepare again") from error
    return patients


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences TFDS, which advises on OpenCV and logs its steps through absl; neither is for the user."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
