"""Speed of the backbones: inference and a whole training step, compared with the machine's own limit.

All contenders take turns in one process, round after round, and medians are compared: on a shared machine a ratio says
more than a time. Keras (on JAX) and torch (channels-last; on GPU compiled as well) take part if they are installed;
neither is needed.
"""

import functools
import importlib
import importlib.util
import math
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lesion import models
from lesion.benchmarks import medians

PRODUCT_SIZE = 4096  # side of the square matrices whose product gives the machine's limit; four times that on GPU
TRAIN_FACTOR = 3  # products of a step over those of the forward pass: both gradients need as many
PEERS = {  # backbone: (name in keras.applications, name in torchvision.models); neither has the paper's AlexNet
    "alexnet_torchvision": ("", "alexnet"),
    "resnet50": ("ResNet50", "resnet50"),
    "resnet50_v1": ("ResNet50", "resnet50"),
    "inception_v3": ("InceptionV3", "inception_v3"),
    "inception_v3_keras": ("InceptionV3", "inception_v3"),
}


class Result(NamedTuple):
    """The speed of one contender at one task: images/s, and the share of the machine's product rate."""

    images_per_s: float
    share: float


def flops(name: str, side: int, stop: str | None = None) -> float:
    """Counts the floating-point operations of an image's forward pass: convolutions and products, two a multiply-add.

    Args:
        name: a row of `models.MODELS`.
        side: side of the image, pixels.
        stop: last stage to run; None for the whole network with its classifier.
    """
    model = models.get_model(name, impl="lax")
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    apply = model.apply if stop is None else functools.partial(model.apply, stop=stop)
    return _count(jax.make_jaxpr(apply)(variables, images).jaxpr)


def _count(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        out = equation.outvars[0].aval
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            total += 2 * out.size * kernel.size / out.shape[-1]
        elif equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            total += 2 * out.size * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "jaxpr")):
            if hasattr(inner, "jaxpr"):  # the jaxpr of jit, custom_vjp and the like
                total += _count(inner.jaxpr)
    return total


def _ours(name: str, side: int, batch: int, dtype: Any) -> dict[str, Callable[[], Any]]:
    """Builds {task: function that runs it once and returns when it is finished}."""
    model, tx = models.get_model(name), optax.adam(1e-3)
    images = jax.random.normal(jax.random.key(0), (batch, side, side, 3), dtype)
    label = jnp.arange(batch) % 1000
    variables = jax.jit(model.init)(jax.random.key(1), images[:1])
    infer = jax.jit(lambda v, x: model.apply(v, x))

    def loss_fn(params, stats, images, key):
        logits, updated = model.apply(
            {"params": params, **stats}, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), label).mean(), updated

    @functools.partial(jax.jit, donate_argnums=0)
    def train(state, images):
        params, stats, opt_state, key = state
        key, used = jax.random.split(key)
        (_, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, stats, images, used)
        with jax.numpy_dtype_promotion("standard"):  # see train/step.py
            updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state, key

    # A copy: training donates its state, inference still needs the variables.
    copied = dict(jax.tree.map(jnp.copy, variables))
    params = copied.pop("params")
    state = params, copied, tx.init(params), jax.random.key(2)

    def step():
        nonlocal state
        state = jax.block_until_ready(train(state, images))

    return {"inference": lambda: jax.block_until_ready(infer(variables, images)), "training": step}


def _keras(kind: str, side: int, batch: int, dtype: Any) -> dict[str, Callable[[], Any]]:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = importlib.import_module("keras")
    keras.config.set_dtype_policy("mixed_bfloat16" if dtype == jnp.bfloat16 else "float32")
    model = getattr(keras.applications, kind)(
        weights=None, input_shape=(side, side, 3), classes=1000, classifier_activation=None
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)
    images = np.random.default_rng(0).standard_normal((batch, side, side, 3), np.float32)
    label = np.arange(batch) % 1000
    return {
        "inference": lambda: model.predict_on_batch(images),
        "training": lambda: model.train_on_batch(images, label),
    }


