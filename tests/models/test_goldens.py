"""Our networks against torchvision and Keras themselves: float64 references, see tests/goldens/README.md."""

import functools
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesion import models, trees, weights
from lesion.models import preprocessing
from lesion.weights import rules

GOLDENS = Path(__file__).parents[1] / "goldens"
sys.path.insert(0, str(GOLDENS))
import weights as seeded  # noqa: E402

pytestmark = pytest.mark.slow

# Ours: the framework and model of the golden.
VARIANTS = {
    "alexnet_torchvision": ("torchvision", "alexnet"),
    "resnet50": ("torchvision", "resnet50"),
    "inception_v3": ("torchvision", "inception_v3"),
    "resnet50_v1": ("keras", "resnet50"),
    "inception_v3_keras": ("keras", "inception_v3"),
}
# Stages without a counterpart here: explicit paddings, and pools inside a branch.
NO_COUNTERPART = r"(conv1|pool1)_pad|average_pooling2d.*|max_pooling2d_[23]"
KERAS_STAGES = {"conv1_relu": "relu", "pool1_pool": "maxpool", "avg_pool": "avgpool", "predictions": "fc"}
KERAS_STAGES |= {"max_pooling2d": "maxpool1", "max_pooling2d_1": "maxpool2", "global_average_pooling2d": "avgpool"}
FORKS = {"mixed9_0": ("Mixed_7b", "branch3x3_2"), "concatenate": ("Mixed_7b", "branch3x3dbl_3")}
FORKS |= {"mixed9_1": ("Mixed_7c", "branch3x3_2"), "concatenate_1": ("Mixed_7c", "branch3x3dbl_3")}


@functools.cache
def golden(framework):
    return json.loads((GOLDENS / f"{framework}.json").read_text())["models"], np.load(GOLDENS / f"{framework}.npz")


@functools.lru_cache(maxsize=1)
def variables_of(name):
    framework, model = VARIANTS[name]
    info = golden(framework)[0][model]
    arrays = seeded.seeded_state_dict([(n, tuple(s)) for n, s in info["spec"]], 0)
    assert seeded.state_dict_sha256(arrays) == info["state_dict_sha256"]
    return jax.device_put(weights.convert(name, framework, arrays))


def images_of(case):
    make = seeded.smooth_images if "smooth" in case else seeded.noise_images
    images = make(0, int(case[-3:])).transpose(0, 2, 3, 1)
    if case.startswith("ti_"):  # torchvision's `transform_input`, from its mean and deviation to [-1, 1]
        mean, std = np.float32(preprocessing.TORCH_MEAN), np.float32(preprocessing.TORCH_STD)
        images = images * (std / 0.5) + (mean - 0.5) / 0.5
    return jnp.asarray(images)


def relative(got, wanted):
    assert got.shape == wanted.shape
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


def cases():
    for name, (framework, model) in VARIANTS.items():
        for case in golden(framework)[0][model]["cases"]:
            yield pytest.param(name, case, id=f"{name}-{case}")


@functools.partial(jax.jit, static_argnums=0)
def run_by_stages(name, variables, x):
    """Every stage from the one before, then the classifier: outputs by our names."""
    model, seen, before = models.get_model(name), {}, None
    for stage in models.stage_names(name):
        x, captured = model.apply(variables, x, start=before, stop=stage, capture_intermediates=True)
        seen |= {k.removesuffix("/__call__"): v[0] for k, v in trees.flatten(captured["intermediates"]).items()}
        seen[stage], before = x, stage
    features = model.clone(num_classes=None).apply(variables, x, start=before)
    logits, captured = model.apply(variables, x, start=before, capture_intermediates=True)
    seen |= {k.removesuffix("/__call__"): v[0] for k, v in trees.flatten(captured["intermediates"]).items()}
    return logits, features, seen


def our_names(name, stages):
    """{golden's stage: our name}."""
    framework, model = VARIANTS[name]
    if framework == "torchvision":
        return {s: rules.torch_module(s) for s in stages}
    if model == "resnet50":
        return {s: KERAS_STAGES.get(s) or rules.keras_resnet_module(re.sub("_out$", "_0_conv", s)) for s in stages}
    spec = [n for n, _ in golden(framework)[0][model]["spec"]]
    renamed = {k.rpartition("/")[0]: module for k, (_, module, _) in rules.RULES[name, "keras"](spec).items()}
    mixed = dict(
        zip((f"mixed{i}" for i in range(11)), (s for s in models.stage_names(name) if "Mixed" in s), strict=True)
    )
    return {s: renamed.get(s) or mixed.get(s) or KERAS_STAGES.get(s, s) for s in stages}


