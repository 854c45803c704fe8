"""Makes a simulated cohort with real anatomy as a DICOM tree: the default input, because patients' scans are private.

Results on it are phantom results: they show that the way from DICOM to report works and can tell a pattern apart;
they say nothing about patients.

The plan draws the disease and the scan of each patient. All traits but the pattern of the lesion (vendor, matrix,
field of view, noise, gain, age, sex, height of the lesion, number of slices in a series) are dealt evenly within each
class. `overlap` is the share of atypical cases.
"""

import hashlib
import itertools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lesion import files, workers
from lesion.classes import PAPER
from lesion.dataset import pseudonyms
from lesion.errors import UserError
from lesion.phantom import dicom_series, lesions, simulate, tables

VERSION = 2  # of the files that a seed gives; raise it whenever a byte of them changes
STAMP = "phantom.json"
OVERLAP = 0.08


class Preset(NamedTuple):
    """The size of a cohort.

    Attributes:
        patients: {label: number of patients}.
        slices: {label: {sequence: number of slices that the doctors choose, over all patients}}.
        num_series: series per patient, 3, or 4 with a second CE-T1WI series (gradient echo and spin echo): Table 1 has
            13 CE-T1WI slices for a glioma and 7 of the other sequences, more than one series shows of a lesion.
        num_slices: least and greatest number of slices in a series.
        matrix: stored rows and columns.
    """

    patients: dict[str, int]
    slices: dict[str, dict[str, int]]
    num_series: int
    num_slices: tuple[int, int]
    matrix: int


PRESETS = {
    # Table 1 of the paper, to the slice.
    "table1": Preset(
        {"encephalitis": 118, "glioma": 57},
        {
            "encephalitis": {"flair": 636, "ce_t1wi": 798, "t2wi": 745},
            "glioma": {"flair": 408, "ce_t1wi": 763, "t2wi": 402},
        },
        4,
        (21, 24),
        512,
    ),
    # A small Table 1: the same ratios between classes and sequences, 0.55 of its slices per patient.
    "demo": Preset(
        {"encephalitis": 32, "glioma": 16},
        {
            "encephalitis": {"flair": 95, "ce_t1wi": 119, "t2wi": 111},
            "glioma": {"flair": 63, "ce_t1wi": 118, "t2wi": 62},
        },
        3,
        (21, 24),
        512,
    ),
    "tiny": Preset(
        {"encephalitis": 4, "glioma": 4},
        {label: dict.fromkeys(simulate.SIMULATED, 12) for label in PAPER},
        3,
        (14, 14),
        256,
    ),
}


class Site(NamedTuple):
    """What a hospital has its own way, so that the shift between two is known.

    Attributes:
        stream: begins the seeds of all that is drawn there, after the cohort's.
        prefix: begins its PatientIDs.
        vendors: its scanners.
        noise: factor of every patient's noise.
        balanced: whether it has as many patients of the commoner class as of the rarer one.
    """

    stream: tuple[int, ...]
    prefix: str
    vendors: tuple[str, ...]
    noise: float
    balanced: bool


SITES = {
    "A": Site((), "PH", ("GE MEDICAL SYSTEMS", "SIEMENS"), 1.0, False),
    "B": Site((1,), "PB", ("Philips Medical Systems",), 1.6, True),
}


class Patient(NamedTuple):
    """The plan of one patient.

    Attributes:
        seed: seed of everything drawn for the patient: (seed of the cohort, stream of the site, index in the cohort).
        identity: invented name, dates, sex and age.
        case: the disease.
        plan: the scan.
        counts: {sequence: number of slices that the doctors choose}.
    """

    seed: tuple[int, ...]
    identity: dicom_series.Identity
    case: lesions.Case
    plan: simulate.ScanPlan
    counts: dict[str, int]


