"""How fast active labelling is: a round's question beside modAL, an experiment beside a Keras loop, scoring pictures.

Contenders take turns in one process and medians are compared.
"""

import functools
import importlib
import importlib.util
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lesion import models
from lesion.active import driver, lanes, program
from lesion.active.strategies import STRATEGIES, View
from lesion.benchmarks.training import Row, table, whole_network
from lesion.models.head import Head
from lesion.progress import track
from lesion.train import augment, devices, engine, finetune, learner, network
from lesion.transfer import methods

__all__ = ["run", "table"]
POOL, ASKED, QUESTIONS = 10**6, 50, 20  # a turn is so many questions: one alone tells more of cold caches
# About a sequence of Table 1 with its copies, Lite0's features.
NUM_SLICES, COPIES, WIDTH, NUM_PATIENTS, INITIAL, NUM_ACQUIRE = 1200, 5, 1280, 140, 400, 50
ROUNDS = 10
NUM_PICTURES = 256

Turn = Callable[[], float]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _probs(size: int) -> np.ndarray:
    p = np.random.default_rng(0).uniform(size=size).astype(np.float32)
    return np.stack([1 - p, p], -1)


def _question() -> Turn:
    """A step of the driver on a pool on the device; questions a second."""
    asks = driver.driver(STRATEGIES["entropy"], driver.Asking(ASKED))
    pool = asks.init(jnp.zeros(POOL, bool), jnp.ones(POOL, bool))
    view, patient = View(jnp.asarray(_probs(POOL))), jnp.zeros(POOL, jnp.int32)
    step = jax.jit(asks.step)
    return lambda: (
        QUESTIONS
        / _seconds(
            lambda: [jax.block_until_ready(step(jax.random.key(0), pool, view, patient)) for _ in range(QUESTIONS)]
        )
    )


def _modal_question() -> Turn:
    sampling = importlib.import_module("modAL.uncertainty").entropy_sampling
    probs = _probs(POOL)

    class Known:
        """A classifier that has predicted before."""

        def predict_proba(self, pool: np.ndarray, **_: object) -> np.ndarray:
            del pool
            return probs

    return lambda: QUESTIONS / _seconds(lambda: [sampling(Known(), probs, n_instances=ASKED) for _ in range(QUESTIONS)])


