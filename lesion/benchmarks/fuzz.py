"""Fuzzing: damaged DICOM files and tables, and odd values of a configuration, of which none may end in a traceback.

A mutant is a function of its number and a seed. Each file is read in a process of its own pool, so that a decoder that
dies, or one that takes longer than `LIMIT_S`, costs one mutant and is counted.
"""

import codecs
import contextlib
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pydicom
from absl import flags
from ml_collections import config_flags

from lesion import cli, workers
from lesion.benchmarks import intake, peak_mib
from lesion.dataset.render import render_series
from lesion.dicom import nifti, pictures, read, tables
from lesion.dicom.decide import decide
from lesion.dicom.rules import DEFAULT, Rules
from lesion.dicom.scan import Scan
from lesion.dicom.series import find_series
from lesion.errors import UserError

LIMIT_S, LIMIT_MIB = 10, 2048  # of one mutant; of a process that reads many
_HEADER_BYTES = 4096  # where most bits are flipped
_WORDS = (
    *("", " ", "0", "-0", "-1", "1", "1.5", "1e400", "-1e400", "1e-400", "nan", "inf", "-inf", "1_000", "0x10", "1e3"),
    *(
        "2147483648",
        "-9223372036854775809",
        "9" * 400,
        "9" * 5000,
        "٣",
        "½",
        "²",
        "None",
        "True",
        "no",
        "...",
        "\\",
        "'",
    ),
    *('"', "(", "[", "{", ")", "((((", "(" * 300, "a,b", ",", ",,", ";", "\t", "\n", "\r\n", "\0", "\ufeff", "\ud800"),
    *(
        "e\u0301",
        "=1+1",
        "lambda: 1",
        "__import__('os')",
        "1 if 1 else 2",
        "1+1j",
        "b'x'",
        "f'{1}'",
        "*",
        "1/0",
        "-" * 300,
    ),
)
_FORMS = ("{}", "({},)", "[{}]", "{{'lr': {}}}")
ODD = tuple(dict.fromkeys(form.format(word) for word in _WORDS for form in _FORMS))
TABLES: Mapping[str, str] = {
    tables.PATIENTS: "patient_id,label,fold,group,age\nP1,glioma,0,a,50\nP2,0,1,b,61\n007,,0,a,\n1.2E+12,1,1,,7\n",
    tables.SLICES: "sop_instance_uid,frame\n1.2.3,1\n1.2.4,\n",
    tables.SERIES: "series_instance_uid,sequence\n1.2,flair\n1.3,skip\n",
    tables.READERS: "patient_id,reader,label\nP1,Li,1\nP2,Ye,0\n",
    pictures.IMAGES: "file,patient_id,sequence,position\na.png,P1,flair,1.5\nb.png,P2,t2wi,\n",
    nifti.PARTICIPANTS: "participant_id\tdx\nsub-1\tglioma\n2\tn/a\n",
}
_PRESENT: Mapping[str, tuple[str, ...]] = {"P1": (), "P2": ("病例",), "0007": (), "1234567890001": ()}


class Task(NamedTuple):
    """A mutant to be read: the content of a DICOM file, or of the table that is called `table`."""

    content: bytes
    table: str = ""


class Outcome(NamedTuple):
    """What reading a mutant came to.

    Attributes:
        failure: empty, or a traceback, or why the process died.
        peak_mib: of the process that read it, and others before.
        died: whether a codec ended the process, which `prepare` survives without this one file.
    """

    failure: str
    peak_mib: float
    died: bool = False


