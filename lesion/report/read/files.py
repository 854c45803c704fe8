"""The files of a run folder, one by one; what cannot be shown is said in a few words."""

import base64
import csv
import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from lesion import metrics
from lesion.report import paper
from lesion.report.read.records import Doctor, Failed, Labelling, Reader, Run

# Columns that the report cannot do without; others are welcome.
_PREDICTIONS = ("fold", "patient", "label", "probability")
_CURVES = ("fold", "seed", "strategy", "round", "labeled_slices", "labeled_patients", "accuracy", "auc")
_STOPS = ("strategy", "rule", "fold", "labeled_slices", "accuracy_lost")
_ROUNDS = ("round", "labeled_slices", "labeled_patients", "max_entropy", "mean_entropy")
_PNG = b"\x89PNG\r\n\x1a\n"
RANDOM = ", random weights"
_CALLS = {"0": 0, "1": 1, "encephalitis": 0, "glioma": 1}
_UNSURE = ("", "-1", "unlabeled")  # could not tell


class BrokenError(Exception):
    """A file that cannot be shown, with the reason in a few words."""


class Source(NamedTuple):
    """Where the files lie, what they call models, and what is not there.

    Attributes:
        root: the whole run's folder.
        missing: (what, why), added to while reading.
        titles: {name of a backbone or baseline: as a table writes it}.
    """

    root: pathlib.Path
    missing: list[tuple[str, str]]
    titles: dict[str, str]

    def name(self, path: pathlib.Path) -> str:
        """A path below the root, "" for the root."""
        return "" if path == self.root else path.relative_to(self.root).as_posix()


def json_object(source: Source, path: pathlib.Path, *, wanted: bool = True) -> dict[str, Any]:
    """The object in a JSON file; {} and a row of `missing` where there is none to read."""
    if not path.is_file():
        if wanted:
            source.missing.append((source.name(path), "not written"))
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError:  # JSON and UTF-8 errors both are
        value = None
    if not isinstance(value, dict):
        source.missing.append((source.name(path), "not a JSON object"))
        return {}
    return value


def part(config: dict[str, Any], name: str) -> dict[str, Any]:
    """An object inside a config, {} where there is none."""
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def is_random(config: dict[str, Any]) -> bool:
    """Whether the method lacked its weights; what is trained from scratch needs none."""
    return part(config, "weights").get("pretrained") is False and part(config, "config").get("mode") != "scratch"


def called(title: str, config: dict[str, Any]) -> str:
    """A title that says so where the weights are random."""
    return title + RANDOM if is_random(config) else title


def _rows(path: pathlib.Path, columns: Iterable[str], *, some: bool = True) -> list[dict[str, str]]:
    """The rows of a CSV file by column name; raises `BrokenError` without the columns or, if `some`, without a row."""
    if not path.is_file():
        raise BrokenError(f"no {path.name}: the experiment did not finish")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        absent = [c for c in columns if c not in (reader.fieldnames or ())]
        if absent:
            raise BrokenError(f"{path.name} lacks the column {', '.join(absent)}")
        rows = list(reader)
    if some and not rows:
        raise BrokenError(f"{path.name} has no rows")
    return rows


def _number(text: str | None) -> float:
    """A cell as a number; empty is NaN, True and False are 1 and 0."""
    named = {"": math.nan, "true": 1.0, "false": 0.0}
    key = (text or "").strip().lower()
    return named[key] if key in named else float(key)


def _sequence(folder: pathlib.Path, config: dict[str, Any]) -> str:
    """The folder's name where that is a sequence, else what the config says, else the folder's name."""
    said = part(config, "config").get("sequence")
    return folder.name if folder.name in paper.TITLES or not said else str(said)


