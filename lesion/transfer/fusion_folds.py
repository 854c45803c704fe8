"""One fold of each way of fusion, and the summaries of the folds' notes.

`late` and `best_single` keep no network of their own: they read the finished folds of the parts `only_SEQUENCE`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict
from scipy.special import expit, logit

from lesion import files
from lesion.dataset import splits
from lesion.errors import UserError
from lesion.progress import track
from lesion.runs import checkpoint
from lesion.train import epoch
from lesion.train.frozen import Examples
from lesion.transfer.bags import Patients
from lesion.transfer.folds import FitFold, FoldContext, FoldResult, Keys, Units
from lesion.transfer.methods import both_classes, show_fit

Notes = list[dict[str, Any]]
CLIP = 1e-7  # probabilities are clipped to [CLIP, 1 − CLIP] before their logit is taken


class SingleSequence(NamedTuple):
    """One sequence's features at patient level, and how a head on them is fitted.

    Attributes:
        fit: function that `methods.fit_on_features` builds.
        examples: features [P, 1 + copies, D], means over each patient's slices, and labels [P].
        units: the P patients.
        have: bool [P], true for patients that have the sequence.
    """

    fit: Callable[..., FoldResult]
    examples: Examples
    units: Units
    have: np.ndarray


def only(single: SingleSequence) -> FitFold:
    """Builds the fit of a head on one sequence; patients without it get the training patients' share of gliomas."""

    def fit_fold(keys: Keys, train: np.ndarray, test: np.ndarray, ctx: FoldContext) -> FoldResult:
        result = single.fit(keys, single.examples, single.units, train & single.have)
        prior = single.units.label[train].mean(dtype=np.float32)
        probability = np.where(single.have, result.probability, prior)
        notes = {"lack_the_sequence": int((test & ~single.have).sum())}
        return show_fit(result._replace(probability=probability, notes=notes), ctx)

    return fit_fold


def with_attention_shares(fit_fold: FitFold, head: nn.Module, examples: Examples, patients: Patients) -> FitFold:
    """Adds notes to a fit: each sequence's share of the test patients' attention, and its share of their slices."""

    @jax.jit
    def attend(params: Any, inputs: Any) -> jax.Array:
        _, captured = head.apply({"params": params}, inputs, mutable=["intermediates"])
        return captured["intermediates"]["attention"][0].sum(-1)

    def shares(share: np.ndarray) -> dict[str, float]:
        return dict(zip(patients.sequences, map(float, share.mean(0)), strict=True))

    def fit_with_notes(keys: Keys, train: np.ndarray, test: np.ndarray, ctx: FoldContext) -> FoldResult:
        result = fit_fold(keys, train, test, ctx)
        attention = np.asarray(attend(result.variables["params"]["head"], examples.own), np.float64)
        slices = patients.num_slices / patients.num_slices.sum(1, keepdims=True)
        notes = {"patients": int(test.sum()), "attention": shares(attention[test]), "slices": shares(slices[test])}
        return result._replace(notes=notes)

    return fit_with_notes


def mean_present(probability: np.ndarray, have: np.ndarray, scale: str) -> np.ndarray:
    """Averages over the sequences that each patient has: late fusion.

    Args:
        probability: probability of glioma by each sequence, float32 [P, M]; ignored where `have` is false.
        have: bool [P, M]; every patient has at least one sequence.
        scale: `probability`, or `logit` to average logits, which gives a confident sequence more weight.

    Returns:
        Probability of glioma, float32 [P].
    """
    assert probability.shape == have.shape and probability.ndim == 2, (probability.shape, have.shape)
    value = np.where(have, probability, 0.5).astype(np.float64)
    value = logit(np.clip(value, CLIP, 1 - CLIP)) if scale == "logit" else value
    mean = np.where(have, value, 0.0).sum(1) / have.sum(1)
    return (expit(mean) if scale == "logit" else mean).astype(np.float32)


def late(config: ConfigDict, workdir: Path, patients: Patients) -> FitFold:
    """Builds the fit that averages the predictions of the sequences' own heads."""

    def fit_fold(keys: Keys, train: np.ndarray, test: np.ndarray, ctx: FoldContext) -> FoldResult:
        del keys, train
        probability, heads = _read_singles(workdir, patients, ctx.fold)
        mean = mean_present(probability, patients.num_slices > 0, config.fusion.late)
        return FoldResult({"params": {"head": heads}}, np.where(test, mean, np.float32(np.nan)), [])

    return fit_fold


