"""Checks that need a GPU, where machines with one are rare: done in few minutes, in any number of calls.

Each stage runs in a process of its own, so that one that dies or holds the card's memory hinders no other. Every check
that is finished stands in `gpu_check.json` at once: a later call does what is missing.
"""

import functools
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lesion import files, models, trees
from lesion.benchmarks import backbones, medians, numerics, render, training
from lesion.errors import UserError
from lesion.models import layers
from lesion.models.heads import Head
from lesion.runs.processes import StopSignal
from lesion.train import step as steps
from lesion.train.network import Network
from lesion.transfer import methods
from lesion.transfer.folds import FoldContext
from lesion.weights import pretrained

FILE = "gpu_check.json"
ROOT = Path(__file__).parents[2]
LITE = "efficientnet_lite0"
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
NUM_STEPS = 30  # of bfloat16 fine-tuning; on an H100 the seventh had a loss that was not finite
NUM_PICTURES = 320
TESTS = ("tests/models", "tests/train")
NOT_REACHED = "not reached: the same command goes on"
OTHER_MACHINE = 3  # exit status of a stage


class Plan(NamedTuple):
    """The sizes of the checks.

    Attributes:
        config: one of configs/transfer.py; its recipe is used.
        small: whether to do everything at a size that a CPU does in a few minutes.
        end: time of `time.time` at which checks should be finished.
    """

    config: ConfigDict
    small: bool
    end: float

    @property
    def backbones(self) -> tuple[str, ...]:
        """The paper's three backbones, in the variants that torchvision has."""
        return (LITE,) if self.small else ("resnet50", "inception_v3", "alexnet_torchvision")

    def config_of(self, backbone: str, **changes: Any) -> ConfigDict:
        """Returns the configuration of fine-tuning a backbone."""
        own = {"backbone": backbone, "mode": "finetune", "batch_size": 4 if self.small else 32}
        return ConfigDict(self.config.to_dict() | own | changes)


Check = tuple[str, Callable[[], dict[str, Any]]]  # name, function that returns {"text", "ok": true, false or None, ...}
Done = dict[str, dict[str, Any]]  # what a stage's checks returned so far