def seed_files() -> list[bytes]:
    """Returns the content of small DICOM files: pydicom's own, and those of a made-up visit."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    paths = sorted(path for path in folder.glob("*.dcm") if path.stat().st_size < 2**18)
    with tempfile.TemporaryDirectory() as name:
        made = intake.make_tree(Path(name, "tree"), 5, 16)
        paths += sorted(path for path in made.rglob("*") if path.is_file() and path.suffix != ".csv")
        return [path.read_bytes() for path in paths]


def mutate_dicom(content: bytes, rng: random.Random) -> bytes:
    """Returns a damaged copy of a DICOM file: bits flipped, cut short, or values of elements replaced or exchanged."""
    data = bytearray(content)
    kind = rng.choice(["flip", "cut", "replace", "replace", "swap"])
    if kind == "cut":
        return bytes(data[: rng.randrange(len(data))])
    if kind == "flip":
        for _ in range(rng.randint(1, 8)):
            end = len(data) if rng.random() < 0.3 else min(len(data), _HEADER_BYTES)
            data[rng.randrange(end)] ^= 1 << rng.randrange(8)
        return bytes(data)
    spans = [span for keyword in read.KEYWORDS for span in _find_value(data, keyword)]
    for _ in range(rng.randint(1, 3) if spans else 0):
        start, end = rng.choice(spans)
        if kind == "swap":
            first, last = rng.choice(spans)
            value = bytes(data[first:last])
        else:
            odd = rng.choice(ODD).encode(errors="surrogatepass")
            value = rng.choice([bytes(end - start), b"\xff" * (end - start), b"\x80" * (end - start), odd, odd])
        data[start:end] = value[: end - start].ljust(end - start)
    return bytes(data)


def _find_value(data: bytes | bytearray, keyword: str) -> list[tuple[int, int]]:
    """Returns where the value of an element lies, as in an explicit little-endian file with a short length."""
    tag = pydicom.tag.Tag(keyword)
    at = data.find(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little"))
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    return [(at + 8, at + 8 + length)] if at >= 0 and 0 < length <= len(data) - at - 8 else []


def mutate_table(content: str, rng: random.Random) -> bytes:
    """Returns a damaged copy of a table: odd cells, cells exchanged, another encoding, bits flipped, cut short."""
    rows = [line.split("\t" if "\t" in content else ",") for line in content.splitlines()]
    for _ in range(rng.randint(0, 3)):
        row, other = rng.choice(rows), rng.choice(rows)
        column, further = rng.randrange(len(row)), rng.randrange(len(other))
        if rng.random() < 0.5:
            row[column], other[further] = other[further], row[column]
        else:
            row[column] = rng.choice(ODD)
    text = rng.choice(["\n", "\r\n", "\r"]).join(rng.choice(",,,;\t").join(row) for row in rows)
    text = rng.choice(["", "", "", "sep=;\n", "sep=\0\n", 'sep="\n', "sep= \n"]) + text
    codec = rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-be", "gb18030", "cp1251", "utf-7"])
    data = bytearray(
        text.encode(codec, "replace") if codec != "utf-16-be" else codecs.BOM_UTF16_BE + text.encode(codec, "replace")
    )
    if data and rng.random() < 0.3:
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.2 else data)


def dicom_tasks(seeds: Sequence[bytes], number: int, seed: int = 0) -> list[Task]:
    """Returns so many mutants of DICOM files."""
    return [Task(mutate_dicom(seeds[i % len(seeds)], random.Random(f"{seed}/{i}"))) for i in range(number)]


def table_tasks(number: int, seed: int = 0) -> list[Task]:
    """Returns so many mutants of tables, each table in turn."""
    names = sorted(TABLES)
    return [
        Task(mutate_table(TABLES[names[i % len(names)]], random.Random(f"{seed}/{i}")), names[i % len(names)])
        for i in range(number)
    ]


def read_all(tasks: Sequence[Task], title: str) -> list[Outcome]:
    """Reads mutants in other processes, as the programs would."""
    return list(workers.parallel_map(_read, tasks, title, _died, chunk_size=8, max_serial=0))


def _read(task: Task) -> Outcome:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, also in a codec that Python cannot interrupt
    signal.alarm(LIMIT_S)
    failure = ""
    try:
        with tempfile.TemporaryDirectory() as name:
            _read_table(Path(name), task) if task.table else _read_dicom(Path(name), task)
    except Exception:
        failure = traceback.format_exc()
    finally:
        signal.alarm(0)
    return Outcome(failure, peak_mib())


def _died(task: Task) -> Outcome:
    """Tells a hang, and a death outside of a codec, which are failures, from one that a codec died."""
    start = time.monotonic()
    workers.survives(_read, task)
    if time.monotonic() - start > LIMIT_S:
        return Outcome(f"more than {LIMIT_S} s: {task.content!r}", 0.0)
    with tempfile.TemporaryDirectory() as name:
        Path(name, "image").write_bytes(task.content)
        header = read.read_header(name, "image")
    by_codec = isinstance(header, read.Instance) and header.compressed and not task.table
    return Outcome("" if by_codec else f"died: {task.content!r}", 0.0, died=True)


def _read_dicom(folder: Path, task: Task) -> None:
    """Reads a DICOM file as `prepare` does: header, decision, pixels, picture."""
    (folder / "image").write_bytes(task.content)
    header = read.read_header(str(folder), "image")
    if not isinstance(header, read.Instance):
        return
    user = tables.UserTables({}, None, {header.series_uid: ("flair", 2)}, {})
    rules = Rules(DEFAULT)
    for series in decide(find_series(folder, Scan([header], [], [], {}), rules), user, rules):
        if series.used:
            render_series(series)


def _read_table(folder: Path, task: Task) -> None:
    """Reads a table as `prepare` does; a `UserError` of one line is what it should end in."""
    for name in ("a.png", "b.png"):
        (folder / name).touch()
    for name, content in TABLES.items():
        (folder / name).write_text(content)
    (folder / task.table).write_bytes(task.content)
    try:
        tables.match_patients(folder, tables.read_tables(folder), _PRESENT)
        pictures.read_images(folder)
        nifti.read_participants(folder, "dx")
    except UserError as error:
        if "\n" in str(error):
            raise ValueError("a message of several lines") from error


def configurations() -> list[str]:
    """Returns the configurations, as --config takes them, that need no argument."""
    files = []
    for file in cli.list_configs():
        with contextlib.suppress(UserError):
            cli.load_config(file)
            files.append(file)
    return files


def try_overrides(file: str, per_value: int, seed: int = 0) -> list[str]:
    """Overrides fields of a configuration with odd values; returns the tracebacks of those that end in one.

    Args:
        file: as --config takes it.
        per_value: so many fields are drawn for each odd value.
        seed: of the draw.
    """
    # Imported late: the processes that read mutants import this module and need no JAX.
    from lesion.active import doctor, experiment
    from lesion.transfer import checks, fusion

    of_file = {"active": experiment.check_active, "baselines": checks.check_config, "doctor": doctor.check_doctor}
    of_file |= {"fusion": fusion.check, "transfer": checks.check_config}
    check = of_file.get(Path(file).stem, lambda config: None)
    rng = random.Random(f"{seed}/{file}")
    failures, names = [], sorted(cli.flatten(cli.load_config(file)))
    for value in ODD:
        for name in rng.sample(names, min(per_value, len(names))):
            try:
                config, values = cli.load_config(file), flags.FlagValues()
                argv = ["program", *cli.override_flags(config, [f"--config.{name}={value}"])]
                config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
                values(argv)
            except (UserError, *cli.USER_MISTAKES):  # told in one line
                continue
            except Exception:
                failures.append(f"{file} --config.{name}={value[:80]!r}: {traceback.format_exc()}")
                continue
            try:
                check(values.config)
            except UserError:
                pass
            except Exception:
                failures.append(f"{file} --config.{name}={value[:80]!r}: {traceback.format_exc()}")
    return failures


def run(number: int) -> list[list[str]]:
    """Reads so many mutants of DICOM files and of tables, and tries odd values on every configuration.

    Returns:
        A table: mutants; failures, which are printed too; files that a codec died of; the peak memory, MiB.
    """
    rows = [["", "mutants", "failures", "codec died", "peak MiB"]]
    for title, tasks in (("DICOM", dicom_tasks(seed_files(), number)), ("tables", table_tasks(number))):
        outcomes = read_all(tasks, f"reading {title}")
        failures = [outcome.failure for outcome in outcomes if outcome.failure]
        print(*failures, sep="\n")
        died = sum(outcome.died for outcome in outcomes)
        peak_mib = max(outcome.peak_mib for outcome in outcomes)
        rows.append([title, f"{len(tasks)}", f"{len(failures)}", f"{died}", f"{peak_mib:.0f}"])
    failures = [failure for file in configurations() for failure in try_overrides(file, 3)]
    print(*failures, sep="\n")
    return [*rows, ["overrides", f"{3 * len(ODD) * len(configurations())}", f"{len(failures)}", "", ""]]