def find(name, stage, seen):
    """The output of a golden's stage among ours, or None."""
    if VARIANTS[name][0] == "torchvision":
        if match := re.fullmatch(r"layer(\d)", stage):
            return seen[f"layer{stage[-1]}_{(2, 3, 5, 2)[int(match[1]) - 1]}"]
        if match := re.fullmatch(r"classifier\.([0235])", stage):  # dropout and ReLU of the dense layers
            if match[1] == "0":
                return seen["avgpool"]
            dense = {"2": 1, "3": 1, "5": 4}[match[1]]
            return np.maximum(seen[f"classifier_{dense}"], 0)
    if stage.endswith("_out") and VARIANTS[name] == ("keras", "resnet50"):
        block = rules.keras_resnet_module(stage.replace("_out", "_1_conv")).partition("/")[0]
        return seen[block]
    if stage in FORKS:
        mixed, unit = FORKS[stage]
        return np.concatenate([seen[f"{mixed}/{unit}{half}"] for half in "ab"], -1)
    if stage == "dropout":
        return seen["avgpool"]
    return seen.get(our_names(name, [stage])[stage])


@pytest.mark.parametrize(("name", "case"), list(cases()))
def test_logits_features_and_every_stage_are_the_references(name, case):
    framework, model = VARIANTS[name]
    info, arrays = golden(framework)[0][model]["cases"][case], golden(framework)[1]
    with jax.default_matmul_precision("highest"):
        out = run_by_stages(name, variables_of(name), images_of(case))
        logits, features, seen = jax.device_get(out)
    for key, got in (("logits", logits), ("features", features)):
        if f"{model}/{case}/{key}" in arrays:
            assert relative(got, arrays[f"{model}/{case}/{key}"]) < 1e-5
    if f"{model}/{case}/features_f32" in arrays:  # flattened C, H, W there
        got = features.reshape(2, 6, 6, 256).transpose(0, 3, 1, 2).reshape(2, -1)
        assert relative(got, arrays[f"{model}/{case}/features_f32"]) < 1e-5
    unmatched = []
    for stage, wanted in info["stages"].items():
        got = find(name, stage, seen)
        if got is None:
            unmatched.append(stage)
            continue
        if framework == "torchvision" and got.ndim == 4:
            got = got.transpose(0, 3, 1, 2)
        assert got.size == np.prod(wanted["shape"]), stage
        if got.ndim == 4 and len(wanted["shape"]) == 4:
            assert list(got.shape) == wanted["shape"], stage
        flat, scale = got.ravel().astype(np.float64), wanted["std"] * 1e-4
        assert abs(flat.mean() - wanted["mean"]) < scale and abs(flat.std() - wanted["std"]) < scale, stage
        for part, key in ((flat[:8], "first8"), (flat[-8:], "last8")):
            np.testing.assert_allclose(part, wanted[key], rtol=1e-4, atol=scale, err_msg=stage)
    assert [s for s in unmatched if not re.fullmatch(NO_COUNTERPART, s)] == []


@pytest.mark.parametrize("name", ["alexnet_torchvision", "resnet50"])
def test_gradient_norms_are_the_references(name):
    wanted = golden("torchvision")[0][VARIANTS[name][1]]["gradients"]
    model, variables = models.get_model(name), variables_of(name)

    def loss(params, x):
        return jnp.mean(jnp.square(model.apply({**variables, "params": params}, x)))

    with jax.default_matmul_precision("highest"):
        value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(variables["params"], images_of("noise224"))
    assert float(value) == pytest.approx(wanted["loss_value"], rel=1e-5)
    assert float(jnp.linalg.norm(grads[1])) == pytest.approx(wanted["input_l2_norm"], rel=1e-3)
    names = rules.RULES[name, "torchvision"](k for k, _ in golden("torchvision")[0][VARIANTS[name][1]]["spec"])
    norms = {k: float(jnp.linalg.norm(g)) for k, g in trees.flatten(grads[0]).items()}
    for key, norm in wanted["l2_norm"].items():
        _, module, leaf = names[key]
        assert norms[f"{module}/{leaf}"] == pytest.approx(norm, rel=1e-3), key


def test_keras_and_torchvision_names_of_the_same_module_meet():
    for model, layers in json.loads((GOLDENS / "keras_to_torchvision_map.json").read_text()).items():
        name = {"resnet50": "resnet50_v1", "inception_v3": "inception_v3_keras"}[model]
        spec = [n for n, _ in golden("keras")[0][model]["spec"]]
        ours = {k.rpartition("/")[0]: module for k, (_, module, _) in rules.RULES[name, "keras"](spec).items()}
        assert ours == {k: rules.torch_module(v) for k, v in layers.items()}
