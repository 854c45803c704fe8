"""Reads a run folder for the report: whatever is there, and in words what is not.

The folder is `WORKDIR/{config.json, cohort/, transfer/<sequence>/, active/<sequence>/}` of launch/reproduce, or a
single RUN_DIR of launch/train (predictions.csv) or launch/active (curves.csv). A broken experiment never hides the
others: it becomes a row of `Folder.missing`.
"""

import base64
import csv
import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from lesion import errors, metrics
from lesion.report import paper

# Columns of predictions.csv and curves.csv that the report cannot do without; others are welcome.
_PREDICTIONS = ("fold", "patient", "label", "probability")
_CURVES = ("fold", "seed", "strategy", "round", "labeled_slices", "labeled_patients", "accuracy", "auc")
_STOPS = ("strategy", "rule", "fold", "labeled_slices", "accuracy_lost")
_ROUNDS = ("round", "labeled_slices", "labeled_patients", "max_entropy", "mean_entropy")
_PNG = b"\x89PNG\r\n\x1a\n"


class Transfer(NamedTuple):
    """Cross-validated predictions of one sequence; unlabelled rows are left out.

    Attributes:
        sequence: flair, ce_t1wi, t2wi or whatever the run calls itself.
        config: its config.json, {} where there is none.
        fold: str [N].
        patient: str [N], pseudonyms.
        label: int64 [N] in {0, 1}.
        probability: float64 [N] of glioma.
    """

    sequence: str
    config: dict[str, Any]
    fold: np.ndarray
    patient: np.ndarray
    label: np.ndarray
    probability: np.ndarray


class Labelling(NamedTuple):
    """Labelling curves of one sequence.

    Attributes:
        sequence: as in `Transfer`.
        config: its config.json, {} where there is none.
        metrics: its metrics.json, {} where there is none.
        runs: {strategy: {(fold, seed): {column: float64 [T] in the order of rounds}}}.
        stops: the rows of stops.csv, none where there is no such file.
    """

    sequence: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    runs: dict[str, dict[tuple[str, str], dict[str, np.ndarray]]]
    stops: tuple[dict[str, str], ...] = ()


class Doctor(NamedTuple):
    """The rounds that a doctor answered, of one sequence.

    Attributes:
        sequence: as in `Transfer`.
        config: its config.json, {} where there is none.
        metrics: its metrics.json, {} while it goes on.
        rounds: {column of rounds.csv: float64 [T]}.
    """

    sequence: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    rounds: dict[str, np.ndarray]


class Folder(NamedTuple):
    """All that a run folder holds.

    Attributes:
        config: the top config.json, {} where there is none.
        cohort: cohort.json, {} where there is none.
        sheets: {"preprocessing" or "cohort": PNG as a data URI}.
        transfer: in the order FLAIR, CE-T1WI, T2WI, others.
        labelling: likewise.
        missing: (what, why) of each part that is not shown.
        models: models.json, the registry of backbones, {} where there is none.
        doctor: the run that a doctor answers, if the folder is of one.
    """

    config: dict[str, Any]
    cohort: dict[str, Any]
    sheets: dict[str, str]
    transfer: list[Transfer]
    labelling: list[Labelling]
    missing: list[tuple[str, str]]
    models: dict[str, Any]
    doctor: tuple[Doctor, ...] = ()


class _BrokenError(Exception):
    """A file that cannot be shown, with the reason in a few words."""


def _json(path: pathlib.Path, missing: list[tuple[str, str]], *, wanted: bool = True) -> dict[str, Any]:
    """The object in a JSON file; {} and a row of `missing` where there is none to read."""
    if not path.is_file():
        if wanted:
            missing.append((f"{path.parent.name}/{path.name}", "not written"))
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError:  # JSON and UTF-8 errors both are
        value = None
    if not isinstance(value, dict):
        missing.append((f"{path.parent.name}/{path.name}", "not a JSON object"))
        return {}
    return value


