"""Who may import whom: only downwards, and each room only what it is for."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
GROUND = ("errors", "classes", "progress", "trees", "files", "workers", "environment", "cli")
# The rooms of lesion/ from the ground up, and what each may import beside the ground and itself.
ROOMS = {
    "metrics": "",
    "runs": "",
    "dicom": "",
    "dataset": "dicom",
    "phantom": "dicom dataset",
    "models": "",
    "weights": "models runs",
    "train": "dataset models runs",
    "transfer": "dataset metrics models runs train weights",
    "worklist": "dicom dataset",
    "active": "dataset metrics runs train transfer worklist",
    "annotate": "dataset worklist",
    "inference": "dicom dataset metrics models runs train transfer weights",
    "inspect": "dataset models runs inference",
    "report": "metrics",
    "experiments": "active dataset inference models report runs transfer worklist",
    "benchmarks": "active dataset dicom metrics models phantom runs train transfer weights",
}
NO_JAX = {"dicom", "dataset", "phantom", "worklist", "annotate", "metrics", "report", *GROUND} - {"trees"}
# `jit` where programs are put together, `pmap` where steps are spread over devices.
JIT = ("train", "transfer", "active/parallel.py", "inference", "weights", "benchmarks")
PMAP = ("train/devices.py",)
FOREIGN_AT_RUN_TIME = {"tensorflow", "torch", "keras"}


def modules():
    """{path below the root: its syntax tree} of lesion/, launch/ and configs/."""
    paths = [path for folder in ("lesion", "launch", "configs") for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT): ast.parse(path.read_text()) for path in paths}


MODULES = modules()


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path):
    """`train` of lesion/train/step.py, `files` of lesion/files.py, `launch` of launch/train.py."""
    return path.parts[1].removesuffix(".py") if path.parts[0] == "lesion" else path.parts[0]


def test_imports_go_down():
    order = list(ROOMS)
    for name, below in ROOMS.items():
        assert all(order.index(other) < order.index(name) for other in below.split()), f"{name} is not above {below}"
    for path, tree in MODULES.items():
        own = room(path)
        for name in imports(tree):
            top, *rest = name.split(".")
            assert top not in FOREIGN_AT_RUN_TIME, f"{path} imports {name}"
            if top == "configs":
                assert own == "configs", f"{path} imports {name}"
            elif top == "launch" or (top == "lesion" and own == "configs"):
                raise AssertionError(f"{path} imports {name}")
            elif top == "lesion" and own != "launch":
                allowed = {own, *GROUND, *ROOMS.get(own, "").split()}
                assert rest[0] in allowed, f"{path} imports {name}"


def test_rooms_for_files_and_numbers_do_without_jax():
    for path, tree in MODULES.items():
        if room(path) in (*NO_JAX, "launch", "configs"):
            found = {name for name in imports(tree) if name.split(".")[0] in ("jax", "flax", "optax")}
            assert not found, f"{path} imports {found}"


def test_jit_and_pmap_are_applied_in_the_shell_only():
    for path, tree in MODULES.items():
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for name, allowed in (("jit", JIT), ("pmap", PMAP)):
            inside = any(path.is_relative_to(Path("lesion", place)) for place in allowed)
            assert inside or name not in names, f"{path} applies {name}"
