"""Speed and memory of training: epochs compared with bare training steps, a head compared with Keras.

Contenders take turns in one process and medians are compared; memory is measured in separate processes.
"""

import concurrent.futures
import functools
import importlib
import importlib.util
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lesion import models
from lesion.benchmarks import Row, medians, peak_mib
from lesion.benchmarks.backbones import TRAIN_FACTOR, flops
from lesion.dataset import Slices, splits
from lesion.models.heads import Head
from lesion.runs.processes import StopSignal
from lesion.train import step as steps
from lesion.train.frozen import Examples, frozen_learner
from lesion.train.network import Network
from lesion.transfer import methods
from lesion.transfer.folds import FoldContext
from lesion.transfer.loading import Setup
from lesion.weights import pretrained

HEAD_EXAMPLES, HEAD_WIDTH, HEAD_EPOCHS = 5120, 1280, 4  # about a sequence of Table 1 with its copies; Lite0's features
NUM_EPOCHS = 3  # epochs of a fine-tuning fit; the first two are timed, with the checkpoints after them
NUM_COPIES = 3


class _Stopwatch(StopSignal):
    """A signal that never stops a run and records the time of each request, made after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def requested(self) -> bool:
        self.times.append(time.perf_counter())
        return False


@functools.cache
def _variables(name: str) -> dict:
    return pretrained.random_variables(name, 0)[0]


def _slices(config: ConfigDict, num_steps: int) -> Slices:
    """Returns slices of noise that fill an epoch of `num_steps`; their content does not matter here."""
    n = num_steps * config.batch_size // (1 + NUM_COPIES)
    side = models.get_spec(config.backbone).input_size
    image = np.random.default_rng(0).integers(0, 256, (n, side, side), np.uint8)
    names = np.array([f"s{i}" for i in range(n)])
    spacing, height = np.ones((n, 2), np.float32), np.arange(n, dtype=np.float32)
    return Slices(image, np.arange(n, dtype=np.int32) % 2, names, names, spacing, height)


def noise_setup(config: ConfigDict, num_steps: int, folder: Path) -> Setup:
    """Returns what fits of the config's backbone on noise need: epochs of `num_steps`, random weights."""
    run = {"weights": {"sha256": "random"}}
    return Setup(folder, _slices(config, num_steps), splits.Splits({}, 0, 0), _variables(config.backbone), run)


def finetuning(config: ConfigDict, num_steps: int, folder: Path, **changes: object) -> Callable[[], float]:
    """Builds a fold's fit as in launch.train; each call fits anew and returns images/s of all epochs but the last."""
    config = ConfigDict(config.to_dict() | {"mode": "finetune", "num_epochs": NUM_EPOCHS, "num_copies": NUM_COPIES})
    config.update(changes)
    setup = noise_setup(config, num_steps, folder)
    fit_fold, everything = methods.build(config, setup), np.ones(len(setup.slices.label), bool)

    def fit() -> float:
        stopwatch = _Stopwatch()
        with tempfile.TemporaryDirectory(dir=folder) as name:
            folders = Path(name) / "checkpoints", Path(name) / "tensorboard"
            ctx = FoldContext("benchmark", *folders, 0, stopwatch, {})
            fit_fold((jax.random.key(0), jax.random.key(1)), everything, ~everything, ctx)
        last = (NUM_EPOCHS - 1) * num_steps
        return last * config.batch_size / (stopwatch.times[last] - stopwatch.times[0])

    return fit


def whole_network(config: ConfigDict) -> Network:
    """Returns the config's backbone with its head, both trained whole."""
    spec = models.get_spec(config.backbone)
    return Network(
        Head(tuple(config.head.widths)),
        models.get_model(config.backbone, None),
        stop=spec.last_map,
        pooling=spec.pooling,
        update_statistics=config.batch_norm == "updated",
    )


def trained_variables(config: ConfigDict) -> dict:
    """Returns random variables of the config's backbone without its classifier."""
    return models.split(config.backbone, _variables(config.backbone), None)[1]


def bare_step(config: ConfigDict, num_steps: int) -> Callable[[], float]:
    """Builds the bare training step on one batch on the device; a call of the result returns images/s."""
    network, spec = whole_network(config), models.get_spec(config.backbone)
    tx, size = steps.optimizer(methods.recipe_of(config)), config.batch_size
    step = jax.jit(functools.partial(steps.train_step, network=network, tx=tx), donate_argnums=1)
    inputs = jnp.zeros((size, spec.input_size, spec.input_size, 3), config.dtype)
    batch = steps.Batch(inputs, jnp.arange(size) % 2, jnp.ones(size, bool))
    keys = jax.random.split(jax.random.key(0), size)
    # Copied to the device: the step donates its state, and NumPy arrays cannot be donated.
    variables = network.init(jax.random.key(1), inputs[:1], trained_variables(config))
    state = jax.tree.map(jnp.copy, steps.create_state(*variables, tx))

    def run() -> float:
        nonlocal state
        jax.block_until_ready(state)
        start = time.perf_counter()
        for _ in range(num_steps):
            state, _ = step(keys, state, batch)
        jax.block_until_ready(state)
        return num_steps * size / (time.perf_counter() - start)

    return run


