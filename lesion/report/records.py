"""Records of what a run folder holds, one for each experiment."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lesion import metrics
from lesion.classes import PAPER, Classes
from lesion.report import paper

RANDOM = ", random weights"  # ends the title of a network that lacks its pretrained weights
LEVELS = ("slice", "patient")
ALONE = "only_"  # begins the name of a run on one sequence beside the fused ones
BEST_SINGLE = "best_single"  # a run on the one sequence that is best in each fold
FUSION_TITLES = {
    "early": "early: means of features side by side",
    "late": "late: the predictions of the sequences, averaged",
    "attention": "attention over all slices",
    BEST_SINGLE: "best single sequence",
}
LEAKAGE_TITLES = {
    "patient_true": "folds by patient, true labels",
    "leaky_true": "leaky folds, true labels",
    "leaky_shuffled": "leaky folds, shuffled labels",
}
# {kind: printed name of one such experiment}; a kind is a field of `Folder` and a subfolder of the whole run's.
KINDS = {
    "transfer": "Transfer",
    "baselines": "Baseline",
    "active": "Active learning",
    "doctor": "Doctor",
    "fusion": "Fusion",
    "leakage": "Leakage",
    "permutation": "Permutation test",
    "ablations": "Ablation",
    "external": "External validation",
}


def has_random_weights(config: Mapping[str, Any]) -> bool:
    """Returns whether a config.json says that pretrained weights were lacking; training from scratch needs none."""
    return config.get("weights", {}).get("pretrained") is False and config.get("config", {}).get("mode") != "scratch"


def find_classes(*records: Mapping[str, Any]) -> Classes:
    """Returns the classes that the first of some contents of cohort.json or config.json names; else the paper's."""
    named = (record.get("data", record) for record in records)
    return next((Classes.of(record) for record in named if "classes" in record), PAPER)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Experiment:
    """Contents of the folder of any experiment.

    Attributes:
        name: path below the whole run's folder, e.g. `transfer/resnet50/flair`; "" if that folder is this one run.
        sequence: flair, ce_t1wi, t2wi or another name; "" if the network saw several.
        model: name of a backbone or baseline, of a way to fuse sequences, or of a cell of the leakage panel.
        title: name of the model as tables print it.
        config: contents of config.json.
        metrics: contents of metrics.json, {} until the run is finished.
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
    def classes(self) -> Classes:
        """The names of the classes."""
        return find_classes(self.config)

    @property
    def levels(self) -> list[str]:
        """Parts of `name`: [kind, ...]."""
        return self.name.split("/")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Predictions(Experiment):
    """Cross-validated predictions of one network on N labelled slices.

    Attributes:
        fold: str [N], the fold that tested each slice.
        patient: str [N], pseudonyms.
        label: int64 [N], 1 for glioma, 0 for encephalitis.
        probability: float64 [N], of glioma.
        deals: the same slices predicted by further cross-validations, whose folds were dealt anew.
    """

    fold: np.ndarray
    patient: np.ndarray
    label: np.ndarray
    probability: np.ndarray
    deals: tuple["Predictions", ...] = ()

    @functools.cached_property
    def scores(self) -> dict[str, Any]:
        """Scores of all test folds pooled, as `metrics.evaluate` returns them."""
        return metrics.evaluate(*self.columns("slice"))

    @functools.cached_property
    def fold_scores(self) -> dict[str, dict[str, Any]]:
        """Scores without intervals by fold; the AUC of a fold with one class is NaN."""
        folds = sorted(set(self.fold), key=lambda fold: (len(fold), fold))
        columns = {fold: [column[self.fold == fold] for column in self.columns("slice")] for fold in folds}
        return {fold: metrics.evaluate(*columns[fold]) for fold in folds}

    def columns(self, level: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns label, probability and patient, each [N], of level "slice" or "patient"."""
        slices = self.label, self.probability, self.patient
        return metrics.patient_means(*slices) if level == "patient" else slices

    @property
    def splits_patients(self) -> bool:
        """Whether slices of one patient are tested in several folds, so that patients were seen in training."""
        return len(set(zip(self.patient, self.fold, strict=True))) > len(set(self.patient))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class External(Predictions):
    """Predictions of a finished run's networks for another cohort.

    Attributes:
        evaluation: contents of evaluation.json.
    """

    evaluation: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Rounds(Experiment):
    """Runs of Algorithm 1 on one sequence.

    Attributes:
        rounds: table of curves.csv, see `metrics.active_runs`; or of a doctor's rounds.csv, a row a round.
    """

    rounds: pd.DataFrame


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class GradCam(Experiment):
    """A sheet of Grad-CAM pictures.

    Attributes:
        uri: PNG file as a data URI.
    """

    uri: str


