"""One fold of each way of fusion, and what the folds' notes come to.

`late` and `best_single` train nothing that `only_SEQUENCE` has not: they read its finished folds.
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
from lesion.train import fitting
from lesion.train.learner import Examples
from lesion.transfer.bags import Patients
from lesion.transfer.folds import Cases, FitFold, Fitted, Place
from lesion.transfer.methods import show

Keys = tuple[jax.Array, jax.Array]
Notes = list[dict[str, Any]]
SURE = 1e-7  # logits are of probabilities at least so far from 0 and 1


class Alone(NamedTuple):
    """One sequence at patient level.

    Attributes:
        fit: of `methods.fit_on_features`.
        examples: inputs [P, 1 + copies, D], means over a patient's slices.
        cases: the P patients.
        have: bool [P], who has the sequence.
    """

    fit: Callable[..., Fitted]
    examples: Examples
    cases: Cases
    have: np.ndarray


def only(config: ConfigDict, alone: Alone) -> FitFold:
    """A head on one sequence. Of a patient without it nothing is known but the share of gliomas trained on."""

    def fit_fold(keys: Keys, train: np.ndarray, test: np.ndarray, place: Place) -> Fitted:
        fitted = alone.fit(keys, alone.examples, alone.cases, train & alone.have)
        prior = alone.cases.label[train].mean(dtype=np.float32)
        probability = np.where(alone.have, fitted.probability, prior)
        notes = {"lack_the_sequence": int((test & ~alone.have).sum())}
        return show(fitted._replace(probability=probability, notes=notes), place, config.num_epochs)

    return fit_fold


def together(config: ConfigDict, fit: Callable[..., Fitted], examples: Examples, cases: Cases) -> FitFold:
    """One network on what all sequences give."""

    def fit_fold(keys: Keys, train: np.ndarray, test: np.ndarray, place: Place) -> Fitted:
        del test
        return show(fit(keys, examples, cases, train), place, config.num_epochs)

    return fit_fold


def with_shares(fit_fold: FitFold, head: nn.Module, examples: Examples, patients: Patients) -> FitFold:
    """Notes how much of the attention each sequence gets in the fold's test patients, beside its share of slices."""

    @jax.jit
    def attend(params: Any, inputs: Any) -> jax.Array:
        _, kept = head.apply({"params": params}, inputs, mutable=["intermediates"])
        return kept["intermediates"]["attention"][0].sum(-1)

    def shares(share: np.ndarray) -> dict[str, float]:
        return dict(zip(patients.sequences, map(float, share.mean(0)), strict=True))

    def with_notes(keys: Keys, train: np.ndarray, test: np.ndarray, place: Place) -> Fitted:
        fitted = fit_fold(keys, train, test, place)
        attention = np.asarray(attend(fitted.variables["params"]["head"], examples.own), np.float64)
        slices = patients.num_slices / patients.num_slices.sum(1, keepdims=True)
        notes = {"patients": int(test.sum()), "attention": shares(attention[test]), "slices": shares(slices[test])}
        return fitted._replace(notes=notes)

    return with_notes


def mean_present(probability: np.ndarray, have: np.ndarray, of: str) -> np.ndarray:
    """Late fusion: the mean over the sequences that a patient has, at least one.

    Args:
        probability: of glioma, float32 [P, M]; anything where `have` is false.
        have: bool [P, M].
        of: `probability`; or `logit`, which trusts a sequence that is sure more.

    Returns:
        float32 [P].
    """
    assert probability.shape == have.shape and probability.ndim == 2, (probability.shape, have.shape)
    value = np.where(have, probability, 0.5).astype(np.float64)
    value = logit(np.clip(value, SURE, 1 - SURE)) if of == "logit" else value
    mean = np.where(have, value, 0.0).sum(1) / have.sum(1)
    return (expit(mean) if of == "logit" else mean).astype(np.float32)


def late(config: ConfigDict, workdir: Path, patients: Patients) -> FitFold:
    """The sequences' heads side by side, their predictions averaged."""

    def fit_fold(keys: Keys, train: np.ndarray, test: np.ndarray, place: Place) -> Fitted:
        del keys, train
        probability, heads = _read_alone(workdir, patients, place.fold)
        have = patients.num_slices > 0
        mean = np.where(test, mean_present(probability, have, config.fusion.late), np.float32(np.nan))
        return Fitted({"params": {"head": heads}}, mean, [])

    return fit_fold