def best_single(
    config: ConfigDict, workdir: Path, patients: Patients, single: Callable[[str], SingleSequence]
) -> FitFold:
    """Builds the fit that takes the predictions of the sequence that does best within the training patients.

    For patients who lack that sequence it takes the best one that they have.
    """

    def fit_fold(keys: Keys, train: np.ndarray, test: np.ndarray, ctx: FoldContext) -> FoldResult:
        scores = {}
        for name in track(f"{ctx.title}, choosing", patients.sequences, len(patients.sequences)):
            scores[name] = inner_scores(config, single(name), train, keys)
        order = sorted(patients.sequences, key=lambda name: (-scores[name]["auc"], scores[name]["loss"]))
        probability, heads = _read_singles(workdir, patients, ctx.fold)
        ranked = [patients.sequences.index(name) for name in order]
        first = np.argmax((patients.num_slices > 0)[:, ranked], axis=1)  # rank of the best sequence each patient has
        chosen = np.array(ranked)[first]
        used = {order[rank]: heads[order[rank]] for rank in sorted({0, *map(int, first[test])})}
        notes = {"order": order, "inner": scores, "fell_back": int((first[test] > 0).sum())}
        return FoldResult({"params": {"head": used}}, probability[np.arange(len(chosen)), chosen], [], notes)

    return fit_fold


def inner_scores(config: ConfigDict, single: SingleSequence, train: np.ndarray, keys: Keys) -> dict[str, float]:
    """Returns AUC and loss, in nats, of a sequence in cross-validation within the training patients that have it.

    No other patient, and no test patient above all, affects them. `train` is bool [P].
    """
    in_training, units = train & single.have, single.units
    folds = splits.make(units.label[in_training], units.patient[in_training], config.fusion.inner_folds, config.seed)
    glioma = np.full(len(in_training), np.nan, np.float32)
    for number, (inner_train, held) in enumerate(zip(*folds.masks(units.patient, units.label), strict=True)):
        key = jax.random.fold_in(keys[1], 2 + number)  # the fit itself uses 0 and 1
        inner_keys = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        glioma[held] = single.fit(inner_keys, single.examples, units, inner_train).probability[held]
    if not np.isfinite(glioma[in_training]).all():
        raise UserError("choosing the best sequence diverged: lower --config.optim.lr")
    scores = epoch.validation_scalars(units.label[in_training], both_classes(glioma[in_training]))
    return {"auc": scores["validation_auc"], "loss": scores["validation_loss"]}


def _read_singles(workdir: Path, patients: Patients, fold: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads a fold's predictions by each sequence alone, float32 [P, M], NaN but for test patients; and the heads."""
    probability = np.full(patients.num_slices.shape, np.nan, np.float32)
    heads = {}
    for m, name in enumerate(patients.sequences):
        folder = workdir / f"only_{name}" / "checkpoints" / f"fold_{fold}"
        heads[name] = checkpoint.load_variables(folder)[0]["params"]["head"]
        predicted = {row["patient"]: float(row["probability"]) for row in files.read_csv(folder / "predictions.csv")}
        probability[np.searchsorted(patients.patient, list(predicted)), m] = list(predicted.values())
    return probability, heads


def total(notes: Notes) -> dict[str, Any]:
    """Returns the sums of counts over folds."""
    return {name: sum(note[name] for note in notes) for name in notes[0] or {}}


def choices(notes: Notes) -> dict[str, Any]:
    """Returns each fold's ranking, scores and chosen sequence, and the number of test patients who lack the chosen."""
    by_fold = {name: [note[name] for note in notes] for name in ("order", "inner")}
    chosen = [note["order"][0] for note in notes]
    return by_fold | {"chosen": chosen, "fell_back": sum(note["fell_back"] for note in notes)}


def mean_shares(notes: Notes) -> dict[str, Any]:
    """Returns shares averaged over all patients, each patient's from the fold that tests it."""
    counts = [note["patients"] for note in notes]
    return {
        kind: {name: float(np.average([note[kind][name] for note in notes], weights=counts)) for name in notes[0][kind]}
        for kind in ("attention", "slices")
    }
