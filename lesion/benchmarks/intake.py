"""Speed of the way in: headers read and series decided, and a whole `prepare`, beside dicom2nifti; growth with files.

Trees are made up: a drawn head, headers as a scanner writes them with a hundred elements that nobody reads. Each turn
runs in a new process, as the programs do, so that its peak of memory is its own.
"""

import concurrent.futures
import contextlib
import importlib
import importlib.util
import io
import logging
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from lesion.benchmarks import peak_mib
from lesion.dataset import prepare
from lesion.dicom import folder, scan
from lesion.files import write_csv
from lesion.progress import track

SLICES, NUM_OTHER_ELEMENTS = 20, 100  # of a series; of a header
NUM_COMPARED, SIZE = 2000, 256  # files and pixels of the tree on which contenders are compared
SMALL_SIZE = 32  # pixels, of the trees on which growth is measured
ROOT = "1.2.826.0.1.3680043.8.498.19"
# A visit of five series: description, TE, TR, TI, agent, b-value; the last two are none of the three sequences.
SERIES = (
    ("Ax T2 FLAIR", 140, 9000, 2250, "", None),
    ("t1_se_tra_KM", 12, 600, None, "Gadovist", None),
    ("T2W_TSE", 100, 4500, None, "", None),
    ("t1_se_tra", 12, 600, None, "", None),
    ("ep2d_diff_b1000", 90, 5000, None, "", 1000),
)
PEER = "dicom2nifti"


class Cost(NamedTuple):
    """What a turn took: seconds, and the peak memory of the process that it ran in, without its workers."""

    seconds: float
    peak_mib: float


class Turn(NamedTuple):
    """A contender on a tree; `build` takes the tree and a folder to write to, and returns what is timed."""

    name: str
    build: Callable[[Path, Path], Callable[[], object]]
    tree: Path


def make_tree(target: Path, num_files: int, size: int) -> Path:
    """Writes a tree of patients of one visit each, with patients.csv.

    Args:
        target: the folder, made here.
        num_files: number of DICOM files; the last patient has fewer than the others.
        size: rows and columns of a slice.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j] * 1.25
    r = np.hypot(x / 0.8, y)
    head = np.where(r < 1, 500.0, 0) * ~((r > 0.82) & (r < 0.93)) + (r < 0.82) * 150 * np.sin(9 * x) * np.cos(7 * y)
    visit = [_header(series, number, size) for series in range(len(SERIES)) for number in range(SLICES)]
    rows = []
    for number in track("making a tree", range(num_files), num_files):
        patient, of_visit = divmod(number, len(visit))
        patient_id, series = f"P{patient:05d}", of_visit // SLICES
        place = target / patient_id / f"S{series}"
        if of_visit % SLICES == 0:
            place.mkdir(parents=True)
        if of_visit == 0:
            rows.append((patient_id, ("encephalitis", "glioma")[patient % 2]))
        # Of the same length, so that the header need not be written anew for every patient.
        header = visit[of_visit].replace(b"P00000", patient_id.encode())
        header = header.replace(_study_uid(0).encode(), _study_uid(patient).encode())
        pixels = np.abs(head + rng.normal(0, 8, head.shape)).astype("<u2").tobytes()
        (place / f"IM{of_visit % SLICES:04d}.dcm").write_bytes(header + pixels)
    write_csv(target / "patients.csv", ("patient_id", "label"), rows)
    return target


def _study_uid(patient: int) -> str:
    return f"{ROOT}.{10**5 + patient}"


def _header(series: int, number: int, size: int) -> bytes:
    """Returns a slice's file of the first patient, up to the pixels."""
    description, echo_ms, repetition_ms, inversion_ms, agent, b_value = SERIES[series]
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = MRImageStorage
    dataset.StudyInstanceUID = _study_uid(0)
    dataset.SeriesInstanceUID = f"{_study_uid(0)}.{series + 1}"
    dataset.SOPInstanceUID = f"{_study_uid(0)}.{series + 1}.{number + 1}"
    dataset.PatientID, dataset.StudyDate, dataset.Modality = "P00000", "20190817", "MR"
    dataset.AcquisitionTime, dataset.SeriesNumber, dataset.InstanceNumber = f"10{series:02d}00", series + 1, number + 1
    dataset.SeriesDescription, dataset.ProtocolName, dataset.BodyPartExamined = description, description, "HEAD"
    dataset.ImageType, dataset.ScanningSequence, dataset.SequenceVariant = ["ORIGINAL", "PRIMARY", "M"], "SE", "SK"
    dataset.EchoTime, dataset.RepetitionTime, dataset.InversionTime = echo_ms, repetition_ms, inversion_ms
    dataset.ContrastBolusAgent = agent
    if b_value is not None:
        dataset.DiffusionBValue = float(b_value)
    dataset.Rows = dataset.Columns = size
    dataset.PixelSpacing, dataset.SliceThickness = [240 / size, 240 / size], 5
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-120, -120, 6.5 * number]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    block = dataset.private_block(0x0019, "LESION BENCHMARK", create=True)
    for element in range(NUM_OTHER_ELEMENTS):
        block.add_new(element, "LO", f"a value that nobody reads, {element}")
    dataset.PixelData = bytes(2 * size * size)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()[: -len(dataset.PixelData)]