def _features() -> tuple[learner.Examples, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((NUM_SLICES, COPIES, WIDTH), np.float32)
    label = (inputs[:, 0, 0] > 0).astype(np.int32)
    return learner.Examples(jnp.asarray(inputs), jnp.asarray(label)), np.arange(NUM_SLICES) % NUM_PATIENTS


def _experiment(config: ConfigDict, num_rounds: int) -> Turn:
    """One run of Algorithm 1 as a program; a call gives rounds/s."""
    examples, patient = _features()
    how = methods.recipe_of(config)
    method = learner.frozen(network.of_head(Head(tuple(config.head.widths))), how)
    run = program.algorithm1(method, ("entropy", "random"), driver.Asking(NUM_ACQUIRE), num_rounds)
    compiled = lanes.side_by_side(run, 1)
    one = program.Run(jax.random.key(0), jnp.ones(NUM_SLICES, bool), jnp.int32(INITIAL), jnp.int32(0))
    runs, whose = jax.tree.map(lambda x: x[None], one), jnp.asarray(patient, jnp.int32)
    return lambda: num_rounds / _seconds(lambda: compiled(runs, examples, whose))


def _keras_experiment(config: ConfigDict, num_rounds: int, anew: bool) -> Turn:
    """The same as a loop of Keras fits and predicts; `anew`: of a new model, as every fold, seed and strategy has."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = importlib.import_module("keras")
    inputs, label = (np.asarray(x) for x in _features()[0])

    def build():
        hidden = [keras.layers.Dense(width, "relu") for width in config.head.widths]
        model = keras.Sequential([keras.Input((WIDTH,)), *hidden, keras.layers.Dense(1, "sigmoid")])
        model.compile(optimizer=keras.optimizers.Adam(config.optim.lr), loss="binary_crossentropy")
        return model

    kept = build()

    def once() -> None:
        model = build() if anew else kept
        labeled = np.arange(NUM_SLICES) < INITIAL
        for _ in range(num_rounds):
            shown, told = inputs[labeled].reshape(-1, WIDTH), np.repeat(label[labeled], COPIES)
            model.fit(shown, told, batch_size=config.batch_size, epochs=config.num_epochs, verbose=0)
            p = model.predict(inputs[:, 0], batch_size=NUM_SLICES, verbose=0)[:, 0]
            p = np.clip(p, 1e-7, 1 - 1e-7)
            entropy = np.where(labeled, -np.inf, -(p * np.log(p) + (1 - p) * np.log(1 - p)))
            labeled[np.argsort(-entropy)[:NUM_ACQUIRE]] = True

    return lambda: num_rounds / _seconds(once)


def _scoring(config: ConfigDict) -> Turn:
    """Predictions of a pool of pictures, as a fine-tuned learner gives them; pictures/s."""
    whole, spec = whole_network(config), models.get_spec(config.backbone)
    names = np.array([f"s{i}" for i in range(NUM_PICTURES)])
    image = np.random.default_rng(0).integers(0, 256, (NUM_PICTURES, spec.input_size, spec.input_size), np.uint8)
    data = finetune.Data(image, augment.slice_words(names), np.zeros(NUM_PICTURES, np.int32))
    prepare = finetune.from_pictures(
        models.get_model(config.backbone, None),
        functools.partial(models.preprocess, config.backbone),
        stop=None,
        seed=0,
        fresh=False,
        dtype=config.dtype,
    )
    built = engine.build(
        devices.devices(), whole, prepare, methods.recipe_of(config), {}, data, 1 + config.num_copies, names, False
    )
    held = built.devices.replicate(built.begin(jax.random.key(0)))
    return lambda: NUM_PICTURES / _seconds(lambda: engine.predict_on_devices(built, held, None))


def _bare(config: ConfigDict) -> Turn:
    """The backbone and head alone on one batch that lies on the device; pictures/s."""
    whole, spec = whole_network(config), models.get_spec(config.backbone)
    inputs = jnp.zeros((config.batch_size, spec.input_size, spec.input_size, 3), config.dtype)
    held, predict = jax.device_put(whole.init(jax.random.key(0), inputs[:1])), jax.jit(whole.predict)
    steps = max(1, NUM_PICTURES // config.batch_size)
    return lambda: steps * config.batch_size / _seconds(lambda: [predict(*held, inputs) for _ in range(steps)])


def run(config: ConfigDict, rounds: int) -> list[Row]:
    """Measures active labelling; everything is compiled before the first turn.

    Args:
        config: as in configs/transfer.py; backbone, batch_size, dtype, head, num_epochs (a round) and optim are used.
        rounds: how often each contender has its turn; medians are taken.
    """
    turns = {
        "question": _question(),
        "whole": _experiment(config, ROUNDS),
        "half": _experiment(config, ROUNDS // 2),
        "pool": _scoring(config),
        "bare": _bare(config),
    }
    if importlib.util.find_spec("modAL"):
        turns["modal"] = _modal_question()
    if importlib.util.find_spec("keras"):
        turns["loop"] = _keras_experiment(config, ROUNDS, anew=True)
        turns["kept"] = _keras_experiment(config, ROUNDS, anew=False)
    for call in turns.values():
        call()
    found = [{turn: call() for turn, call in turns.items()} for _ in track("benchmark", range(rounds), rounds)]
    rate = {turn: statistics.median(one[turn] for one in found) for turn in turns}
    # Later rounds train on more: what is linear in rounds is the time for as many examples.
    shown = [sum(INITIAL + NUM_ACQUIRE * r for r in range(n)) / n for n in (ROUNDS, ROUNDS // 2)]
    rows = [
        Row(f"{ROUNDS} rounds", rate["whole"] * shown[0], "half as many", rate["half"] * shown[1], "slices/s", "1"),
        Row("scoring pictures", rate["pool"], "bare inference", rate["bare"], "images/s", "0.95"),
    ]
    if "loop" in rate:
        what = f"a run, {config.num_epochs} epochs a round"
        rows.insert(0, Row(what, rate["whole"], "the same, one Keras model for all", rate["kept"], "rounds/s", "-"))
        rows.insert(0, Row(what, rate["whole"], "loop of Keras fits, a model a run", rate["loop"], "rounds/s", "2"))
    if "modal" in rate:
        rows.insert(0, Row("50 of 10⁶ by entropy", rate["question"], "modAL", rate["modal"], "questions/s", "10"))
    return rows