def predictions(source: Source, folder: pathlib.Path, model: str | None = None, sequence: str | None = None) -> Run:
    """Reads predictions.csv and config.json.

    Args:
        source: where the folder lies.
        folder: of the run.
        model: its name; None takes the config's backbone.
        sequence: its name; None takes the folder's or the config's.

    Returns:
        The run, scored once so that what cannot be scored is found here.

    Raises:
        BrokenError: a file or column is not there.
        ValueError: a number is none, or the predictions cannot be scored.
    """
    rows = [r for r in _rows(folder / "predictions.csv", _PREDICTIONS) if r["label"] not in ("-1", "")]
    config = json_object(source, folder / "config.json")
    if model is None:
        model = str(part(config, "config").get("backbone") or part(config, "weights").get("model") or "")
    label, probability = np.array([int(r["label"]) for r in rows]), np.array([float(r["probability"]) for r in rows])
    run = Run(
        _sequence(folder, config) if sequence is None else sequence,
        config,
        np.array([r["fold"] for r in rows]),
        np.array([r["patient"] for r in rows]),
        label,
        probability,
        model,
        called(source.titles.get(model, model), config),
        source.name(folder),
        np.array([r.get("slice") or "" for r in rows]),
        json_object(source, folder / "metrics.json", wanted=False),
    )
    metrics.evaluate(label, probability, np.arange(label.size), num_resamples=0)
    return run


def scored(source: Source, folder: pathlib.Path, model: str | None = None, sequence: str | None = None) -> Run:
    """`predictions` that a patient's score can be made of; raises ValueError where one carries both labels."""
    run = predictions(source, folder, model, sequence)
    metrics.patient_means(run.label, run.probability, run.patient)
    return run


def labelling(source: Source, folder: pathlib.Path) -> Labelling:
    """Reads curves.csv and what lies beside it; raises as `predictions`."""
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
    config = json_object(source, folder / "config.json")
    stops: tuple[dict[str, str], ...] = ()
    if (folder / "stops.csv").is_file():  # without a row where no rule would have stopped a run
        stops = tuple(_rows(folder / "stops.csv", _STOPS, some=False))
    scores = json_object(source, folder / "metrics.json", wanted=False)
    model = str(part(config, "config").get("backbone") or "")
    title = called(source.titles.get(model, model), config)
    return Labelling(_sequence(folder, config), config, scores, runs, stops, source.name(folder), title)


def doctor(source: Source, folder: pathlib.Path) -> Doctor:
    """Reads rounds.csv; raises as `predictions`."""
    rows = _rows(folder / "rounds.csv", _ROUNDS)
    config = json_object(source, folder / "config.json")
    rounds = {c: np.array([_number(row[c]) for row in rows]) for c in _ROUNDS}
    scores = json_object(source, folder / "metrics.json", wanted=False)
    return Doctor(_sequence(folder, config), config, scores, rounds, source.name(folder))


def failed(source: Source, folder: pathlib.Path, model: str = "") -> Failed:
    """Reads failed.json."""
    told = json_object(source, folder / "failed.json")
    error = " ".join(str(told.get("error") or "no reason was written").split())
    when, command = (str(told.get(key) or "") for key in ("when", "command"))
    return Failed(source.name(folder), error, when, command, source.titles.get(model, model))


def readers(path: pathlib.Path) -> tuple[Reader, ...]:
    """Reads readers.csv (patient, reader, label), () where there is none; readers in the order of their names.

    Raises:
        BrokenError: a column is not there, or a reader says two things of one patient.
    """
    if not path.is_file():
        return ()
    found: dict[str, dict[str, str]] = {}
    for row in _rows(path, ("patient", "reader", "label")):
        own, said = found.setdefault(row["reader"], {}), (row["label"] or "").strip().lower()
        if row["patient"] in own:  # which patient is not told: this goes onto the page
            raise BrokenError(f"{path.name} has two answers of {row['reader']} for one patient")
        if said not in (*_CALLS, *_UNSURE):
            raise BrokenError(f"{path.name} has a label that is neither 0 nor 1: {said[:20]}")
        own[row["patient"]] = said
    result = []
    for name in sorted(found, key=lambda name: (len(name), name)):
        calls = {patient: _CALLS[said] for patient, said in found[name].items() if said in _CALLS}
        if calls:  # a reader who could not tell is no point of a ROC figure
            result.append(Reader(name.replace("_", " "), np.array(list(calls)), np.array(list(calls.values()))))
    return tuple(result)


def picture(source: Source, path: pathlib.Path) -> str | None:
    """A PNG file as a data URI, or None and a row of `missing`."""
    data = path.read_bytes() if path.is_file() else None
    if data is not None and data.startswith(_PNG):
        return "data:image/png;base64," + base64.b64encode(data).decode()
    source.missing.append((source.name(path), "not written" if data is None else "not a PNG file"))
    return None