def _find(source: Path, target: Path) -> Callable[[], object]:
    """Builds the reading of headers and the decisions on series."""
    private = target / "private"
    user = folder.tables_of_new_patients(source)
    return lambda: folder.find(source, private, scan.list_files(source, (private,)), user, folder.Options())


def _survey(source: Path, target: Path) -> Callable[[], object]:
    """Builds the same with a thumbnail of each series and the page."""
    return lambda: prepare.survey(source, target / "private")


def _prepare(source: Path, target: Path) -> Callable[[], object]:
    """Builds the making of a dataset."""
    return lambda: prepare.prepare(source, target / "data", target / "private")


def _peer(source: Path, target: Path) -> Callable[[], object]:
    """Builds a conversion to compressed NIfTI files by dicom2nifti."""
    convert = importlib.import_module(PEER).convert_directory
    logging.disable()  # it tells of every series
    return lambda: convert(str(source), str(target))


def _measure(build: Callable[[Path, Path], Callable[[], object]], source: Path) -> Cost:
    with tempfile.TemporaryDirectory() as target, contextlib.redirect_stdout(io.StringIO()):
        run = build(source, Path(target))
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
    return Cost(seconds, peak_mib())


def _take(turn: Turn) -> Cost:
    """Takes a turn in a new process."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, turn.build, turn.tree).result()


def run(sizes: Sequence[int], rounds: int) -> list[list[str]]:
    """Measures the way in and returns a table, the heading first.

    Args:
        sizes: numbers of files of the trees on which growth is measured, rounded up to whole patients.
        rounds: number of turns of each contender and tree, whose medians are reported.
    """
    with tempfile.TemporaryDirectory() as scratch:
        tree = make_tree(Path(scratch, "compared"), NUM_COMPARED, SIZE)
        turns = [Turn("headers and decisions", _find, tree), Turn("prepare", _prepare, tree)]
        if importlib.util.find_spec(PEER):
            turns.append(Turn(PEER, _peer, tree))
        whole = make_tree(Path(scratch, "whole"), max(sizes), SMALL_SIZE)
        turns += [Turn("survey", _survey, _part(whole, Path(scratch, str(size)), size)) for size in sizes]
        costs = [[_take(turn) for turn in turns] for _ in track("intake", range(rounds), rounds)]
        rows = [["", "files", "seconds", "files/s", "peak MiB"]]
        for turn, of_turn in zip(turns, zip(*costs, strict=True), strict=True):
            seconds, peak_mib = map(statistics.median, zip(*of_turn, strict=True))
            num_files = len(scan.list_files(turn.tree, ())) - 1  # without patients.csv
            rows.append([turn.name, str(num_files), f"{seconds:.1f}", f"{num_files / seconds:.0f}", f"{peak_mib:.0f}"])
    if not importlib.util.find_spec(PEER):
        rows.insert(3, [PEER, "not installed", "", "", ""])
    return rows


def _part(tree: Path, target: Path, num_files: int) -> Path:
    """Makes a tree of links to the first patients of another."""
    target.mkdir()
    target.joinpath("patients.csv").symlink_to(tree / "patients.csv")
    for patient in sorted(tree.glob("P*"))[: math.ceil(num_files / (SLICES * len(SERIES)))]:
        target.joinpath(patient.name).symlink_to(patient)
    return target
