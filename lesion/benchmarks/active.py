"""Speed of active labelling: a query beside modAL, an experiment beside a Keras loop, scoring of pictures.

Contenders take turns in one process and medians are compared.
"""

import functools
import importlib
import importlib.util
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lesion import models
from lesion.active import parallel, program
from lesion.active.driver import QueryConfig, make_driver
from lesion.active.strategies import STRATEGIES, PoolOutputs
from lesion.benchmarks import Row, medians
from lesion.benchmarks.training import keras_head, trained_variables, whole_network
from lesion.models.heads import Head
from lesion.train import augment, devices, train
from lesion.train import input as inputs
from lesion.train.frozen import Examples, frozen_learner
from lesion.train.network import Network
from lesion.transfer import methods

POOL, NUM_QUERIED, NUM_QUERIES = 10**6, 50, 20  # one query a turn would measure cold caches
# About the size of a sequence of Table 1 with its copies, and of Lite0's features.
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


def _queries_per_second(query: Callable[[], object]) -> Turn:
    return lambda: NUM_QUERIES / _seconds(lambda: [jax.block_until_ready(query()) for _ in range(NUM_QUERIES)])


def _query() -> Turn:
    """Builds a step of the driver for a pool on the device; a call of the result returns queries/s."""
    driver = make_driver(STRATEGIES["entropy"], QueryConfig(NUM_QUERIED))
    pool = driver.init(jnp.zeros(POOL, bool), jnp.ones(POOL, bool))
    outputs, patient = PoolOutputs(jnp.asarray(_probs(POOL))), jnp.zeros(POOL, jnp.int32)
    step = jax.jit(driver.step)
    return _queries_per_second(lambda: step(jax.random.key(0), pool, outputs, patient))


def _modal_query() -> Turn:
    sampling = importlib.import_module("modAL.uncertainty").entropy_sampling
    probs = _probs(POOL)

    class Fitted:
        """A classifier with given predictions."""

        def predict_proba(self, pool: np.ndarray, **_: object) -> np.ndarray:
            del pool
            return probs

    return _queries_per_second(lambda: sampling(Fitted(), probs, n_instances=NUM_QUERIED))


