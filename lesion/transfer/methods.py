"""The transfer modes: the functions that fit one fold as a config says, and cross-validation on one sequence."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict
from scipy.special import expit

from lesion import models
from lesion.dataset import UNLABELED, store
from lesion.errors import Interrupted
from lesion.models.heads import Head
from lesion.runs.processes import handle_sigterm
from lesion.runs.resume import Checkpointer
from lesion.train import augment, devices, epoch, features, train
from lesion.train import input as inputs
from lesion.train.frozen import Examples, Learner, frozen_learner
from lesion.train.monitor import Monitor
from lesion.train.network import Network
from lesion.train.step import Recipe
from lesion.transfer import svm
from lesion.transfer.folds import (
    CrossValidation,
    FitFold,
    FoldContext,
    FoldResult,
    Keys,
    Units,
    run_folds,
    training_parts,
)
from lesion.transfer.loading import Setup, deal_again

NUM_CHECKPOINTS = 2  # number of a fit's newest checkpoints that are kept


def run_transfer(config: ConfigDict, setup: Setup, workdir: Path) -> dict[str, Any] | None:
    """Cross-validates on one sequence (Tables 3-5); returns the metrics, or None if the run was finished before.

    With `num_deals` the folds are dealt anew so many times, in all: each further deal is a run in deals/N.

    Args:
        config: a configuration of `configs/transfer.py` or `configs/baselines.py`.
        setup: the result of `loading.load`.
        workdir: the run's folder; gets config.json, checkpoints/, tensorboard/, predictions.csv, last metrics.json.
    """
    units, build_once = Units.of_slices(setup.slices), functools.cache(lambda: build(config, setup))
    with handle_sigterm() as stop:
        for deal in range(1, config.get("num_deals", 1)):
            title, again = f"transfer {config.sequence}, deal {deal + 1}", deal_again(config, setup, deal)
            validation = CrossValidation(title, units, again.folds, again.run)
            run_folds(config, validation, workdir / "deals" / str(deal), build_once, stop)
            if stop.requested():
                raise Interrupted(f"stopped after deal {deal + 1} of {config.num_deals}, all saved")
        validation = CrossValidation(f"transfer {config.sequence}", units, setup.folds, setup.run)
        metrics = run_folds(config, validation, workdir, build_once, stop)
        store.copy_source_digests(setup.data_dir, workdir)
        store.copy_readers(setup.data_dir, workdir)
    return metrics


def build(config: ConfigDict, setup: Setup) -> FitFold:
    """Builds the function that fits one fold in the config's mode."""
    baseline = models.BASELINES.get(config.backbone)
    if baseline is not None and baseline.head is None:
        return _svm(config, setup)
    return (_frozen if config.mode == "frozen" else _finetune)(config, setup)


def recipe_of(config: ConfigDict) -> Recipe:
    """Returns the recipe that the config describes."""
    return Recipe(
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        lr=config.optim.lr,
        backbone_lr=config.optim.backbone_lr,
        lr_decay=config.optim.lr_decay,
        decay_every=config.optim.decay_every,
        class_weights=config.class_weights,
        label_smoothing=config.label_smoothing,
        patience=config.patience,
    )


def head_of(config: ConfigDict) -> nn.Module | None:
    """Returns the classifier that the config describes, the new one or a baseline's own; None for the SVM."""
    baseline = models.BASELINES.get(config.backbone)
    if baseline is None:
        return Head(tuple(config.head.widths), config.head.dropout)
    return baseline.head() if baseline.head else None


def last_frozen_stage(config: ConfigDict) -> str | None:
    """Returns the name of the last frozen stage; None if all stages are trained."""
    return models.stage_before(config.backbone, config.finetune_from) if config.finetune_from else None


def cached_output(config: ConfigDict) -> features.FeatureSpec | None:
    """Returns which output of the backbone is computed once and kept in the dataset's folder; None if none is."""
    boundary = last_frozen_stage(config)
    if config.mode == "frozen":
        return features.last_map_spec(config.backbone, config.head.pooling)._replace(dtype=config.dtype)
    if config.cache_activations and boundary:
        return features.FeatureSpec(config.backbone, boundary, "", config.dtype)
    return None


def _cache_arguments(config: ConfigDict, setup: Setup) -> tuple:
    """Returns the arguments of `features.load_or_compute`, without the stage."""
    place, given = setup.data_dir / "features", (setup.variables, setup.weights_sha256)
    return place, setup.slices, cached_output(config), *given, config.num_copies, config.seed


