"""Reads a run folder for the report: its experiments, and the reason why others cannot be shown.

The folder is that of launch/reproduce, with the subfolders of `_KINDS`, or of one run of launch/train or launch/active.
A broken experiment never hides the others: it becomes a row of `Folder.missing`, and one that left a failed.json a row
of `Folder.failed`.
"""

import base64
import collections
import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from lesion import errors, files, metrics
from lesion.classes import Classes
from lesion.metrics import stopping
from lesion.metrics.scores import check_columns
from lesion.report import paper
from lesion.report.records import (
    ALONE,
    FUSION_TITLES,
    LEAKAGE_TITLES,
    RANDOM,
    Experiment,
    External,
    Failed,
    Folder,
    GradCam,
    Predictions,
    Reader,
    Rounds,
    find_classes,
    has_random_weights,
)

T = TypeVar("T")
_FUSION_MODELS = (*FUSION_TITLES, *(f"{ALONE}{name}" for name in paper.TITLES))
_FAILED = "failed.json"
_PNG = b"\x89PNG\r\n\x1a\n"
# Required columns; others are read as well.
_PREDICTIONS = ("fold", "patient", "label", "probability")
_RUN_OF_CURVE = ("fold", "seed", "strategy")
_CURVES = ("round", "accuracy", "auc", "num_tied", "sure_share", *stopping.Trace._fields)
_ROUNDS = ("round", "labeled_slices", "labeled_patients", "max_entropy", "mean_entropy")
_NO_CALL = {"": -1, "-1": -1, "unlabeled": -1}


class BrokenError(Exception):
    """Raised for a file that cannot be shown; the message gives the reason in a few words."""


class _Source(NamedTuple):
    """A run folder that is being read; the lists grow meanwhile.

    Attributes:
        root: folder of the whole run.
        titles: {name of a backbone or baseline: title as tables print it}, in the plan's order.
        failed: failed runs found so far.
        missing: (name, reason) of each part that cannot be shown.
    """

    root: pathlib.Path
    titles: dict[str, str]
    failed: list[Failed]
    missing: list[tuple[str, str]]

    def name(self, path: pathlib.Path) -> str:
        """Returns a path relative to the root, "" for the root."""
        return "" if path == self.root else path.relative_to(self.root).as_posix()

    def attempt(self, path: pathlib.Path, read_path: Callable[[pathlib.Path], T]) -> T | None:
        """Returns `read_path(path)`; where that fails, adds the reason to `missing` and returns None."""
        try:
            return read_path(path)
        except (BrokenError, ValueError, TypeError) as error:  # not UTF-8, not a number, a short row, unscorable
            self.missing.append((self.name(path), str(error)))
            return None


def _json(path: pathlib.Path, *, optional: bool = False) -> dict[str, Any]:
    """Returns the object in a JSON file, or {} if the file is `optional` and absent; raises `BrokenError`."""
    if not path.is_file() and optional:
        return {}
    if not path.is_file():
        raise BrokenError("not written")
    try:
        value = files.read_json(path)
    except ValueError:  # covers errors of JSON and of UTF-8
        value = None
    if not isinstance(value, dict):
        raise BrokenError("not a JSON object")
    return value


def _picture(path: pathlib.Path) -> str:
    """Returns a PNG file as a data URI; raises `BrokenError` if it is absent or no PNG."""
    if not path.is_file():
        raise BrokenError("not written")
    data = path.read_bytes()
    if not data.startswith(_PNG):
        raise BrokenError("not a PNG file")
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _table(path: pathlib.Path, columns: Iterable[str]) -> pd.DataFrame:
    """Returns a CSV file with cells as text; raises `BrokenError` if it is absent, lacks a column or has no row."""
    if not path.is_file():
        raise BrokenError(f"no {path.name}: the experiment did not finish")
    table = pd.read_csv(path, dtype=str, na_filter=False, index_col=False)
    absent = [column for column in columns if column not in table]
    if absent:
        raise BrokenError(f"{path.name} lacks the column {', '.join(absent)}")
    if table.empty:
        raise BrokenError(f"{path.name} has no rows")
    return table


