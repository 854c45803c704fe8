"""How fast training is beside what it is made of: epochs beside bare steps, a head beside Keras; and their memory.

Contenders take turns in one process and medians are compared; memory is taken from processes of their own.
"""

import concurrent.futures
import functools
import importlib
import importlib.util
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lesion import models
from lesion.benchmarks import Row, medians
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

HEAD_EXAMPLES, HEAD_WIDTH, HEAD_EPOCHS = 5120, 1280, 4  # about a sequence of Table 1 with its copies, Lite0's features
NUM_EPOCHS = 3  # of a fine-tuning fit; the first two are timed, each with the checkpoint after it
NUM_COPIES = 3


class _Stopwatch(StopSignal):
    """A signal that never stops a run, but notes when it was asked: after every step."""

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
    """Makes noise that fills an epoch of `num_steps`: what is trained on does not matter here."""
    n = num_steps * config.batch_size // (1 + NUM_COPIES)
    side = models.get_spec(config.backbone).input_size
    image = np.random.default_rng(0).integers(0, 256, (n, side, side), np.uint8)
    names = np.array([f"s{i}" for i in range(n)])
    return Slices(
        image,
        np.arange(n, dtype=np.int32) % 2,
        names,
        names,
        np.ones((n, 2), np.float32),
        np.arange(n, dtype=np.float32),
    )


def _fit(config: ConfigDict, num_steps: int, folder: Path, **changes: object) -> Callable[[], float]:
    """Builds what launch.train runs for a fold; each call fits anew and gives images/s of all epochs but the last."""
    config = ConfigDict(config.to_dict() | {"mode": "finetune", "num_epochs": NUM_EPOCHS, "num_copies": NUM_COPIES})
    config.update(changes)
    slices = _slices(config, num_steps)
    run = {"weights": {"sha256": "random"}}
    setup = Setup(folder, slices, splits.Splits({}, 0, 0), _variables(config.backbone), run)
    fit_fold = methods.build(config, setup)
    everything, nothing = np.ones(len(slices.label), bool), np.zeros(len(slices.label), bool)

    def fit() -> float:
        stopwatch = _Stopwatch()
        with tempfile.TemporaryDirectory(dir=folder) as name:
            folders = Path(name) / "checkpoints", Path(name) / "tensorboard"
            ctx = FoldContext("benchmark", *folders, 0, stopwatch, {})
            fit_fold((jax.random.key(0), jax.random.key(1)), everything, nothing, ctx)
        last = (NUM_EPOCHS - 1) * num_steps
        return last * config.batch_size / (stopwatch.times[last] - stopwatch.times[0])

    return fit


def whole_network(config: ConfigDict) -> Network:
    """Returns the config's backbone with its head, all of which is trained."""
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


def _bare(config: ConfigDict, num_steps: int) -> Callable[[], float]:
    """Builds the training step alone, on one batch on the device, whole network; a call gives images/s."""
    network, spec = whole_network(config), models.get_spec(config.backbone)
    tx, size = steps.optimizer(methods.recipe_of(config)), config.batch_size
    step = jax.jit(functools.partial(steps.train_step, network=network, tx=tx), donate_argnums=1)
    inputs = jnp.zeros((size, spec.input_size, spec.input_size, 3), config.dtype)
    batch = steps.Batch(inputs, jnp.arange(size) % 2, jnp.ones(size, bool))
    keys = jax.random.split(jax.random.key(0), size)
    # To the device: the step donates its state, and NumPy's arrays cannot be donated.
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
    """Builds a head on features that were computed before, as one compiled scan; a call gives examples/s."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((HEAD_EXAMPLES, 1, HEAD_WIDTH), np.float32)
    examples = Examples(jnp.asarray(inputs), jnp.arange(HEAD_EXAMPLES, dtype=jnp.int32) % 2)
    recipe = methods.recipe_of(config)._replace(num_epochs=HEAD_EPOCHS)
    learner = frozen_learner(Network(Head(tuple(config.head.widths))), recipe)
    state, fit, mask = learner.init(jax.random.key(0), examples), jax.jit(learner.fit), jnp.ones(HEAD_EXAMPLES, bool)

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(fit(jax.random.key(1), state, examples, mask))
        return HEAD_EPOCHS * HEAD_EXAMPLES / (time.perf_counter() - start)

    return run


def _keras_head(config: ConfigDict) -> Callable[[], float]:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = importlib.import_module("keras")
    hidden = [keras.layers.Dense(width, "relu") for width in config.head.widths]
    model = keras.Sequential([keras.Input((HEAD_WIDTH,)), *hidden, keras.layers.Dense(1, "sigmoid")])
    model.compile(optimizer=keras.optimizers.Adam(config.optim.lr), loss="binary_crossentropy")
    inputs = np.random.default_rng(0).standard_normal((HEAD_EXAMPLES, HEAD_WIDTH), np.float32)
    label = np.arange(HEAD_EXAMPLES) % 2

    def run() -> float:
        start = time.perf_counter()
        model.fit(inputs, label, batch_size=config.batch_size, epochs=HEAD_EPOCHS, verbose=0)
        return HEAD_EPOCHS * HEAD_EXAMPLES / (time.perf_counter() - start)

    return run


def _peak_gib(build: Callable[..., Callable[[], float]], *args: object) -> float:
    """Returns the highest memory of the device, or of this process on CPU, after running what `build` gives."""
    build(*args)()
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        return stats["peak_bytes_in_use"] / 2**30
    # Not `getrusage`: on Linux its peak is that of the process which began this one, if that was larger.
    (peak_kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak_kib) / 2**20


def _peak_of(build: Callable[..., Callable[[], float]], *args: object) -> float:
    """Returns `_peak_gib` of a process that has done nothing else."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak_gib, build, *args).result()


def late_stage(name: str) -> str:
    """Returns the stage at which the last sixth of a backbone's stages begins: layer4_0, Mixed_7a, conv5."""
    names = models.stage_names(name)
    return names[len(names) * 5 // 6]


def gain_by_work(name: str, stage: str) -> float:
    """Returns the gain in training steps, by operations alone, when nothing below `stage` is computed."""
    spec = models.get_spec(name)
    whole = flops(name, spec.input_size, spec.last_map)
    below = flops(name, spec.input_size, models.stage_before(name, stage))
    above = TRAIN_FACTOR * (whole - below)
    return (below + above) / above


def run(config: ConfigDict, num_steps: int, rounds: int) -> list[Row]:
    """Measures training of the config's backbone; everything is compiled before the first turn.

    Args:
        config: as in configs/transfer.py; backbone, batch_size, batch_norm, dtype, head and optim are used.
        num_steps: of an epoch.
        rounds: how often each contender has its turn; medians are taken.
    """
    config = ConfigDict(config.copy_and_resolve_references())  # a reference cannot go to another process
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        # First: another process may not get its share of a GPU once this one uses it.
        peaks = [_peak_of(_fit, config, num_steps, path), _peak_of(_bare, config, num_steps)]
        stage = late_stage(config.backbone)
        late = {"finetune_from": stage}
        turns = {
            "head": _head(config),
            "bare": _bare(config, num_steps),
            "device": _fit(config, num_steps, path, data_on="device"),
            "host": _fit(config, num_steps, path, data_on="host"),
            "late": _fit(config, num_steps, path, **late),
            "cached": _fit(config, num_steps, path, **late, cache_activations=True),
        }
        if importlib.util.find_spec("keras"):
            turns["keras"] = _keras_head(config)
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