def best(config: ConfigDict, workdir: Path, patients: Patients, alone: Callable[[str], Alone]) -> FitFold:
    """The sequence that does best within the training patients; who lacks it, the next best that the patient has."""

    def fit_fold(keys: Keys, train: np.ndarray, test: np.ndarray, place: Place) -> Fitted:
        scores = {}
        for name in track(f"{place.title}, choosing", patients.sequences, len(patients.sequences)):
            scores[name] = inner_scores(config, alone(name), train, keys)
        order = sorted(patients.sequences, key=lambda name: (-scores[name]["auc"], scores[name]["loss"]))
        probability, heads = _read_alone(workdir, patients, place.fold)
        ranked = [patients.sequences.index(name) for name in order]
        first = np.argmax((patients.num_slices > 0)[:, ranked], axis=1)  # of the ranks that a patient has
        took = np.array(ranked)[first]
        used = {order[rank]: heads[order[rank]] for rank in sorted({0, *map(int, first[test])})}
        notes = {"order": order, "inner": scores, "fell_back": int((first[test] > 0).sum())}
        return Fitted({"params": {"head": used}}, probability[np.arange(len(took)), took], [], notes)

    return fit_fold


def inner_scores(config: ConfigDict, alone: Alone, train: np.ndarray, keys: Keys) -> dict[str, float]:
    """How well a sequence does in cross-validation within the training patients [P] that have it: AUC, loss in nats.

    Nothing of another patient, above all of no test patient, is looked at.
    """
    who, cases = train & alone.have, alone.cases
    dealt = splits.make(cases.label[who], cases.patient[who], config.fusion.inner_folds, config.seed)
    glioma = np.full(len(who), np.nan, np.float32)
    for number, (shown, held) in enumerate(zip(*dealt.masks(cases.patient, cases.label), strict=True)):
        key = jax.random.fold_in(keys[1], 2 + number)  # 0 and 1 are of the fit itself
        fitted = alone.fit((jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)), alone.examples, cases, shown)
        glioma[held] = fitted.probability[held]
    if not np.isfinite(glioma[who]).all():
        raise UserError("choosing the best sequence diverged: lower --config.optim.lr")
    scores = fitting.validate(np.stack([1 - glioma, glioma], -1)[who], cases.label[who])
    return {"auc": scores["validation_auc"], "loss": scores["validation_loss"]}


def _read_alone(workdir: Path, patients: Patients, fold: int) -> tuple[np.ndarray, dict[str, Any]]:
    """What the sequences' own runs say of a fold's test patients, float32 [P, M], NaN of others; and their heads."""
    probability = np.full(patients.num_slices.shape, np.nan, np.float32)
    heads = {}
    for m, name in enumerate(patients.sequences):
        folder = workdir / f"only_{name}" / "checkpoints" / f"fold_{fold}"
        heads[name] = checkpoint.load_variables(folder)[0]["params"]["head"]
        rows = files.read_csv(folder / "predictions.csv")
        told = {row["patient"]: float(row["probability"]) for row in rows}
        probability[np.searchsorted(patients.patient, list(told)), m] = list(told.values())
    return probability, heads


def total(notes: Notes) -> dict[str, Any]:
    """Counts, summed over folds."""
    return {name: sum(one[name] for one in notes) for name in notes[0] or {}}


def choices(notes: Notes) -> dict[str, Any]:
    """What each fold chose, by which scores, and how many patients lacked it."""
    told = {name: [one[name] for one in notes] for name in ("order", "inner")}
    return told | {"chosen": [one["order"][0] for one in notes], "fell_back": sum(one["fell_back"] for one in notes)}


def mean_shares(notes: Notes) -> dict[str, Any]:
    """Mean shares over all patients, each as its test fold's network sees it."""
    counts = [one["patients"] for one in notes]
    return {
        what: {name: float(np.average([one[what][name] for one in notes], weights=counts)) for name in notes[0][what]}
        for what in ("attention", "slices")
    }