def check_cache(config: ConfigDict, setup: Setup) -> None:
    """Raises a one-line `UserError` if a run would have to keep features in a folder that may not be written."""
    if cached_output(config):
        features.check_writable(*_cache_arguments(config, setup))


def frozen_features(config: ConfigDict, setup: Setup) -> np.ndarray:
    """Returns features [N, 1 + copies, D] of the config's backbone, computed once and memory-mapped."""
    return features.load_or_compute(*_cache_arguments(config, setup), stage=f"features {config.sequence}")


def learner_on_features(config: ConfigDict, setup: Setup, **options: Any) -> tuple[Learner, Examples]:
    """Returns the learner on frozen features, and its examples: features [N, 1 + copies, D] and labels [N].

    `options` are passed to `frozen_learner`.
    """
    learner = frozen_learner(Network(head_of(config)), recipe_of(config), **options)
    x = jnp.asarray(frozen_features(config, setup), jnp.float32)
    return learner, Examples(x, jnp.asarray(setup.slices.label))


def fit_on_features(config: ConfigDict, learner: Learner) -> Callable[[Keys, Examples, Units, np.ndarray], FoldResult]:
    """Builds `fit(keys, examples, units, train)` for N slices or patients; equal shapes share one compilation.

    Args:
        config: the run's configuration.
        learner: a learner of `frozen_learner` with `with_logits`.
    """

    @jax.jit
    def run(key_init, key_fit, examples, train, held):
        known = train if held is None else train | held
        visible = examples._replace(label=jnp.where(known, examples.label, UNLABELED))  # test labels are hidden
        state, info = learner.fit(key_fit, learner.init(key_init, examples), visible, train, held)
        return state, learner.predict(state, examples)[:, 1], info

    def fit(keys: Keys, examples: Examples, units: Units, train: np.ndarray) -> FoldResult:
        train, held = training_parts(config, units, train)
        state, probability, info = jax.device_get(run(*keys, examples, train, held))
        bad = np.flatnonzero(info["bad_step"] >= 0)
        if bad.size:
            step, copies = int(info["bad_step"][bad[0]]), examples.shape[1]
            mask = np.repeat(train, copies)
            rows = epoch.batch_indices(keys[1], int(bad[0]), step, mask, config.batch_size) // copies
            kind, ids = ("slices", units.slice_id) if units.slice_id[0] else ("patients", units.patient)
            raise epoch.not_finite_error(int(bad[0]), step, ids[rows], kind=kind)
        count, history = int(info["num_epochs"]), []
        if held is not None and not np.isfinite(info["validation_loss"][:count]).all():
            raise epoch.validation_not_finite_error(int(np.argmin(np.isfinite(info["validation_loss"][:count]))))
        examples_of_train, label = np.repeat(train, examples.shape[1]), np.repeat(units.label, examples.shape[1])
        for loss, logit, step_logit in zip(info["loss"][:count], info["logit"], info["step_logit"], strict=False):
            scalars = epoch.training_scalars(float(loss), label[examples_of_train], step_logit[examples_of_train])
            if held is not None:
                scalars |= epoch.validation_scalars(units.label[held], both_classes(expit(logit[held])))
            history.append(scalars)
        return FoldResult({"params": state.params}, probability, history)

    return fit


def show_fit(result: FoldResult, ctx: FoldContext) -> FoldResult:
    """Shows a finished fit, as a line of progress and scalars for TensorBoard, and returns it."""
    Monitor(ctx.title, ctx.tensorboard, len(result.history)).replay(result.history)
    return result


def fold_on_features(fit: Callable[..., FoldResult], examples: Examples, units: Units) -> FitFold:
    """Builds the function that fits one fold by a `fit` of `fit_on_features`, and shows it."""

    def fit_fold(keys: Keys, train: np.ndarray, test: np.ndarray, ctx: FoldContext) -> FoldResult:
        del test
        return show_fit(fit(keys, examples, units, train), ctx)

    return fit_fold


def both_classes(glioma: np.ndarray) -> np.ndarray:
    """Returns the probabilities of both classes, [n, 2], given those of glioma, [n]."""
    return np.stack([1 - glioma, glioma], axis=-1)