class Failed(NamedTuple):
    """A run that ended with an error.

    Attributes:
        name: path below the whole run's folder, e.g. `transfer/resnet50/flair`.
        error: reason, in one line.
        when: ISO time stamp, "" if not recorded.
        command: command line that repeats the run, "" if not recorded.
    """

    name: str
    error: str
    when: str
    command: str

    @property
    def levels(self) -> list[str]:
        """Parts of `name`: [kind, ...]."""
        return self.name.split("/")


class Reader(NamedTuple):
    """The answers of one reader.

    Attributes:
        name: pseudonym, as printed.
        patient: str [P], distinct pseudonyms of patients.
        call: int64 [P], 1 for glioma, 0 for encephalitis.
    """

    name: str
    patient: np.ndarray
    call: np.ndarray

    def columns(self, runs: Iterable[Predictions]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns label, call and patient, each [P], of the patients whose label is in any of `runs`."""
        truth = {patient: label for run in runs for patient, label in zip(run.patient, run.label, strict=True)}
        known = np.isin(self.patient, list(truth))
        label = np.array([truth[patient] for patient in self.patient[known]], np.int64)
        return label, self.call[known], self.patient[known]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """Contents of a run folder.

    Attributes:
        config: contents of the whole run's config.json, {} without one.
        cohort: contents of cohort.json, {} without one.
        pictures: {"preprocessing" or "cohort": PNG file as a data URI}.
        models: registry of backbones from models.json, {} without one.
        baseline_specs: {name: {title, num_params, guesses}} from baselines.json, {} without one.
        titles: {name of a backbone or baseline: title as tables print it}.
        transfer: runs ordered by backbone, then FLAIR, CE-T1WI, T2WI, other sequences.
        baselines: runs in the same order.
        fusion: a run for each way to fuse, and one for each sequence alone.
        leakage: a run for each sequence and cell.
        permutation: a permutation test for each sequence.
        active: a set of runs for each sequence.
        ablations: settings ordered by sweep, of transfer or of active learning.
        explain: sheets ordered by backbone.
        doctor: the one run with a doctor, if the folder is one.
        external: the one evaluation on another cohort, if the folder is one.
        readers: answers of readers.csv.
        failed: runs that left a failed.json.
        missing: (name, reason) of each part that is not shown.
        prevalence: share of the positive class for which predictive values are told; None is the cohort's.
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
    permutation: tuple[Experiment, ...] = ()
    active: tuple[Rounds, ...] = ()
    ablations: tuple[Predictions | Rounds, ...] = ()
    explain: tuple[GradCam, ...] = ()
    doctor: tuple[Rounds, ...] = ()
    external: tuple[External, ...] = ()
    readers: tuple[Reader, ...] = ()
    failed: tuple[Failed, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    prevalence: float | None = None

    def experiments(self) -> Iterator[tuple[str, Experiment]]:
        """Yields (kind, experiment) of all experiments but the Grad-CAM sheets."""
        for kind in KINDS:
            for experiment in getattr(self, kind):
                yield kind, experiment

    @property
    def classes(self) -> Classes:
        """The names of the classes."""
        return find_classes(self.cohort, self.config, *(run.config for _, run in self.experiments()))

    def failed_of(self, kind: str) -> list[Failed]:
        """Returns the failed runs of one kind."""
        return [failed for failed in self.failed if failed.levels[0] == kind]