def plan_cohort(preset: Preset, seed: int, overlap: float = OVERLAP, site: Site = SITES["A"]) -> list[Patient]:
    """Draws every patient of a cohort, in an order that does not depend on the class."""
    rarer = min(preset.patients.values())
    numbers = {label: rarer if site.balanced else number for label, number in preset.patients.items()}
    stream = (seed, *site.stream)
    order = np.random.default_rng([*stream, 0]).permutation(sum(numbers.values()))
    patients, start = [], 0
    for label, number in numbers.items():
        rng = np.random.default_rng([*stream, 1, PAPER.index(label)])
        share = number / preset.patients[label]
        counts = {
            sequence: _share(rng, round(share * slices), number) for sequence, slices in preset.slices[label].items()
        }
        traits = {
            "vendor": _deal(rng, site.vendors, number),
            "atypical": _deal(rng, (True,) * round(overlap * number) + (False,), number, repeat=False),
            "band": _deal(rng, (0, 0, 1, 1, 2), number),
            "num_slices": _deal(rng, tuple(range(preset.num_slices[0], preset.num_slices[1] + 1)), number),
            "phase": _deal(rng, (1.0, 0.875, 0.8), number),
            "fov": _deal(rng, (230.0, 240.0, 250.0), number),
            "noise": _deal(rng, tuple(np.linspace(0.004, 0.009, 6)), number),
            "gain": _deal(rng, tuple(np.linspace(2800.0, 4800.0, 5)), number),
            "sex": _deal(rng, ("F", "M"), number),
            "age": _deal(rng, tuple(range(18, 76, 3)), number),
        }
        for k in range(number):
            trait = {name: values[k] for name, values in traits.items()}
            index = int(order[start + k])
            own = np.random.default_rng([*stream, 2, index])
            patient_id = f"{site.prefix}{seed:02d}{index + 1:04d}"
            identity = dicom_series.draw_identity(own, patient_id, trait["sex"], trait["age"])
            acquired = min(256, preset.matrix)
            plan = simulate.ScanPlan(
                num_slices=trait["num_slices"],
                matrix=preset.matrix,
                acquired=acquired,
                phase_lines=int(trait["phase"] * acquired),
                fov_mm=trait["fov"],
                noise=float(trait["noise"]) * site.noise,
                bias=float(own.uniform(0.04, 0.12)),
                gain=float(trait["gain"]),
                vendor=trait["vendor"],
                num_series=preset.num_series,
            )
            case = lesions.draw_case(own, label, trait["band"], trait["atypical"])
            chosen = {sequence: int(shares[k]) for sequence, shares in counts.items()}
            patients.append(Patient((*stream, index), identity, case, plan, chosen))
        start += number
    return sorted(patients, key=lambda patient: patient.seed)


def _deal(rng: np.random.Generator, values: tuple, number: int, repeat: bool = True) -> list:
    """Returns `number` values dealt in turn (or each once, then the last), shuffled: equal shares in each class."""
    deck = [values[k % len(values) if repeat else min(k, len(values) - 1)] for k in range(number)]
    return [deck[k] for k in rng.permutation(number)]