def _tests(plan: Plan, done: Done) -> Iterator[Check]:
    def run() -> dict[str, Any]:
        """Runs the tests marked `gpu`, in float32 in full and deterministic, as CPUs are."""
        if not (ROOT / "tests").is_dir():
            return {"text": "no tests beside the package: run it in a checkout", "ok": None}
        platforms = "cpu" if jax.default_backend() == "cpu" else "cuda,cpu"
        environ = os.environ | {"JAX_PLATFORMS": platforms, "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
        command = [sys.executable, "-m", "pytest", *TESTS, "-q", "-m", "gpu", "--as_users_compile"]
        done = subprocess.run(
            [*command, *(["-k", "by_hand"] if plan.small else [])],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=max(plan.end - time.time() - 5, 1),
        )
        return {"text": done.stdout.strip().splitlines()[-1], "ok": done.returncode == 0, "log": done.stdout[-4000:]}

    yield "tests marked gpu", run


def _precision(plan: Plan, done: Done) -> Iterator[Check]:
    def run(name: str) -> dict[str, Any]:
        errors = numerics.errors(name, *((2, 8) if plan.small else ()))
        part = max(errors, key=lambda part: errors[part])
        return {"text": f"{errors[part]:.2%} ({part})", "ok": errors[part] < numerics.LIMIT, "errors": errors}

    for name in numerics.PRIMITIVES:
        yield name, functools.partial(run, name)


class Variant(NamedTuple):
    """A way to train Lite0 in which a cause of NaN is left out.

    Attributes:
        dtype: type of the arithmetic.
        wide: kinds of convolution that run in float32: `depthwise`, `pointwise`, `dense`.
        impl: how convolutions are computed, see `conv.conv2d`.
        options: options of XLA.
    """

    dtype: str = "bfloat16"
    wide: tuple[str, ...] = ()
    impl: str = "auto"
    options: dict[str, Any] = {}  # noqa: RUF012  # never changed in place


VARIANTS = {
    "float32": Variant("float32"),
    "bfloat16": Variant(),
    # The rest only where bfloat16 fails.
    "depthwise in float32": Variant(wide=("depthwise",)),
    "pointwise in float32": Variant(wide=("pointwise",)),
    "dense in float32": Variant(wide=("dense",)),
    "all convolutions in float32": Variant(wide=("depthwise", "pointwise", "dense")),
    "convolutions in the CPU's forms": Variant(impl="matmul"),
    "no autotuning": Variant(options={"xla_gpu_autotune_level": 0}),
    "no Triton products": Variant(options={"xla_gpu_enable_triton_gemm": False}),
    "no excess precision": Variant(options={"xla_allow_excess_precision": False}),
}


def _nan(plan: Plan, done: Done) -> Iterator[Check]:
    """Looks for what makes the loss of fine-tuning Lite0 in bfloat16 NaN: where it first appears, and without what."""
    for name, variant in VARIANTS.items():
        if name in ("float32", "bfloat16") or not done["bfloat16"]["ok"]:
            yield name, functools.partial(train_lite, variant, 2 if plan.small else NUM_STEPS, plan)


def initial_variables() -> dict[str, Any]:
    """Returns ImageNet's weights for Lite0, without its classifier."""
    with tempfile.TemporaryDirectory() as folder:
        pretrained.convert_file(LITE, "lite", None, f"{folder}/weights")
        return models.split(LITE, pretrained.load(LITE, f"{folder}/weights")[0], None)[1]


def train_lite(variant: Variant, num_steps: int, plan: Plan) -> dict[str, Any]:
    """Fine-tunes Lite0 from ImageNet's weights; at a loss that is not finite, tells where it comes from."""
    spec, side, size = models.get_spec(LITE), 64 if plan.small else 224, 8 if plan.small else 32
    network = Network(Head(), models.get_model(LITE, None, impl=variant.impl), stop=spec.last_map, pooling=spec.pooling)
    tx = steps.optimizer(methods.recipe_of(plan.config))
    image, label = pictures(NUM_PICTURES, side)
    inputs = models.preprocess(LITE, jnp.asarray(image)).astype(variant.dtype)
    state = steps.create_state(*network.init(jax.random.key(1), inputs[:1], initial_variables()), tx)
    with mock.patch.object(layers, "conv2d", functools.partial(_conv2d, layers.conv2d, variant.wide)):
        train_step = functools.partial(steps.train_step, network=network, tx=tx)
        step = jax.jit(train_step, compiler_options=variant.options)
        losses, rng = [], np.random.default_rng(0)
        for _ in range(num_steps):
            rows = rng.choice(len(image), size, replace=False)
            batch, before = steps.Batch(inputs[rows], jnp.asarray(label[rows]), jnp.ones(size, bool)), state
            state, info = step(jax.random.split(jax.random.key(2), size), before, batch)
            losses.append(float(info["loss"]))
            if not np.isfinite(losses[-1]) or not _finite(state.params):
                found = {"where": _where(network, before, batch, variant)}
                return {"text": f"not finite in step {len(losses)}", "ok": False, "losses": losses, **found}
    return {"text": f"{num_steps} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}", "ok": True, "losses": losses}


def _conv2d(conv2d: Callable, wide: tuple[str, ...], x: jax.Array, kernel: jax.Array, *, groups: int, **options: Any):
    kind = "depthwise" if groups > 1 else "pointwise" if kernel.shape[:2] == (1, 1) else "dense"
    if kind not in wide:
        return conv2d(x, kernel, groups=groups, **options)
    return conv2d(x.astype(jnp.float32), kernel.astype(jnp.float32), groups=groups, **options).astype(x.dtype)


def _where(network: Network, state: steps.TrainState, batch: steps.Batch, variant: Variant) -> dict[str, Any]:
    """Tells which weights, stages and gradients are not finite in a step that failed."""
    model, backbone, before, bad_stages = network.backbone, state.params["backbone"], None, []
    assert model is not None
    x, variables = batch.inputs, {"params": backbone, "batch_stats": state.batch_stats}
    for stage in models.map_stages(LITE):
        run = jax.jit(functools.partial(model.apply, train=True, start=before, stop=stage, mutable=["batch_stats"]))
        (x, _), before = run(variables, x), stage
        bad_stages += [] if _finite(x) else [stage]

    def loss(params: Any) -> jax.Array:
        logit, _ = network.apply(
            params, state.batch_stats, batch.inputs, batch.mask, jax.random.split(jax.random.key(2))
        )
        return steps.masked_bce(logit, batch.label, batch.mask)[0] / len(batch.label)

    grads = trees.flatten(jax.jit(jax.grad(loss), compiler_options=variant.options)(state.params))
    bad_grads = [name for name, grad in grads.items() if not _finite(grad)]
    weights = [name for name, weight in trees.flatten(state.params).items() if not _finite(weight)]
    return {"weights": weights, "stages": bad_stages, "gradients": bad_grads}


def _finite(tree: Any) -> bool:
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree))