def _rows(path: pathlib.Path, columns: tuple[str, ...], *, some: bool = True) -> list[dict[str, str]]:
    """The rows of a CSV file by column name; raises `_BrokenError` without the columns or, if `some`, without a row."""
    if not path.is_file():
        raise _BrokenError(f"no {path.name}: the experiment did not finish")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        absent = [c for c in columns if c not in (reader.fieldnames or ())]
        if absent:
            raise _BrokenError(f"{path.name} lacks the column {', '.join(absent)}")
        rows = list(reader)
    if some and not rows:
        raise _BrokenError(f"{path.name} has no rows")
    return rows


def _number(text: str | None) -> float:
    """A cell as a number; empty is NaN, True and False are 1 and 0."""
    named = {"": math.nan, "true": 1.0, "false": 0.0}
    key = (text or "").strip().lower()
    return named[key] if key in named else float(key)


def _sequence(folder: pathlib.Path, config: dict[str, Any]) -> str:
    """The folder's name where that is a sequence, else what the config says, else the folder's name."""
    inner = config.get("config")
    said = inner.get("sequence") if isinstance(inner, dict) else None
    return folder.name if folder.name in paper.TITLES or not said else str(said)


def _transfer(folder: pathlib.Path, missing: list[tuple[str, str]]) -> Transfer:
    rows = [r for r in _rows(folder / "predictions.csv", _PREDICTIONS) if r["label"] not in ("-1", "")]
    config = _json(folder / "config.json", missing)
    run = Transfer(
        _sequence(folder, config),
        config,
        np.array([r["fold"] for r in rows]),
        np.array([r["patient"] for r in rows]),
        np.array([int(r["label"]) for r in rows]),
        np.array([float(r["probability"]) for r in rows]),
    )
    metrics.evaluate(run.label, run.probability, run.patient, num_resamples=0)  # raises for what cannot be scored
    return run


def _labelling(folder: pathlib.Path, missing: list[tuple[str, str]]) -> Labelling:
    rows = _rows(folder / "curves.csv", _CURVES)
    numeric = [c for c in (*_CURVES[3:], "max_entropy") if c in rows[0]]
    grouped: dict[str, dict[tuple[str, str], list[dict[str, float]]]] = {}
    for row in rows:
        run = grouped.setdefault(row["strategy"], {}).setdefault((row["fold"], row["seed"]), [])
        run.append({c: _number(row[c]) for c in numeric})
    runs: dict[str, dict[tuple[str, str], dict[str, np.ndarray]]] = {}
    for strategy, by_run in grouped.items():
        runs[strategy] = {}
        for key in sorted(by_run):
            points = sorted(by_run[key], key=lambda point: point["round"])
            runs[strategy][key] = {c: np.array([p[c] for p in points]) for c in numeric}
    config = _json(folder / "config.json", missing)
    stops: tuple[dict[str, str], ...] = ()
    if (folder / "stops.csv").is_file():  # without a row where no rule would have stopped a run
        stops = tuple(_rows(folder / "stops.csv", _STOPS, some=False))
    scores = _json(folder / "metrics.json", missing, wanted=False)
    return Labelling(_sequence(folder, config), config, scores, runs, stops)


def _doctor(folder: pathlib.Path, missing: list[tuple[str, str]]) -> Doctor:
    rows = _rows(folder / "rounds.csv", _ROUNDS)
    config = _json(folder / "config.json", missing)
    rounds = {c: np.array([_number(row[c]) for row in rows]) for c in _ROUNDS}
    return Doctor(_sequence(folder, config), config, _json(folder / "metrics.json", missing, wanted=False), rounds)


def _order(folder: pathlib.Path) -> tuple[int, str]:
    known = list(paper.TITLES)
    return (known.index(folder.name) if folder.name in known else len(known), folder.name)