def _identity(source: _Source, folder: pathlib.Path, names: dict[str, str]) -> dict[str, Any]:
    """Returns the fields of an `Experiment`, from the `names` of its folders by level, else from its config.json."""
    config = source.attempt(folder / "config.json", _json) or {}
    fields = config.get("config", {})
    model = names.get("model") or str(fields.get("backbone", ""))
    alone = "" if names else str(config.get("part", ""))  # set where one part of a fusion is reported by itself
    sequence = model.removeprefix(ALONE) if model.startswith(ALONE) else str(fields.get("sequence") or alone)
    title = source.titles.get(model, model) + (RANDOM if has_random_weights(config) else "")
    return {
        "name": source.name(folder),
        "sequence": names.get("sequence", sequence),
        "model": model,
        "title": title,
        "config": config,
        "metrics": _json(folder / "metrics.json", optional=True),
    }


def _slices(source: _Source, folder: pathlib.Path, names: dict[str, str]) -> Predictions:
    """Reads predictions.csv and checks that slices can be scored; a patient may carry both labels."""
    table = _table(folder / "predictions.csv", _PREDICTIONS)
    table = table[~table["label"].isin(["-1", ""])]
    columns = {
        "fold": table["fold"].to_numpy(str),
        "patient": table["patient"].to_numpy(str),
        "label": table["label"].to_numpy(np.int64),
        "probability": table["probability"].to_numpy(np.float64),
    }
    check_columns(columns["label"], columns["probability"], columns["patient"])
    return Predictions(**columns, **_identity(source, folder, names))


def _patients(source: _Source, folder: pathlib.Path, names: dict[str, str]) -> Predictions:
    """Reads predictions.csv, and those of further deals of folds, and checks that patients can be scored."""
    run = _slices(source, folder, names)
    metrics.patient_means(*run.columns("slice"))
    deals = [_slices(source, deal, names) for deal in _subfolders(folder / "deals", ())]
    return dataclasses.replace(run, deals=tuple(deals))


def _external(source: _Source, folder: pathlib.Path, names: dict[str, str]) -> External:
    """Reads predictions.csv and evaluation.json of launch.evaluate."""
    return External(**vars(_patients(source, folder, names)), evaluation=_json(folder / "evaluation.json"))


def _active(source: _Source, folder: pathlib.Path, names: dict[str, str]) -> Rounds:
    """Reads curves.csv."""
    table = _table(folder / "curves.csv", (*_RUN_OF_CURVE, *_CURVES))
    table = table.astype({column: np.float64 for column in table if column not in _RUN_OF_CURVE})
    curves = table.sort_values([*_RUN_OF_CURVE, "round"], ignore_index=True)
    return Rounds(rounds=curves, **_identity(source, folder, names))


def _ablation(source: _Source, folder: pathlib.Path, names: dict[str, str]) -> Predictions | Rounds:
    """Reads a setting of a sweep over transfer or active learning."""
    read_setting = _active if (folder / "curves.csv").is_file() else _patients
    return read_setting(source, folder, names)


def _doctor(source: _Source, folder: pathlib.Path, names: dict[str, str]) -> Rounds:
    """Reads rounds.csv."""
    rounds = _table(folder / "rounds.csv", _ROUNDS).astype(np.float64)
    return Rounds(rounds=rounds, **_identity(source, folder, names))


def _permutation(source: _Source, folder: pathlib.Path, names: dict[str, str]) -> Experiment:
    """Reads metrics.json."""
    _json(folder / "metrics.json")
    return Experiment(**_identity(source, folder, names))


def _grad_cam(source: _Source, folder: pathlib.Path, names: dict[str, str]) -> GradCam:
    """Reads gradcam.png."""
    return GradCam(uri=_picture(folder / "gradcam.png"), **_identity(source, folder, names))


class _Kind(NamedTuple):
    """The layout of one kind of experiment.

    Attributes:
        levels: meaning of each level of folders between `KIND/` and the experiment.
        file: file that identifies a folder as a single run of this kind, "" if there are no such folders.
        read: function of (source, folder, names = {level: name}) that reads the experiment's folder.
    """

    levels: tuple[str, ...]
    file: str
    read: Callable[..., Experiment]


