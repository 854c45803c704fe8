"""What the report knows of a run folder: one record for each experiment."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lesion import metrics
from lesion.report import paper

RANDOM = ", random weights"
LEVELS = ("slice", "patient")
# {field of `Folder`, and folder of the experiments below the whole run's: what one of them is called}
KINDS = {
    "transfer": "Transfer",
    "baselines": "Baseline",
    "active": "Active learning",
    "doctor": "Doctor",
    "fusion": "Fusion",
    "leakage": "Leakage",
    "ablations": "Ablation",
}


def has_random_weights(config: Mapping[str, Any]) -> bool:
    """Returns whether a config.json says that the method lacked its weights; training from scratch needs none."""
    return config.get("weights", {}).get("pretrained") is False and config.get("config", {}).get("mode") != "scratch"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Experiment:
    """What the folder of any experiment holds.

    Attributes:
        name: the folder below the whole run's, e.g. `transfer/resnet50/flair`; "" for a folder that is one run.
        sequence: flair, ce_t1wi, t2wi or another name; "" where the network saw several.
        model: the name of a backbone or baseline, the way sequences were fused, or the cell of the leakage panel.
        title: the model as tables print it.
        config: config.json.
        metrics: metrics.json, {} while the run goes on.
    """

    name: str = ""
    sequence: str = ""
    model: str = ""
    title: str = ""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def sequence_title(self) -> str:
        """The sequence as the paper writes it."""
        return paper.sequence_title(self.sequence)

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields of the experiment's configuration."""
        return self.config.get("config", {})

    @property
    def levels(self) -> list[str]:
        """The folders of `name`: [kind, ...]."""
        return self.name.split("/")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Predictions(Experiment):
    """Cross-validated predictions of one network; unlabelled slices are left out.

    Attributes:
        fold: str [N].
        patient: str [N], pseudonyms.
        label: int64 [N] in {0, 1}.
        probability: float64 [N] of glioma.
    """

    fold: np.ndarray
    patient: np.ndarray
    label: np.ndarray
    probability: np.ndarray

    @functools.cached_property
    def scores(self) -> dict[str, Any]:
        """What `metrics.evaluate` says of all test folds pooled."""
        return metrics.evaluate(*self.columns("slice"))

    @functools.cached_property
    def fold_scores(self) -> dict[str, dict[str, Any]]:
        """{fold: its scores without intervals}; an AUC that a fold with one class does not define is NaN."""
        folds = sorted(set(self.fold), key=lambda fold: (len(fold), fold))
        columns = {fold: [column[self.fold == fold] for column in self.columns("slice")] for fold in folds}
        return {fold: metrics.evaluate(*columns[fold], num_resamples=0) for fold in folds}

    def columns(self, level: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns label, probability and patient, each [N], of level "slice" or "patient"."""
        slices = self.label, self.probability, self.patient
        return metrics.patient_means(*slices) if level == "patient" else slices

    @property
    def splits_patients(self) -> bool:
        """Whether slices of one patient are tested in several folds, so that some of them were trained on."""
        return len(set(zip(self.patient, self.fold, strict=True))) > len(set(self.patient))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Rounds(Experiment):
    """Runs of Algorithm 1 on one sequence.

    Attributes:
        rounds: curves.csv, see `metrics.active_runs`; or a doctor's rounds.csv, a row a round.
    """

    rounds: pd.DataFrame


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class GradCam(Experiment):
    """A sheet of Grad-CAM pictures.

    Attributes:
        uri: a PNG as a data URI.
    """

    uri: str


class Failed(NamedTuple):
    """A run that ended with an error.

    Attributes:
        name: its folder below the whole run's, e.g. `transfer/resnet50/flair`.
        error: one line.
        when: a time stamp.
        command: what was run.
    """

    name: str
    error: str
    when: str
    command: str


class Reader(NamedTuple):
    """The answers of one reader.

    Attributes:
        name: the pseudonym, as printed.
        patient: str [P], pseudonyms, each once.
        call: int64 [P], 1 for glioma, 0 for encephalitis.
    """

    name: str
    patient: np.ndarray
    call: np.ndarray

    def columns(self, runs: Iterable[Predictions]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns label, call and patient, each [P], of the patients that any of `runs` knows the label of."""
        truth = {patient: label for run in runs for patient, label in zip(run.patient, run.label, strict=True)}
        known = np.isin(self.patient, list(truth))
        label = np.array([truth[patient] for patient in self.patient[known]], np.int64)
        return label, self.call[known], self.patient[known]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """All that a run folder holds.

    Attributes:
        config: the whole run's config.json, {} where there is none.
        cohort: cohort.json, {} where there is none.
        pictures: {"preprocessing" or "cohort": PNG as a data URI}.
        models: models.json, the registry of backbones, {} where there is none.
        baseline_specs: baselines.json, {name: {title, num_params, guesses}}, {} where there is none.
        titles: {name of a backbone or baseline: as tables print it}.
        transfer: by backbone, in the order FLAIR, CE-T1WI, T2WI, others.
        baselines: likewise.
        fusion: one for each way to fuse, and one for each sequence alone.
        leakage: one for each sequence and cell.
        active: by sequence.
        ablations: by sweep; of transfer's kind or of active learning's.
        explain: by backbone.
        doctor: one, if the folder is a doctor's.
        readers: of readers.csv.
        failed: every run that left a failed.json.
        missing: (name, reason) of each part that is not shown.
    """

    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cohort: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pictures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    models: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    baseline_specs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    titles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    transfer: tuple[Predictions, ...] = ()
    baselines: tuple[Predictions, ...] = ()
    fusion: tuple[Predictions, ...] = ()
    leakage: tuple[Predictions, ...] = ()
    active: tuple[Rounds, ...] = ()
    ablations: tuple[Predictions | Rounds, ...] = ()
    explain: tuple[GradCam, ...] = ()
    doctor: tuple[Rounds, ...] = ()
    readers: tuple[Reader, ...] = ()
    failed: tuple[Failed, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()

    def experiments(self) -> Iterator[tuple[str, Experiment]]:
        """Yields (kind, experiment) of everything that was computed."""
        for kind in KINDS:
            for experiment in getattr(self, kind):
                yield kind, experiment

    def failed_of(self, kind: str) -> list[Failed]:
        """Returns the failed runs of one kind."""
        return [failed for failed in self.failed if failed.name.split("/")[0] == kind]