def _share(rng: np.random.Generator, total: int, number: int) -> np.ndarray:
    """Draws integers [number] that sum to `total`, each at least 1 and within 2 of the mean."""
    counts = np.full(number, total // number)
    counts[: total % number] += 1
    for _ in range(number):
        a, b = rng.choice(number, 2, replace=False) if number > 1 else (0, 0)
        if counts[a] > max(1, total / number - 1.5) and counts[b] < total / number + 1.5:
            counts[a] -= 1
            counts[b] += 1
    return rng.permutation(counts)


def make(
    output: Path,
    preset_name: str = "demo",
    seed: int = 0,
    overlap: float = OVERLAP,
    labeled: int | None = None,
    readers: int = 0,
    site: str = "A",
) -> bool:
    """Writes a cohort; returns False if `output` holds the same one already.

    Everything is written beside `output` and moved into place at the end, so that `output` is always complete.

    Args:
        output: folder to make.
        preset_name: key of `PRESETS`.
        seed: seed of the cohort; equal seeds give equal bytes.
        overlap: share of atypical cases, 0 to 1.
        labeled: number of patients with a label in patients.csv, the classes in turn; None: all. truth.csv has all.
        readers: number of simulated readers in readers.csv, each of whom judges every patient.
        site: key of `SITES`.

    Raises:
        UserError: the folder holds something else, or a parameter is out of range.
    """
    if preset_name not in PRESETS:
        raise UserError(f"--preset={preset_name}: no such preset; there are {', '.join(PRESETS)}")
    if site not in SITES:
        raise UserError(f"--site={site}: no such site; there are {', '.join(SITES)}")
    if not 0 <= overlap <= 1:
        raise UserError(f"--overlap={overlap}: give the share of atypical cases, 0 to 1")
    if seed < 0:
        raise UserError(f"--seed={seed}: give a number from 0 on")
    patients = plan_cohort(PRESETS[preset_name], seed, overlap, SITES[site])
    if labeled is not None and not 2 <= labeled <= len(patients):
        raise UserError(f"--labeled={labeled}: 2 is the least, {len(patients)} the most")
    if not 0 <= readers <= tables.MAX_READERS:
        raise UserError(f"--readers={readers}: 0 is the least, {tables.MAX_READERS} the most")
    stamp = {"preset": preset_name, "seed": seed, "overlap": overlap, "version": VERSION}
    stamp |= {} if site == "A" else {"site": site}
    stamp |= ({} if labeled is None else {"labeled": labeled}) | ({"readers": readers} if readers else {})
    output = output.absolute()
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file: give a folder as --output")
    if output.exists() and any(output.iterdir()):
        if _read_stamp(output) == stamp:
            return False
        raise UserError(f"{output} is not empty and holds no phantom of these flags: give a new --output or remove it")
    with files.new_folder(output) as partial:
        _write(partial, stamp, patients)
    return True


def _read_stamp(output: Path) -> object:
    try:
        return files.read_json(output / STAMP)
    except (OSError, ValueError):
        return None


def _write(root: Path, stamp: dict, patients: list[Patient]) -> None:
    tasks = [(root, patient) for patient in patients]
    written = list(workers.parallel_map(write_patient, tasks, "phantom", _crashed, max_serial=1))
    labels = {patient.identity.patient_id: patient.case.label for patient in patients}
    tables.write_labels(root, labels, stamp.get("labeled", len(labels)))
    tables.write_slices(root, itertools.chain.from_iterable(written))
    if "readers" in stamp:
        tables.write_readers(root, labels, stamp["readers"], stamp["seed"])
    # A hospital's key is random and secret. This one follows from the flags but `readers`, so that equal phantoms get
    # equal pseudonyms, and with them equal folds and results, everywhere.
    identity = json.dumps({name: value for name, value in stamp.items() if name != "readers"})
    (root / pseudonyms.FOLDER).mkdir(mode=0o700)
    (root / pseudonyms.FOLDER / pseudonyms.KEY_FILE).write_text(hashlib.sha256(identity.encode()).hexdigest() + "\n")
    (root / STAMP).write_text(json.dumps(stamp) + "\n")


def _crashed(task: tuple[Path, Patient]) -> list[str]:
    raise UserError(
        f"{task[0]}: the process that made patient {task[1].identity.patient_id} died: is there enough memory?"
    )


def write_patient(task: tuple[Path, Patient]) -> list[str]:
    """Simulates and writes one patient; returns the SOPInstanceUIDs of the chosen slices."""
    root, patient = task
    scan, chosen = simulate_patient(patient)
    folder = root / patient.identity.patient_id
    folder.mkdir()
    entropy = f"lesion phantom {VERSION} {patient.seed}"
    chosen_uids = []
    for number, indices in enumerate(chosen, start=1):
        uids = dicom_series.write_series(folder, patient.identity, patient.plan, scan, number, entropy)
        chosen_uids += [uids[index] for index in indices]
    return chosen_uids


def simulate_patient(patient: Patient) -> tuple[simulate.Scan, list[np.ndarray]]:
    """Returns the scan of a patient and, for each series, the indices of the slices that the doctors choose."""
    sequences = [sequence for sequence, _ in simulate.PROTOCOLS[patient.plan.vendor][: patient.plan.num_series]]
    rng = np.random.default_rng([*patient.seed, 3])
    num_chosen = []
    for k, sequence in enumerate(sequences):  # two series of one sequence share its slices
        earlier = sequences[:k].count(sequence)
        num_chosen.append((patient.counts[sequence] + earlier) // sequences.count(sequence))
    scan = simulate.scan_patient(patient.seed, patient.case, patient.plan, max(num_chosen))
    visible = np.flatnonzero(scan.area_mm2 >= simulate.VISIBLE_MM2)
    chosen = []
    for sequence, number in zip(sequences, num_chosen, strict=True):  # neighbours about the largest cross-section
        area_mm2 = scan.enhancing_mm2 if sequence == "ce_t1wi" else scan.area_mm2
        sums = np.convolve(area_mm2[visible], np.ones(number), "valid")
        first = int(np.clip(sums.argmax() + rng.integers(-1, 2), 0, len(sums) - 1))
        chosen.append(visible[first : first + number])
    return scan, chosen
