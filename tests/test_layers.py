"""Who may import whom: only downwards, never sideways."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GROUND = {"lesion", "lesion.errors", "lesion.progress", "lesion.trees", "lesion.usage"}
PURE = {f"lesion.train.{name}" for name in ("state", "steps", "network", "recipe")}
# What the modules of a room may import of this project beside themselves; the longest prefix counts.
ROOMS = {
    "lesion.usage": set(),
    "lesion.errors": {"lesion.usage"},
    "lesion.options": {"lesion.errors", "lesion.usage"},
    "lesion.progress": set(),
    "lesion.trees": set(),
    "lesion.metrics": set(),
    "lesion.report": {"lesion.metrics", "lesion.errors"},
    "lesion.data": GROUND,
    "lesion.annotate": GROUND | {"lesion.data"},
    "lesion.models": GROUND,
    "lesion.weights": GROUND,
    "lesion.explain.gradcam": {"lesion.train.network"},
    "lesion.explain": set(),
    # The order in which Inception's units are created, and what is subtracted from CNN-F's pictures.
    "lesion.weights.rules": GROUND | {"lesion.models.inception", "lesion.models.cnn_f"},
    "lesion.train.state": set(),
    "lesion.train.steps": {"lesion.train.state"},
    "lesion.train.network": set(),
    "lesion.train.recipe": {"lesion.train.state"},
    "lesion.train.learner": PURE,
    "lesion.train.finetune": PURE | {"lesion.train.learner", "lesion.data.augment"},
    "lesion.train": GROUND | {"lesion.data", "lesion.explain", "lesion.metrics", "lesion.models", "lesion.weights"},
    "lesion.active.acquisition": set(),
    "lesion.active.oracle": set(),
    "lesion.active.diversity": set(),
    "lesion.active.strategies": {"lesion.active.acquisition", "lesion.active.diversity"},
    "lesion.active.driver": {"lesion.active.diversity", "lesion.active.strategies"},
    "lesion.active.stopping": set(),
    "lesion.active.program": {"lesion.active", "lesion.train.learner"},
    "lesion.active": GROUND | {"lesion.annotate", "lesion.data", "lesion.metrics", "lesion.train"},
    "lesion.benchmarks": GROUND | {"lesion.data", "lesion.models", "lesion.train", "lesion.weights", "lesion.active"},
    "lesion.inspect": GROUND | {"lesion.data", "lesion.explain", "lesion.models", "lesion.train"},
    "lesion.reproduce": GROUND | {"lesion.data", "lesion.models", "lesion.train", "lesion.active", "lesion.report"},
    "lesion.sweep": GROUND | {"lesion.data", "lesion.train", "lesion.active"},
    "launch": {"lesion"},
    "configs": {"configs"},
}
NO_JAX = ("lesion.data", "lesion.annotate", "lesion.explain", "lesion.metrics", "lesion.report", "launch", "configs")
MAY_USE_JAX = {"lesion.data.augment", "lesion.explain.gradcam"}
JIT_HERE_ONLY = {"lesion.train", "lesion.active.lanes", "lesion.benchmarks"}
FOREIGN_AT_RUN_TIME = {"tensorflow", "torch", "keras"}


def modules():
    for folder in ("lesion", "launch", "configs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


def inside(name, rooms):
    return any(name == room or name.startswith(room + ".") for room in rooms if room != "lesion") or (
        name == "lesion" and "lesion" in rooms
    )


@pytest.mark.parametrize("module", [m for m in MODULES if m != "lesion"])
def test_imports_go_down(module):
    room = max((r for r in ROOMS if inside(module, [r])), key=len)
    # A package holds together: data.cohort may use data.preprocess, but a room listed by itself may not.
    allowed = ROOMS[room] | ({room} if room.count(".") == 1 else set())
    for name in imports(MODULES[module]):
        top = name.split(".")[0]
        assert top not in FOREIGN_AT_RUN_TIME, f"{module} imports {name}"
        if top in ("lesion", "launch", "configs"):
            allowed_here = allowed | ({"lesion.data", "lesion.train", "lesion"} if room == "launch" else set())
            fine = inside(name, allowed_here) or (room == "launch" and top == "lesion")
            assert fine, f"{module} imports {name}: {room} may import {sorted(allowed)}"
        if top in ("jax", "flax", "optax") and inside(module, NO_JAX):
            assert module in MAY_USE_JAX, f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if not inside(m, JIT_HERE_ONLY)])
def test_jit_and_pmap_are_applied_in_the_shell_only(module):
    names = {n.attr for n in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(n, ast.Attribute)}
    assert not names & {"jit", "pmap"}


@pytest.mark.parametrize("module", MODULES)
def test_files_fit_a_few_screens(module):
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= (80 if module.startswith("launch") else 300)
