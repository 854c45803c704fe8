"""The transfer modes: from a config to a function that fits one fold."""

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
from lesion.dataset import UNLABELED, Slices, splits
from lesion.models.head import Head
from lesion.runs import resume
from lesion.train import augment, devices, engine, features, feed, finetune, fitting, learner, network, recipe
from lesion.train.watch import Watch
from lesion.transfer import svm
from lesion.transfer.folds import Cases, FitFold, Fitted, Place, cases_of

KEEP = 2  # checkpoints of a fit that goes on


def recipe_of(config: ConfigDict) -> recipe.Recipe:
    """The config's recipe."""
    return recipe.Recipe(
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


def frozen_features(
    config: ConfigDict, data_dir: Path, slices: Slices, variables: dict, weights_sha256: str
) -> np.ndarray:
    """Features [N, 1 + copies, D] of the config's backbone, computed once and mapped from disk."""
    return features.load_or_compute(
        data_dir / "features",
        slices,
        features.of_last_map(config.backbone, config.head.pooling)._replace(dtype=config.dtype),
        variables,
        weights_sha256,
        num_copies=config.num_copies,
        seed=config.seed,
        stage=f"features {config.sequence}",
    )


def frozen_learner(
    config: ConfigDict, data_dir: Path, slices: Slices, variables: dict, weights_sha256: str, **options: Any
) -> tuple[learner.Learner, learner.Examples]:
    """The learner on frozen features, and the features [N, 1 + copies, D] and labels [N] it learns from.

    `options` go to `learner.frozen`.
    """
    inputs = frozen_features(config, data_dir, slices, variables, weights_sha256)
    method = learner.frozen(network.of_head(_head(config)), recipe_of(config), **options)
    return method, learner.Examples(jnp.asarray(inputs, jnp.float32), jnp.asarray(slices.label))


def build(config: ConfigDict, data_dir: Path, slices: Slices, variables: dict, weights_sha256: str) -> FitFold:
    """Builds `fit_fold((key_init, key_fit), train [N], test [N], place) -> Fitted` of the config's method."""
    baseline = models.BASELINES.get(config.backbone)
    make = _frozen if config.mode == "frozen" else _finetune
    if baseline is not None and baseline.head is None:
        make = _svm
    return make(config, data_dir, slices, variables, weights_sha256)


def _head(config: ConfigDict) -> Head:
    return Head(tuple(config.head.widths), config.head.dropout)


def _parts(config: ConfigDict, cases: Cases | Slices, train: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Cases to train on, and those that early stopping looks at."""
    if not config.patience:
        return train, None
    held = splits.hold_out(cases.patient, cases.label, train, config.validation, config.seed)
    return train & ~held, held


def fit_on_features(config: ConfigDict, method: learner.Learner) -> Callable[..., Fitted]:
    """Builds `fit((key_init, key_fit), examples, cases, train [N]) -> Fitted`: one program, for all fits of a shape.

    Args:
        config: of the recipe.
        method: `learner.frozen`, watched.

    The examples' inputs and the labels of `cases`, N of both, are given to each fit.
    """

    @jax.jit
    def run(key_init, key_fit, examples, train, held):
        # Test labels are hidden from the learner, not only masked.
        shown = train if held is None else train | held
        seen = examples._replace(label=jnp.where(shown, examples.label, -1))
        state, info = method.fit(key_fit, method.init(key_init, examples), seen, train, held)
        return state, method.predict(state, examples)[:, 1], info

    def fit(keys: tuple[jax.Array, jax.Array], examples: learner.Examples, cases: Cases, train: np.ndarray) -> Fitted:
        train, held = _parts(config, cases, train)
        state, probability, info = jax.device_get(run(*keys, examples, train, held))
        bad = np.flatnonzero(info["bad_step"] >= 0)
        if bad.size:
            epoch, step, copies = int(bad[0]), int(info["bad_step"][bad[0]]), examples.shape[1]
            at = learner.batch_of(keys[1], epoch, step, np.repeat(train, copies), config.batch_size) // copies
            what, names = ("slices", cases.slice_id) if cases.slice_id[0] else ("patients", cases.patient)
            raise fitting.not_finite(epoch, step, names[at], what=what)
        history = [
            _scalars(cases.label, float(info["loss"][epoch]), info["logit"][epoch], train, held)
            for epoch in range(int(info["num_epochs"]))
        ]
        return Fitted({"params": state.params}, probability, history)

    return fit


def show(result: Fitted, place: Place, num_epochs: int) -> Fitted:
    """A line and TensorBoard's scalars of a fit that was trained in one go."""
    Watch(place.title, place.tensorboard / f"fold_{place.fold}", num_epochs).replay(result.history)
    return result


def _frozen(config: ConfigDict, data_dir: Path, slices: Slices, variables: dict, weights_sha256: str) -> FitFold:
    method, examples = frozen_learner(config, data_dir, slices, variables, weights_sha256, watched=True)
    fit = fit_on_features(config, method)

    def fit_fold(keys: tuple[jax.Array, jax.Array], train: np.ndarray, test: np.ndarray, place: Place) -> Fitted:
        del test
        return show(fit(keys, examples, cases_of(slices), train), place, config.num_epochs)

    return fit_fold


def _svm(config: ConfigDict, data_dir: Path, slices: Slices, variables: dict, weights_sha256: str) -> FitFold:
    """A support vector machine on features; fitted whole at once, so that a killed fold begins anew."""
    inputs = frozen_features(config, data_dir, slices, variables, weights_sha256)
    how = svm.Recipe(config.svm.num_features, config.svm.c, config.svm.augmented, config.class_weights)

    def fit_fold(keys: tuple[jax.Array, jax.Array], train: np.ndarray, test: np.ndarray, place: Place) -> Fitted:
        del keys, test  # nothing is drawn
        params, probability = svm.fit(how, inputs, slices.label, slices.patient, train)
        both = np.stack([1 - probability, probability], axis=-1)
        found = fitting.validate(both[train], slices.label[train])
        history = [{"loss": found["validation_loss"], "auc": found["validation_auc"]}]  # of the training slices
        Watch(place.title, place.tensorboard / f"fold_{place.fold}", 1).replay(history)
        return Fitted({"params": {"head": params}}, probability, history)

    return fit_fold


def _scalars(
    label: np.ndarray, loss: float, logit: np.ndarray, train: np.ndarray, held: np.ndarray | None
) -> dict[str, float]:
    """Of an epoch, whose `logit` [N] is of the slices themselves, after it."""
    scalars = {"loss": loss, "auc": fitting.auc(label[train], logit[train])}
    if held is None:
        return scalars
    glioma = expit(logit[held])
    return scalars | fitting.validate(np.stack([1 - glioma, glioma], axis=-1), label[held])


def last_frozen(config: ConfigDict) -> str | None:
    """The last stage that is not trained."""
    if not config.finetune_from:
        return None
    return models.stage_before(config.backbone, config.finetune_from)


def _data(
    config: ConfigDict, data_dir: Path, slices: Slices, variables: dict, weights_sha256: str, boundary: str | None
) -> finetune.Data:
    """Pictures, or the boundary's activations where they are to be cached."""
    source: np.ndarray = slices.image
    if config.cache_activations and boundary:
        source = features.load_or_compute(
            data_dir / "features",
            slices,
            features.Tap(config.backbone, boundary, "", config.dtype),
            variables,
            weights_sha256,
            num_copies=config.num_copies,
            seed=config.seed,
            stage=f"activations {config.sequence}",
        )
    return finetune.Data(source, augment.slice_words(slices.slice_id), slices.label)


def _network(
    config: ConfigDict, model: nn.Module, variables: dict, above: dict, boundary: str | None
) -> network.Network:
    """What is trained: a baseline with its own classifier, a backbone with the new one."""
    spec, baseline = models.get_spec(config.backbone), models.BASELINES.get(config.backbone)
    pooling = config.head.pooling or spec.pooling
    where: dict[str, Any] = {"start": boundary, "stop": spec.last_map, "pooling": pooling}
    if baseline is None:
        updated = config.batch_norm == "updated"
        return network.of_backbone(model, _head(config), above, **where, update_statistics=updated)
    assert baseline.head is not None, config.backbone
    given = {name: tree for name, tree in variables["params"].items() if name in spec.classifier}
    own_loss = baseline.loss == "margin"
    return network.of_baseline(model, baseline.head(), above, given, **where, own_loss=own_loss)


def finetune_engine(
    config: ConfigDict, data_dir: Path, slices: Slices, variables: dict, weights_sha256: str, **options: Any
) -> engine.Engine:
    """What fine-tuning, or training from random weights, runs on; `options` go to `engine.build`."""
    where, boundary = devices.devices(), last_frozen(config)
    below, above = models.split(config.backbone, variables, boundary)
    model = models.get_model(config.backbone, None, axis_name=where.axis_name)
    trained = _network(config, model, variables, above, boundary)
    data = _data(config, data_dir, slices, variables, weights_sha256, boundary)
    prepare: Callable = finetune.from_activations
    if data.source.ndim == 3:
        prepare = finetune.from_pictures(
            model,
            functools.partial(models.preprocess, config.backbone),
            stop=boundary,
            seed=config.seed,
            fresh=config.augmentation == "fresh",
            dtype=config.dtype,
        )
    else:
        below = {}  # what they give was computed before
    streamed = config.data_on == "host" or (config.data_on == "auto" and not feed.fits_on_device(data))
    copies = 1 + config.num_copies
    how = recipe_of(config)
    return engine.build(where, trained, prepare, how, below, data, copies, slices.slice_id, streamed, **options)


def _finetune(config: ConfigDict, data_dir: Path, slices: Slices, variables: dict, weights_sha256: str) -> FitFold:
    fitter = finetune_engine(config, data_dir, slices, variables, weights_sha256)

    def fit_fold(keys: tuple[jax.Array, jax.Array], train: np.ndarray, test: np.ndarray, place: Place) -> Fitted:
        keeper = resume.Keeper(place.checkpoints, KEEP)
        watch = Watch(place.title, place.tensorboard / f"fold_{place.fold}", config.num_epochs)
        hooks = fitting.Hooks(keeper, place.bell, watch, config.checkpoint_every, place.run)
        train, held = _parts(config, slices, train)
        shown = train if held is None else train | held
        label = np.where(shown, slices.label, UNLABELED)  # test labels are hidden, not only masked
        try:
            state, history = fitting.fit(fitter, keys[1], fitter.begin(keys[0]), label, train, held, hooks)
            probability = engine.predict(fitter, state, test)[:, 1]
        finally:
            keeper.close()
            watch.close()
        variables = {"params": state.params} | ({"batch_stats": state.batch_stats} if state.batch_stats else {})
        return Fitted(jax.tree.map(np.asarray, dict(variables)), probability, history)

    return fit_fold