_KINDS = {
    "external": _Kind((), "evaluation.json", _external),
    "doctor": _Kind((), "rounds.csv", _doctor),  # before transfer: its predictions.csv is of training slices
    "active": _Kind(("sequence",), "curves.csv", _active),
    "transfer": _Kind(("model", "sequence"), "predictions.csv", _patients),
    "baselines": _Kind(("model", "sequence"), "", _patients),
    "fusion": _Kind(("model",), "", _patients),
    "leakage": _Kind(("sequence", "model"), "", _slices),
    "permutation": _Kind(("sequence",), "", _permutation),
    "ablations": _Kind(("sweep", "setting"), "", _ablation),
    "explain": _Kind(("model", "sequence"), "", _grad_cam),
}


def _subfolders(parent: pathlib.Path, known: tuple[str, ...]) -> list[pathlib.Path]:
    """Returns the folders in `parent`: `known` names in their order, then others in natural order of numbers."""

    def order(folder: pathlib.Path) -> tuple[int, list[tuple[float, str]]]:
        parts = re.findall(r"\d+(?:\.\d+)?|[^\d]+", folder.name)
        natural = [(float(part), "") if part[0].isdigit() else (np.inf, part) for part in parts]
        return (known.index(folder.name) if folder.name in known else len(known)), natural

    folders = parent.iterdir() if parent.is_dir() else ()
    return sorted((f for f in folders if f.is_dir() and not f.name.startswith(".")), key=order)


def _walk(
    folder: pathlib.Path, levels: tuple[str, ...], known: dict[str, tuple[str, ...]]
) -> Iterator[tuple[pathlib.Path, dict[str, str]]]:
    """Yields (folder, {level: name}) of the experiments below `folder`, or of a part that failed as a whole."""
    if not levels or (folder / _FAILED).is_file():
        yield folder, {}
        return
    for child in _subfolders(folder, known.get(levels[0], ())):
        for path, names in _walk(child, levels[1:], known):
            yield path, {levels[0]: child.name} | names


def _experiments(source: _Source, kind: str, folders: Iterable[tuple[pathlib.Path, dict[str, str]]]) -> tuple[Any, ...]:
    """Reads the experiments of one kind; records failed and broken ones in `source`."""
    results = []
    for folder, names in folders:
        if (folder / _FAILED).is_file():  # a success removes it: files beside it are an older run's
            source.failed.append(_failed(source, folder))
        else:
            results.append(source.attempt(folder, functools.partial(_KINDS[kind].read, source, names=names)))
    return tuple(experiment for experiment in results if experiment is not None)


def _failed(source: _Source, folder: pathlib.Path) -> Failed:
    """Reads failed.json."""
    record = source.attempt(folder / _FAILED, _json) or {}
    error = " ".join(str(record.get("error", "no reason was written")).split())
    return Failed(source.name(folder), error, str(record.get("when", "")), str(record.get("command", "")))


def _readers(classes: Classes, path: pathlib.Path) -> tuple[Reader, ...]:
    """Reads readers.csv (patient, reader, label), leaving out unsure calls; returns () without the file."""
    if not path.is_file():
        return ()
    table = _table(path, ("patient", "reader", "label"))
    twice = table.loc[table.duplicated(["patient", "reader"]), "reader"]
    if twice.size:  # the patient is not named, because this is printed on the page
        raise BrokenError(f"{path.name} has two answers of {twice.iloc[0]} for one patient")
    calls = classes.by_word | _NO_CALL
    word = table["label"].str.strip().str.lower()
    unknown = word[~word.isin(list(calls))]
    if unknown.size:
        raise BrokenError(f"{path.name} has a label that is neither 0 nor 1: {unknown.iloc[0][:20]}")
    table = table.assign(call=word.map(calls))
    by_reader = table[table["call"] >= 0].groupby("reader")
    return tuple(
        Reader(name.replace("_", " "), rows["patient"].to_numpy(str), rows["call"].to_numpy(np.int64))
        for name, rows in sorted(by_reader, key=lambda item: (len(item[0]), item[0]))
    )


def _titles(models: dict[str, Any], specs: dict[str, Any], plan: dict[str, Any]) -> dict[str, str]:
    """Returns {model: title}, the plan's models first; the variant in a title is cut if no two run models share it."""
    titles = {name: str(row["title"]) for name, row in (models | specs).items()}
    run = [name.split("/")[1] for name in plan.get("experiments", ()) if name.count("/") == 2]
    short = {
        name: titles[name] if name in specs else titles[name].split(",")[0]  # a comma in it begins no variant
        for name in dict.fromkeys(run)
        if name in titles
    }
    counts = collections.Counter(short.values())
    return {name: title if counts[title] == 1 else titles[name] for name, title in short.items()} | {
        name: title for name, title in titles.items() if name not in short
    }