def _plan(config: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The sequences that launch/reproduce was to run: of transfer, and of active labelling."""
    inner = config.get("config")
    inner = inner if isinstance(inner, dict) else {}
    active = inner.get("active")
    return list(inner.get("transfer_sequences") or ()), list((active or {}).get("sequences") or ())


def _try(reader: Any, folder: pathlib.Path, name: str, runs: list[Any], missing: list[tuple[str, str]]) -> None:
    """Appends one run, or a row of `missing` that says why it cannot be shown."""
    try:
        runs.append(reader(folder, missing))
    except (_BrokenError, ValueError, TypeError) as error:  # not UTF-8, no number, a short row, not to be scored
        missing.append((name, str(error)))


def _experiments(parent: pathlib.Path, plan: list[str], reader: Any, missing: list[tuple[str, str]]) -> list[Any]:
    """Every run under `parent`; the broken ones, and those of the plan that are not there, become rows of `missing`."""
    runs: list[Any] = []
    there = {f.name for f in parent.iterdir() if f.is_dir()} if parent.is_dir() else set()
    missing += [(f"{parent.name}/{name}", "not run") for name in plan if name not in there]
    if not there and not plan:
        missing.append((parent.name, "not run"))
    for folder in sorted((parent / name for name in there), key=_order):
        _try(reader, folder, f"{parent.name}/{folder.name}", runs, missing)
    return runs


def _sheet(path: pathlib.Path, missing: list[tuple[str, str]]) -> str | None:
    if not path.is_file():
        missing.append((f"cohort/{path.name}", "not written"))
        return None
    data = path.read_bytes()
    if not data.startswith(_PNG):
        missing.append((f"cohort/{path.name}", "not a PNG file"))
        return None
    return "data:image/png;base64," + base64.b64encode(data).decode()


def read(workdir: pathlib.Path) -> Folder:
    """Reads a folder of launch/reproduce, or a single run of launch/train or launch/active.

    Args:
        workdir: the folder.

    Returns:
        A `Folder`; at least one experiment or a cohort is in it.

    Raises:
        UserError: no such folder, or nothing in it to report.
    """
    if not workdir.is_dir():
        raise errors.UserError(f"{workdir}: no such folder; give --workdir the folder of a finished run")
    missing: list[tuple[str, str]] = []
    config: dict[str, Any] = {}
    cohort: dict[str, Any] = {}
    sheets: dict[str, str] = {}
    models: dict[str, Any] = {}
    transfer: list[Any] = []
    labelling: list[Any] = []
    doctor: list[Any] = []
    single = False
    tables: list[Any] = [("predictions.csv", _transfer, transfer), ("curves.csv", _labelling, labelling)]
    if (workdir / "rounds.csv").is_file():  # its predictions.csv is of slices that were trained on
        tables = [("rounds.csv", _doctor, doctor)]
    for name, reader, runs in tables:
        if (workdir / name).is_file():
            single = True
            _try(reader, workdir, name, runs, missing)
    if not single:
        cohort = _json(workdir / "cohort" / "cohort.json", missing)
        for name in ("preprocessing", "cohort"):
            uri = _sheet(workdir / "cohort" / f"{name}.png", missing)
            if uri:
                sheets[name] = uri
        config = _json(workdir / "config.json", missing)
        models = _json(workdir / "models.json", missing)
        plan = _plan(config)
        transfer = _experiments(workdir / "transfer", plan[0], _transfer, missing)
        labelling = _experiments(workdir / "active", plan[1], _labelling, missing)
    if single and missing and not (transfer or labelling or doctor):
        raise errors.UserError(f"{workdir} cannot be shown: " + "; ".join(f"{what}: {why}" for what, why in missing))
    if not (cohort or transfer or labelling or doctor):
        raise errors.UserError(
            f"{workdir}: nothing to report: no predictions.csv, curves.csv, transfer/, active/ or cohort/ that can be "
            "read; run launch/reproduce, launch/train or launch/active with this --workdir first"
        )
    if single:
        config = [*transfer, *labelling, *doctor][0].config
    return Folder(config, cohort, sheets, transfer, labelling, missing, models, tuple(doctor))