def _torch(kind: str, side: int, batch: int, dtype: Any, compiled: bool = False) -> dict[str, Callable[[], Any]]:
    torch, torchvision = map(importlib.import_module, ("torch", "torchvision"))
    options = {"init_weights": False, "aux_logits": False} if kind == "inception_v3" else {}
    device, wait = "cpu", lambda: None
    if jax.default_backend() == "gpu":
        device, wait = "cuda", torch.cuda.synchronize
        torch.set_float32_matmul_precision("high")  # TF32, which is JAX's default
    network = getattr(torchvision.models, kind)(**options).to(device, memory_format=torch.channels_last)
    run = torch.compile(network) if compiled else network
    images = torch.randn(batch, 3, side, side).to(device, memory_format=torch.channels_last)
    label = torch.arange(batch, device=device) % 1000
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    narrow = functools.partial(torch.autocast, device, torch.bfloat16, enabled=dtype == jnp.bfloat16)

    def infer():
        network.eval()
        with torch.inference_mode(), narrow():
            run(images)
        wait()

    def train():
        network.train()
        optimizer.zero_grad(set_to_none=True)
        with narrow():
            loss = torch.nn.functional.cross_entropy(run(images), label)
        loss.backward()
        optimizer.step()
        wait()

    return {"inference": infer, "training": train}


def _product(dtype: Any) -> tuple[Callable[[], Any], float]:
    """Builds a large matrix product; returns it and its number of floating-point operations."""
    size = PRODUCT_SIZE * (1 if jax.default_backend() == "cpu" else 4)
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    multiply = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(multiply(a, a)), 2.0 * size**3


def run(
    names: list[str], side: int, batch: int, rounds: int, bfloat16: bool = False
) -> dict[str, dict[str, dict[str, Result]]]:
    """Measures {backbone: {contender: {"inference" or "training": result}}}.

    Args:
        names: rows of `models.MODELS`.
        side: side of the images, pixels.
        batch: number of images per step.
        rounds: number of turns of each contender, whose median is reported.
        bfloat16: whether arithmetic is in bfloat16; parameters stay float32.
    """
    dtype = jnp.bfloat16 if bfloat16 else jnp.float32
    product, product_flops = _product(dtype)
    results = {}
    for name in names:
        keras_name, torch_name = PEERS.get(name, ("", ""))
        contenders = {"lesion": _ours(name, side, batch, dtype)}
        if keras_name and importlib.util.find_spec("keras"):
            contenders["keras"] = _keras(keras_name, side, batch, dtype)
        if torch_name and importlib.util.find_spec("torchvision"):
            contenders["torch"] = _torch(torch_name, side, batch, dtype)
            if jax.default_backend() == "gpu":  # on CPU it needs a C++ compiler
                contenders["torch compiled"] = _torch(torch_name, side, batch, dtype, compiled=True)
        turns = {(c, task): _seconds(call) for c, calls in contenders.items() for task, call in calls.items()}
        turns["product", ""] = _seconds(product)
        for take_turn in turns.values():  # here and again in `medians`: compiled code should be warm too
            take_turn()
        seconds = medians(turns, rounds, f"benchmark {name}")
        limit = product_flops / seconds.pop(("product", ""))
        forward = flops(name, side)
        work = {"inference": forward, "training": TRAIN_FACTOR * forward}
        results[name] = {contender: dict[str, Result]() for contender in contenders}
        for (contender, task), value in seconds.items():
            results[name][contender][task] = Result(batch / value, batch * work[task] / value / limit)
        jax.clear_caches()
    return results


def _seconds(call: Callable[[], Any]) -> Callable[[], float]:
    def take_turn() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return take_turn


def table(results: dict[str, dict[str, dict[str, Result]]]) -> list[list[str]]:
    """Returns the results as rows of text, the heading first: images/s, share of product rate, ratio to each peer."""
    peers = [c for c in ("keras", "torch", "torch compiled") if any(c in contenders for contenders in results.values())]
    rows = [["backbone", "", "images/s", "of product rate", *(f"x {peer}" for peer in peers)]]
    for name, contenders in results.items():
        for task, ours in contenders["lesion"].items():
            ratios = [
                f"{ours.images_per_s / contenders[peer][task].images_per_s:.2f}" if peer in contenders else ""
                for peer in peers
            ]
            rows.append([name, task, f"{ours.images_per_s:.1f}", f"{ours.share:.2f}", *ratios])
    return rows
