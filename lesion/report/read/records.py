"""What the report knows of a run folder: one record an experiment."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np


class Run(NamedTuple):
    """Cross-validated predictions of one network on one sequence; unlabelled rows are left out.

    Attributes:
        sequence: flair, ce_t1wi, t2wi or whatever the run calls itself; "" where it saw all of them.
        config: its config.json, {} where there is none.
        fold: str [N].
        patient: str [N], pseudonyms.
        label: int64 [N] in {0, 1}.
        probability: float64 [N] of glioma.
        model: a backbone's or baseline's name, or how sequences were fused, or what leaks.
        title: the model as a table writes it.
        name: its folder below the whole run's, "" for a folder that is one run.
        slice: str [N], pseudonyms, "" in a row that is a patient's.
        metrics: its metrics.json, {} where there is none.
    """

    sequence: str
    config: dict[str, Any]
    fold: np.ndarray
    patient: np.ndarray
    label: np.ndarray
    probability: np.ndarray
    model: str = ""
    title: str = ""
    name: str = ""
    slice: np.ndarray = np.array([], str)
    metrics: Mapping[str, Any] = MappingProxyType({})


class Labelling(NamedTuple):
    """Labelling curves of one sequence.

    Attributes:
        sequence: as in `Run`.
        config: its config.json, {} where there is none.
        metrics: its metrics.json, {} where there is none.
        runs: {strategy: {(fold, seed): {column: float64 [T] in the order of rounds}}}.
        stops: the rows of stops.csv, none where there is no such file.
        name: as in `Run`.
        title: as in `Run`.
    """

    sequence: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    runs: dict[str, dict[tuple[str, str], dict[str, np.ndarray]]]
    stops: tuple[dict[str, str], ...] = ()
    name: str = ""
    title: str = ""


class Doctor(NamedTuple):
    """The rounds that a doctor answered, of one sequence.

    Attributes:
        sequence: as in `Run`.
        config: its config.json, {} where there is none.
        metrics: its metrics.json, {} while it goes on.
        rounds: {column of rounds.csv: float64 [T]}.
        name: as in `Run`.
    """

    sequence: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    rounds: dict[str, np.ndarray]
    name: str = ""


class Ablation(NamedTuple):
    """One setting of a sweep: `run` is of transfer's kind or of active labelling's."""

    sweep: str
    setting: str
    run: Run | Labelling


class Look(NamedTuple):
    """A sheet of Grad-CAM pictures: `uri` is a PNG as a data URI."""

    model: str
    title: str
    sequence: str
    uri: str


class Failed(NamedTuple):
    """A run that ended with an error.

    Attributes:
        name: its folder below the whole run's, e.g. `transfer/resnet50/flair`.
        error: one line.
        when: a stamp, "" where it is not told.
        command: what was run, "" where it is not told.
        title: the model as a table writes it.
    """

    name: str
    error: str
    when: str
    command: str
    title: str


class Reader(NamedTuple):
    """What one reader said.

    Attributes:
        name: the pseudonym, as printed.
        patient: str [P], pseudonyms, each once.
        call: int64 [P], 1 for glioma, 0 for encephalitis.
    """

    name: str
    patient: np.ndarray
    call: np.ndarray


class Folder(NamedTuple):
    """All that a run folder holds.

    Attributes:
        config: the top config.json, {} where there is none.
        cohort: cohort.json, {} where there is none.
        sheets: {"preprocessing" or "cohort": PNG as a data URI}.
        transfer: by backbone, in the order FLAIR, CE-T1WI, T2WI, others.
        labelling: likewise.
        missing: (what, why) of each part that is not shown.
        models: models.json, the registry of backbones, {} where there is none.
        doctor: the run that a doctor answers, if the folder is of one.
        baselines: as `transfer`.
        fusion: one run a way of fusing, and one a sequence alone.
        leakage: one run a sequence and cell.
        ablations: by sweep.
        looks: by backbone.
        readers: of readers.csv.
        failed: every run that left a failed.json.
        specs: baselines.json, {name: {title, num_params, guesses}}, {} where there is none.
    """

    config: dict[str, Any]
    cohort: dict[str, Any]
    sheets: dict[str, str]
    transfer: list[Run]
    labelling: list[Labelling]
    missing: list[tuple[str, str]]
    models: dict[str, Any]
    doctor: tuple[Doctor, ...] = ()
    baselines: tuple[Run, ...] = ()
    fusion: tuple[Run, ...] = ()
    leakage: tuple[Run, ...] = ()
    ablations: tuple[Ablation, ...] = ()
    looks: tuple[Look, ...] = ()
    readers: tuple[Reader, ...] = ()
    failed: tuple[Failed, ...] = ()
    specs: Mapping[str, Any] = MappingProxyType({})