def pictures(n: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns grey discs on black, as heads are, uint8 [n, side, side], with a bright spot where the label [n] is 1."""
    rng, label = np.random.default_rng(0), (np.arange(n) % 2).astype(np.int32)
    y, x = np.mgrid[:side, :side] / side - 0.5
    head = np.hypot(x, y) < 0.4
    spot = np.hypot(x - 0.15, y + 0.1) < 0.08
    image = rng.normal(110, 12, (n, side, side)) * head + 90 * spot * label[:, None, None]
    return np.clip(image, 0, 255).astype(np.uint8), label


class _Killed(BaseException):
    """Stands for the death of a process."""


class _Death(StopSignal):
    """A signal that ends a fit at its `step`-th step, without a chance to save."""

    def __init__(self, step: int | None) -> None:
        super().__init__()
        self._left = step

    def requested(self) -> bool:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise _Killed
        return False


def _resume(plan: Plan, done: Done) -> Iterator[Check]:
    """Fits the same fold twice, and once with a death in its second epoch; the weights should have the same bytes."""
    config, num_steps = plan.config_of(LITE, num_epochs=2, num_copies=3), 2 if plan.small else 8
    hashes: dict[str, str] = {}

    def fit(folder: Path, dies_at: int | None = None) -> str:
        ctx = FoldContext("check", folder / "checkpoints", folder / "tensorboard", 0, _Death(dies_at), {})
        setup = training.noise_setup(config, num_steps, folder)
        everything, keys = np.ones(len(setup.slices.label), bool), (jax.random.key(0), jax.random.key(1))
        result = methods.build(config, setup)(keys, everything, ~everything, ctx)
        return trees.sha256(result.variables)

    def run(dies_at: int | None) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as name:
            hashes.setdefault("", fit(Path(name) / "whole"))
            if dies_at is not None:
                try:
                    fit(Path(name) / "run", dies_at)
                except _Killed:
                    pass
            same = fit(Path(name) / "run") == hashes[""]
        return {"text": "the same bytes" if same else "other bytes", "ok": same}

    yield "the same fit again", functools.partial(run, None)
    yield "killed in the second epoch", functools.partial(run, num_steps + 1)


def _speed(plan: Plan, done: Done) -> Iterator[Check]:
    """Measures steps and inference beside torch, eager and compiled, in TF32 and in bfloat16."""

    def run(name: str, bfloat16: bool) -> dict[str, Any]:
        side, size, rounds = (75, 2, 1) if plan.small else (224, 128, 10)
        results = backbones.run([name], side, size, rounds, bfloat16)[name]
        ours, peers = results.pop("lesion"), results
        texts = []
        for task, result in ours.items():
            ratios = [f"{result.images_per_s / peers[peer][task].images_per_s:.2f} x {peer}" for peer in peers]
            texts.append(", ".join([f"{task} {result.images_per_s:.0f} images/s", *ratios]))
        rates = {
            c: {task: r.images_per_s for task, r in tasks.items()} for c, tasks in {"lesion": ours, **peers}.items()
        }
        return {"text": "; ".join(texts), "ok": None, "images_per_s": rates}

    for name in plan.backbones:
        for bfloat16 in (False, True):
            yield f"{name}, {'bfloat16' if bfloat16 else 'float32'}", functools.partial(run, name, bfloat16)


def _epoch(plan: Plan, done: Done) -> Iterator[Check]:
    """Measures an epoch of fine-tuning beside bare steps."""

    def run(name: str) -> dict[str, Any]:
        config, num_steps = plan.config_of(name), 2 if plan.small else 40
        with tempfile.TemporaryDirectory() as folder:
            epoch = training.finetuning(config, num_steps, Path(folder), data_on="device")
            rate = medians({"epoch": epoch, "bare": training.bare_step(config, num_steps)}, 1 if plan.small else 3)
        ratio = rate["epoch"] / rate["bare"]
        return {"text": f"{rate['epoch']:.0f} images/s, {ratio:.2f} of bare steps", "ok": ratio > 0.9, **rate}

    for name in (LITE, *(name for name in plan.backbones if name != LITE)):
        yield name, functools.partial(run, name)


class Stage(NamedTuple):
    """A function that yields checks, and what it adds to XLA_FLAGS."""

    checks: Callable[[Plan, Done], Iterator[Check]]
    flags: str = ""


STAGES = {
    "tests": Stage(_tests, DETERMINISTIC),
    "bfloat16 against float32": Stage(_precision),
    "NaN of Lite0 in bfloat16": Stage(_nan),
    "bytes, deterministic": Stage(_resume, DETERMINISTIC),
    "bytes, as it is": Stage(_resume),
    "speed": Stage(_speed),
    "epoch": Stage(_epoch),
}


def machine(small: bool) -> dict[str, Any]:
    """Returns the device and the versions that results are of."""
    device, versions = jax.local_devices()[0], {"jax": jax.__version__, "python": platform.python_version()}
    return {"device": device.device_kind, "platform": device.client.platform_version, "small": small, **versions}


def take(stage: str, plan: Plan, path: Path) -> None:
    """Does the checks of a stage that are not in the file yet, each saved as it is finished."""
    here, record = machine(plan.small), files.read_json(path) if path.exists() else {}
    if record.setdefault("machine", here) != here:
        sys.exit(OTHER_MACHINE)
    done = record.setdefault(stage, {})
    for name, check in STAGES[stage].checks(plan, done):
        if name in done and "error" not in done[name]:
            continue
        start = time.perf_counter()
        try:
            done[name] = check()
        except Exception as error:  # the other checks are to be done all the same
            kind = f"{type(error).__name__}: {error}"
            done[name] = {"text": f"failed: {kind.splitlines()[0][:100]}", "ok": False, "error": kind[-4000:]}
        done[name]["seconds"] = round(time.perf_counter() - start, 1)
        files.write_json(path, record)
        print(f"{stage}, {name}: {done[name]['text']}", file=sys.stderr, flush=True)


def in_process(stage: str, plan: Plan, path: Path) -> None:
    """Does `take` in a new process, which is ended when the time is over."""
    environ = {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {STAGES[stage].flags}".strip(),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # tests are a process of their own, torch takes memory too
        "JAX_COMPILATION_CACHE_DIR": str(path.parent / "compiled"),
    }
    process = multiprocessing.get_context("spawn").Process(target=take, args=(stage, plan, path))
    with mock.patch.dict(os.environ, environ):
        process.start()
    process.join(max(plan.end - time.time(), 0))
    if process.exitcode is None:
        process.kill()
        process.join()
    elif process.exitcode == OTHER_MACHINE:
        raise UserError(f"{path} is of another machine or other versions: name another --output")
    elif process.exitcode:
        record = files.read_json(path) if path.exists() else {}
        text = f"died with status {process.exitcode}"
        record.setdefault(stage, {})[""] = {"text": text, "ok": False, "error": text}
        files.write_json(path, record)


def run(config: ConfigDict, output: Path, small: bool, minutes: float) -> list[list[str]]:
    """Does what is not done yet, for at most about `minutes`, and returns the table of all checks.

    Args:
        config: one of configs/transfer.py.
        output: folder of `gpu_check.json`, and of `gpu_check.md`, the table.
        small: whether to do everything in small, as on a machine without a GPU.
        minutes: time after which what is under way is ended; the same call goes on with it.
    """
    output.mkdir(parents=True, exist_ok=True)
    path, plan = (
        output / FILE,
        Plan(ConfigDict(config.copy_and_resolve_references()), small, time.time() + 60 * minutes),
    )
    for stage in STAGES:
        if time.time() < plan.end:
            in_process(stage, plan, path)
    rows = table(files.read_json(path) if path.exists() else {})
    files.write_text(path.with_suffix(".md"), render(rows, markdown=True) + "\n")
    return rows


def table(record: dict[str, Any]) -> list[list[str]]:
    """Returns the rows of a record of `take`, the heading, which names the card, first."""
    words = {True: "yes", False: "NO", None: "-"}
    device = record.get("machine", {}).get("device", "no device")
    rows = [[f"on {device}", "", "", "as it should be"]]
    for stage in STAGES:
        checks = record.get(stage, {})
        rows += [[stage, name, check["text"], words[check["ok"]]] for name, check in checks.items()]
        rows += [] if checks else [[stage, "", NOT_REACHED, "-"]]
    return rows