def _head(config: ConfigDict) -> Callable[[], float]:
    """Builds the training of a head on given features, as one scan; a call of the result returns examples/s."""
    inputs = np.random.default_rng(0).standard_normal((HEAD_EXAMPLES, 1, HEAD_WIDTH), np.float32)
    examples = Examples(jnp.asarray(inputs), jnp.arange(HEAD_EXAMPLES, dtype=jnp.int32) % 2)
    recipe = methods.recipe_of(config)._replace(num_epochs=HEAD_EPOCHS)
    learner = frozen_learner(Network(Head(tuple(config.head.widths))), recipe)
    state, fit, mask = learner.init(jax.random.key(0), examples), jax.jit(learner.fit), jnp.ones(HEAD_EXAMPLES, bool)

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(fit(jax.random.key(1), state, examples, mask))
        return HEAD_EPOCHS * HEAD_EXAMPLES / (time.perf_counter() - start)

    return run


def keras_head(config: ConfigDict, feature_width: int) -> Any:
    """Returns the config's head as a compiled Keras model on JAX, for features [B, feature_width]."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = importlib.import_module("keras")
    hidden = [keras.layers.Dense(width, "relu") for width in config.head.widths]
    model = keras.Sequential([keras.Input((feature_width,)), *hidden, keras.layers.Dense(1, "sigmoid")])
    model.compile(optimizer=keras.optimizers.Adam(config.optim.lr), loss="binary_crossentropy")
    return model


def _keras_fit(config: ConfigDict) -> Callable[[], float]:
    model = keras_head(config, HEAD_WIDTH)
    inputs = np.random.default_rng(0).standard_normal((HEAD_EXAMPLES, HEAD_WIDTH), np.float32)
    label = np.arange(HEAD_EXAMPLES) % 2

    def run() -> float:
        start = time.perf_counter()
        model.fit(inputs, label, batch_size=config.batch_size, epochs=HEAD_EPOCHS, verbose=0)
        return HEAD_EPOCHS * HEAD_EXAMPLES / (time.perf_counter() - start)

    return run


def _peak_gib(build: Callable[..., Callable[[], float]], *args: object) -> float:
    """Returns the peak memory in GiB of the device, or of this process on CPU, after running what `build` returns."""
    build(*args)()
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        return stats["peak_bytes_in_use"] / 2**30
    return peak_mib() / 2**10


def _peak_of(build: Callable[..., Callable[[], float]], *args: object) -> float:
    """Returns `_peak_gib`, measured in a new process."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak_gib, build, *args).result()


def late_stage(name: str) -> str:
    """Returns the first of the last sixth of a backbone's stages, e.g. layer4_0, Mixed_7a, conv5."""
    names = models.stage_names(name)
    return names[len(names) * 5 // 6]


def gain_by_work(name: str, stage: str) -> float:
    """Returns the speed-up of a training step, by its operations, if nothing below `stage` is computed."""
    spec = models.get_spec(name)
    whole = flops(name, spec.input_size, spec.last_map)
    below = flops(name, spec.input_size, models.stage_before(name, stage))
    above = TRAIN_FACTOR * (whole - below)
    return (below + above) / above


def run(config: ConfigDict, num_steps: int, rounds: int) -> list[Row]:
    """Measures training of the config's backbone; everything is compiled before the first turn.

    Args:
        config: one of configs/transfer.py; backbone, batch_size, batch_norm, dtype, head and optim are used.
        num_steps: number of steps per epoch.
        rounds: number of turns of each contender, whose median is reported.
    """
    config = ConfigDict(config.copy_and_resolve_references())  # references cannot be sent to another process
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        # Peaks first: another process may get no share of a GPU that this one uses.
        peaks = [_peak_of(finetuning, config, num_steps, path), _peak_of(bare_step, config, num_steps)]
        stage = late_stage(config.backbone)
        late = {"finetune_from": stage}
        turns = {
            "head": _head(config),
            "bare": bare_step(config, num_steps),
            "device": finetuning(config, num_steps, path, data_on="device"),
            "host": finetuning(config, num_steps, path, data_on="host"),
            "late": finetuning(config, num_steps, path, **late),
            "cached": finetuning(config, num_steps, path, **late, cache_activations=True),
        }
        if importlib.util.find_spec("keras"):
            turns["keras"] = _keras_fit(config)
        rate = medians(turns, rounds)
    gain = f"{gain_by_work(config.backbone, stage):.2f} by its share of the work"
    rows = [
        Row("fine-tuning epoch", rate["device"], "bare step", rate["bare"], "images/s", "0.95"),
        Row("the same, slices streamed", rate["host"], "bare step", rate["bare"], "images/s", "0.95"),
        Row("peak memory", peaks[0], "bare step", peaks[1], "GiB", "at most 1.3"),
        Row(f"epoch from {stage}, cached", rate["cached"], "not cached", rate["late"], "images/s", gain),
    ]
    if "keras" in rate:
        rows.append(Row("epoch of a head", rate["head"], "Keras fit", rate["keras"], "examples/s", "1.3"))
    return rows