def _whole(workdir: pathlib.Path) -> Folder:
    """Reads a folder of launch/reproduce."""
    source = _Source(workdir, {}, [], [])
    cohort, config, models = (
        source.attempt(workdir / name, _json) or {} for name in ("cohort/cohort.json", "config.json", "models.json")
    )
    optional = functools.partial(_json, optional=True)
    specs, plan = (source.attempt(workdir / name, optional) or {} for name in ("baselines.json", "plan.json"))
    pictures = {name: source.attempt(workdir / "cohort" / f"{name}.png", _picture) for name in paper.COHORT_PICTURES}
    source.titles.update(_titles(models, specs, plan))
    source.missing.extend((name, f"left out: {reason}") for name, reason in plan.get("left_out", {}).items())
    source.missing.extend((name, "not run") for name in plan.get("experiments", ()) if not (workdir / name).is_dir())
    readers = source.attempt(workdir / "readers.csv", functools.partial(_readers, find_classes(cohort, config))) or ()
    known = {"model": (*source.titles, *_FUSION_MODELS, *LEAKAGE_TITLES), "sequence": tuple(paper.TITLES)}
    experiments: dict[str, Any] = {
        name: _experiments(source, name, _walk(workdir / name, kind.levels, known))
        for name, kind in _KINDS.items()
        if kind.levels
    }
    return Folder(
        config=config,
        cohort=cohort,
        pictures={name: uri for name, uri in pictures.items() if uri},
        models=models,
        baseline_specs=specs,
        titles=source.titles,
        readers=readers,
        failed=tuple(source.failed),
        missing=tuple(source.missing),
        **experiments,
    )


def _single(workdir: pathlib.Path, kind: str) -> Folder:
    """Reads a folder that is one run of launch/train or launch/active; raises UserError if it cannot be shown."""
    source = _Source(workdir, {}, [], [])
    runs = _experiments(source, kind, [(workdir, {})])
    if source.failed:
        raise errors.UserError(f"{workdir} failed: {source.failed[0].error}; run it again, then the report")
    if not runs:
        raise errors.UserError(f"{workdir} cannot be shown: {'; '.join(reason for _, reason in source.missing)}")
    experiments: dict[str, Any] = {kind: runs}
    read_readers = functools.partial(_readers, find_classes(runs[0].config))
    readers = source.attempt(workdir / "readers.csv", read_readers) or ()
    return Folder(config=runs[0].config, readers=readers, missing=tuple(source.missing), **experiments)


def read(workdir: pathlib.Path) -> Folder:
    """Reads a folder of launch/reproduce, or a single run of launch/train, launch/active or launch/evaluate.

    Args:
        workdir: folder with transfer/BACKBONE/SEQUENCE, baselines/NAME/SEQUENCE, fusion/WAY, leakage/SEQUENCE/CELL,
            permutation/SEQUENCE, active/SEQUENCE, ablations/SWEEP/SETTING, explain/BACKBONE/SEQUENCE, cohort/,
            models.json, baselines.json, readers.csv, plan.json and config.json, any of them; or with the files of one
            run; or with the WAY folders of a fusion.

    Returns:
        A `Folder` with at least one experiment, a failed one or a cohort.

    Raises:
        UserError: the folder does not exist or holds nothing to report.
    """
    if not workdir.is_dir():
        raise errors.UserError(f"{workdir}: no such folder; give --workdir the folder of a finished run")
    for kind, (_, file, _) in _KINDS.items():
        if file and (workdir / file).is_file():
            return _single(workdir, kind)
    fused = [(workdir / model, {"model": model}) for model in _FUSION_MODELS if (workdir / model).is_dir()]
    if fused:
        source = _Source(workdir, {}, [], [])
        fusion = _experiments(source, "fusion", fused)
        return Folder(fusion=fusion, failed=tuple(source.failed), missing=tuple(source.missing))
    folder = _whole(workdir)
    if not (folder.cohort or folder.failed or any(folder.experiments())):
        raise errors.UserError(
            f"{workdir}: nothing to report: no predictions.csv, curves.csv, transfer/, active/ or cohort/ that can be "
            "read; run launch/reproduce, launch/train or launch/active with this --workdir first"
        )
    return folder