def _features() -> tuple[Examples, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((NUM_SLICES, COPIES, WIDTH), np.float32)
    label = (x[:, 0, 0] > 0).astype(np.int32)
    return Examples(jnp.asarray(x), jnp.asarray(label)), np.arange(NUM_SLICES) % NUM_PATIENTS


def _experiment(config: ConfigDict, num_rounds: int) -> Turn:
    """Builds one run of Algorithm 1 as a compiled program; a call of the result returns rounds/s."""
    examples, patient = _features()
    learner = frozen_learner(Network(Head(tuple(config.head.widths))), methods.recipe_of(config))
    run = program.algorithm1(learner, ("entropy", "random"), QueryConfig(NUM_ACQUIRE), num_rounds)
    run_batch = parallel.side_by_side(run, 1)
    first = program.Run(jax.random.key(0), jnp.ones(NUM_SLICES, bool), jnp.int32(INITIAL), jnp.int32(0))
    runs, patient_index = jax.tree.map(lambda x: x[None], first), jnp.asarray(patient, jnp.int32)
    return lambda: num_rounds / _seconds(lambda: run_batch(runs, examples, patient_index))


def _keras_experiment(config: ConfigDict, num_rounds: int, new_model: bool) -> Turn:
    """Builds a loop of Keras fits, with `new_model` on a new model for each run, as every fold and strategy has."""
    x, label = (np.asarray(array) for array in _features()[0])

    shared = keras_head(config, WIDTH)

    def run_experiment() -> None:
        model = keras_head(config, WIDTH) if new_model else shared
        labeled = np.arange(NUM_SLICES) < INITIAL
        for _ in range(num_rounds):
            labeled_x, labeled_y = x[labeled].reshape(-1, WIDTH), np.repeat(label[labeled], COPIES)
            model.fit(labeled_x, labeled_y, batch_size=config.batch_size, epochs=config.num_epochs, verbose=0)
            p = model.predict(x[:, 0], batch_size=NUM_SLICES, verbose=0)[:, 0]
            p = np.clip(p, 1e-7, 1 - 1e-7)
            entropy = np.where(labeled, -np.inf, -(p * np.log(p) + (1 - p) * np.log(1 - p)))
            labeled[np.argsort(-entropy)[:NUM_ACQUIRE]] = True

    return lambda: num_rounds / _seconds(run_experiment)


def _scoring(config: ConfigDict) -> Turn:
    """Builds the scoring of a pool of pictures, as in fine-tuning; a call of the result returns pictures/s."""
    spec = models.get_spec(config.backbone)
    names = np.array([f"s{i}" for i in range(NUM_PICTURES)])
    image = np.random.default_rng(0).integers(0, 256, (NUM_PICTURES, spec.input_size, spec.input_size), np.uint8)
    data = inputs.SliceData(image, augment.id_hashes(names), np.zeros(NUM_PICTURES, np.int32))
    inputs_of = inputs.picture_inputs(
        models.get_model(config.backbone, None),
        functools.partial(models.preprocess, config.backbone),
        stop=None,
        seed=0,
        fresh=False,
        dtype=config.dtype,
    )
    trainer = train.make_trainer(
        devices.devices(),
        whole_network(config),
        inputs_of,
        methods.recipe_of(config),
        data,
        variables=trained_variables(config),
        frozen_variables={},
        copies=1 + config.num_copies,
        slice_id=names,
        streamed=False,
    )
    state = trainer.init(jax.random.key(0))
    return lambda: NUM_PICTURES / _seconds(lambda: train.predict(trainer, state))


def _bare(config: ConfigDict) -> Turn:
    """Builds bare inference on one batch on the device; a call of the result returns pictures/s."""
    network, spec = whole_network(config), models.get_spec(config.backbone)
    x = jnp.zeros((config.batch_size, spec.input_size, spec.input_size, 3), config.dtype)
    variables = jax.device_put(network.init(jax.random.key(0), x[:1], trained_variables(config)))
    predict, steps = jax.jit(network.predict), max(1, NUM_PICTURES // config.batch_size)
    return lambda: steps * config.batch_size / _seconds(lambda: [predict(*variables, x) for _ in range(steps)])


def run(config: ConfigDict, rounds: int) -> list[Row]:
    """Measures active labelling; everything is compiled before the first turn.

    Args:
        config: one of configs/transfer.py; backbone, batch_size, dtype, head, num_epochs (a round) and optim are used.
        rounds: number of turns of each contender, whose median is reported.
    """
    turns = {
        "query": _query(),
        "whole": _experiment(config, ROUNDS),
        "half": _experiment(config, ROUNDS // 2),
        "pool": _scoring(config),
        "bare": _bare(config),
    }
    if importlib.util.find_spec("modAL"):
        turns["modal"] = _modal_query()
    if importlib.util.find_spec("keras"):
        turns["loop"] = _keras_experiment(config, ROUNDS, new_model=True)
        turns["shared"] = _keras_experiment(config, ROUNDS, new_model=False)
    rate = medians(turns, rounds)
    # Later rounds train on more slices, so a run's time is linear in slices trained on, not in rounds.
    trained_on = [sum(INITIAL + NUM_ACQUIRE * r for r in range(n)) / n for n in (ROUNDS, ROUNDS // 2)]
    rows = [
        Row(
            f"{ROUNDS} rounds",
            rate["whole"] * trained_on[0],
            "half as many",
            rate["half"] * trained_on[1],
            "slices/s",
            "1",
        ),
        Row("scoring pictures", rate["pool"], "bare inference", rate["bare"], "images/s", "0.95"),
    ]
    if "loop" in rate:
        name = f"a run, {config.num_epochs} epochs a round"
        rows.insert(0, Row(name, rate["whole"], "the same, one Keras model for all", rate["shared"], "rounds/s", "-"))
        rows.insert(0, Row(name, rate["whole"], "loop of Keras fits, a model a run", rate["loop"], "rounds/s", "2"))
    if "modal" in rate:
        rows.insert(0, Row("50 of 10⁶ by entropy", rate["query"], "modAL", rate["modal"], "queries/s", "10"))
    return rows