def _frozen(config: ConfigDict, setup: Setup) -> FitFold:
    learner, examples = learner_on_features(config, setup, with_logits=True)
    return fold_on_features(fit_on_features(config, learner), examples, Units.of_slices(setup.slices))


def _svm(config: ConfigDict, setup: Setup) -> FitFold:
    """Builds the fit of a support vector machine on features; it has no checkpoints, so a killed fold begins anew."""
    x, slices = frozen_features(config, setup), setup.slices
    recipe = svm.SvmRecipe(config.svm.num_features, config.svm.c, config.svm.augmented, config.class_weights)

    def fit_fold(keys: Keys, train: np.ndarray, test: np.ndarray, ctx: FoldContext) -> FoldResult:
        del keys, test  # nothing is random
        params, probability = svm.fit(recipe, x, slices.label, slices.patient, train)
        scalars = epoch.validation_scalars(slices.label[train], both_classes(probability[train]))
        history = [{"loss": scalars["validation_loss"], "auc": scalars["validation_auc"]}]  # on the training slices
        return show_fit(FoldResult({"params": {"head": params}}, probability, history), ctx)

    return fit_fold


def make_trainer(config: ConfigDict, setup: Setup, **options: Any) -> train.Trainer:
    """Builds the trainer for fine-tuning or training from random weights; `train.make_trainer` gets the `options`."""
    run_devices, boundary = devices.devices(), last_frozen_stage(config)
    spec, baseline = models.get_spec(config.backbone), models.BASELINES.get(config.backbone)
    model = models.get_model(config.backbone, None, axis_name=run_devices.axis_name)
    frozen, trained = models.split(config.backbone, setup.variables, boundary)
    classifier = {}
    if baseline is not None:  # its classifier may begin from ImageNet's weights
        classifier = {name: tree for name, tree in setup.variables["params"].items() if name in spec.classifier}
    network = Network(
        head_of(config),
        model,
        start=boundary,
        stop=spec.last_map,
        pooling=config.head.pooling or spec.pooling,
        update_statistics=baseline is not None or config.batch_norm == "updated",
        own_loss=baseline is not None and baseline.loss == "margin",
    )
    source = setup.slices.image
    inputs_of: inputs.InputsOf = inputs.activation_inputs
    if cached_output(config):
        frozen, stage = {}, f"activations {config.sequence}"
        source = features.load_or_compute(*_cache_arguments(config, setup), stage=stage)
    else:
        inputs_of = inputs.picture_inputs(
            model,
            functools.partial(models.preprocess, config.backbone),
            stop=boundary,
            seed=config.seed,
            fresh=config.augmentation == "fresh",
            dtype=config.dtype,
        )
    data = inputs.SliceData(source, augment.id_hashes(setup.slices.slice_id), setup.slices.label)
    return train.make_trainer(
        run_devices,
        network,
        inputs_of,
        recipe_of(config),
        data,
        variables=trained,
        head_params=classifier,
        frozen_variables=frozen,
        copies=1 + config.num_copies,
        slice_id=setup.slices.slice_id,
        streamed=config.data_on == "host" or (config.data_on == "auto" and not inputs.fits_on_device(data)),
        **options,
    )


def _finetune(config: ConfigDict, setup: Setup) -> FitFold:
    trainer, units = make_trainer(config, setup), Units.of_slices(setup.slices)

    def fit_fold(keys: Keys, train_mask: np.ndarray, test: np.ndarray, ctx: FoldContext) -> FoldResult:
        checkpointer = Checkpointer(ctx.checkpoints, NUM_CHECKPOINTS)
        monitor = Monitor(ctx.title, ctx.tensorboard, config.num_epochs)
        hooks = train.Hooks(checkpointer, ctx.stop, monitor, config.checkpoint_every, ctx.run)
        train_mask, held = training_parts(config, units, train_mask)
        known = train_mask if held is None else train_mask | held
        label = np.where(known, units.label, UNLABELED)  # test labels are hidden
        try:
            state, history = train.fit(trainer, keys[1], trainer.init(keys[0]), label, train_mask, held, hooks)
            probability = train.predict(trainer, state, test)[:, 1]
        finally:
            checkpointer.close()
            monitor.close()
        variables = {"params": state.params} | ({"batch_stats": state.batch_stats} if state.batch_stats else {})
        return FoldResult(jax.tree.map(np.asarray, dict(variables)), probability, history)

    return fit_fold
