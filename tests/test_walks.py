"""What the READMEs show is done: each walk in a copy; and their commands have flags and fields that are there."""

import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README, *OTHERS = (ROOT / "README.md", *sorted((ROOT / "lesion").rglob("README.md")), ROOT / "launch/README.md")
NEEDED = ("lesion", "configs", "launch", *(f"tests/{name}" for name in ("active", "dicom", "models")))
NEEDED += ("tests/tiny.py", "tests/dicom_trees.py", "tests/goldens/weights.py", "pyproject.toml")

HERE = "import lesion, os; assert lesion.__file__.startswith(os.getcwd())"
BACKBONE = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
sys.path += ["tests", "tests/models"]
import test_models, tiny
from lesion import models, trees, weights
from lesion.runs import checkpoint
from lesion.transfer.checks import check_config
from lesion.transfer.methods import run_transfer
from lesion.weights import pretrained

pictures = models.preprocess("toy", jnp.full((2, 16, 16), 200, jnp.uint8))
logits, variables = jax.jit(models.get_model("toy").init_with_output)(jax.random.key(0), pictures)
assert logits.shape == (2, 1000) and jnp.isfinite(logits).all()
assert trees.num_params(variables["params"]) == 38_104
assert models.stage_before("toy", "conv2") == "bn1" and models.map_stages("toy")[-1] == "conv2"
test_models.test_every_row_of_the_registry_is_what_it_says("toy")
test_models.test_every_stage_is_reachable_and_gradients_stop_below_it("toy")

torch = {f"bn1.{n}": np.ones(16) for n in ("weight", "bias", "running_mean", "running_var")}
torch |= {"conv1.weight": np.ones((16, 3, 3, 3)), "conv2.weight": np.ones((32, 16, 3, 3)), "conv2.bias": np.ones(32)}
torch |= {"fc.weight": np.ones((1000, 32)), "fc.bias": np.ones(1000)}
weights.merge(pretrained.shapes("toy"), weights.convert("toy", "torchvision", torch))

made = tiny.config(backbone="toy", finetune_from="conv2", num_epochs=1)
check_config(made)
run_transfer(made, tiny.setup(made, "data"), Path("run"))
assert Path("run/metrics.json").exists()
fold = checkpoint.load_variables(Path("run/checkpoints/fold_0"))[0]["params"]
assert set(fold["backbone"]) == {"conv2"}, fold.keys()  # what is below is not trained
"""

STRATEGY = """
import sys
import jax, jax.numpy as jnp, numpy as np
sys.path += ["tests", "tests/active"]
import test_strategies, tiny
from lesion import models
from lesion.active import driver, experiment
from lesion.active.strategies import STRATEGIES, PoolOutputs
from lesion.errors import UserError

models.MODELS["tiny"] = tiny.SPEC
for dropout in (0.2, 0.0):
    try:
        experiment.check_active(tiny.active_config(strategies=("variation_ratio",), head_dropout=dropout))
    except UserError as error:
        assert not dropout and "draws predictions with dropout" in str(error), error
    else:
        assert dropout
against = jnp.array([0, 3, 5, 1, 4])  # of ten predictions: how many do not call encephalitis
glioma = jnp.where(jnp.arange(10) < against[:, None], 0.9, 0.2)
outputs = PoolOutputs(jnp.full((5, 2), 0.5), mc_probs=jnp.stack([1 - glioma, glioma], -1))
drive = driver.make_driver(STRATEGIES["variation_ratio"], driver.QueryConfig(2))
pool = drive.init(jnp.zeros(5, bool), jnp.array([1, 1, 0, 1, 1], bool))
pool, info = jax.jit(drive.step)(jax.random.key(0), pool, outputs, jnp.arange(5))
assert info.indices.tolist() == [4, 1], info
np.testing.assert_allclose(info.scores, [0.4, 0.3], rtol=1e-6)
test_strategies.test_scores_equal_numpy_alone_vmapped_and_jitted("variation_ratio")
"""

BASELINE = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp, optax
sys.path += ["tests", "tests/models"]
import test_baselines, tiny
from configs import baselines
from lesion import models
from lesion.transfer.checks import check_config
from lesion.transfer.methods import run_transfer

test_baselines.test_every_row_is_what_it_says("lenet")
pictures = models.preprocess("lenet", jnp.full((2, 224, 224), 200, jnp.uint8))
seen, _ = jax.jit(models.get_model("lenet", None).init_with_output)(jax.random.key(0), pictures)
logit, _ = models.BASELINES["lenet"].head().init_with_output(jax.random.key(1), seen)
assert jnp.isfinite(optax.sigmoid_binary_cross_entropy(logit, jnp.array([0.0, 1.0]))).all()

small = {"num_epochs": 1, "batch_size": 8, "num_copies": 0, "num_folds": 2}
made = tiny.changed(baselines.get_config("lenet,flair"), small)
check_config(made)
run_transfer(made, tiny.setup(made, "data"), Path("run"))  # a loss that is not finite ends it
assert Path("run/metrics.json").exists()
"""

SEQUENCE = """
import io, json, sys
from pathlib import Path
import numpy as np
from PIL import Image
sys.path += ["tests"]
from dicom_trees import dataset, head, save
from lesion.dataset import store
from lesion.dicom import read
from lesion.dicom.rules import Rules
from lesion.phantom import cohort

plain = {"SeriesDescription": "t1_se_tra", "EchoTime": 9, "RepetitionTime": 500, "InversionTime": None}
for agent, told in (("", "t1wi"), ("Gadovist", "ce_t1wi")):
    save(dataset(head(32).astype(np.uint16), **plain, ContrastBolusAgent=agent), Path("image"))
    (frame,) = read.read_header(".", "image").frames
    assert Rules().sequence_alone(frame.attributes) == told, frame
assert list(store.Cohort.builder_configs) == ["flair", "ce_t1wi", "t2wi", "t1wi"]

png = io.BytesIO()
Image.fromarray(np.zeros((224, 224), np.uint8)).save(png, "png")
store.write(Path("data"), "t1wi", [store.Record("s", "p", 1, png.getvalue(), (1.0, 1.0), "", 0.0)])
Path("data/cohort.json").write_text(json.dumps({"sequences": ["t1wi"]}))
assert store.load_slices("data", "t1wi").slice_id.tolist() == ["s"]
assert set(cohort.plan_cohort(cohort.PRESETS["tiny"], 0)[0].counts) == {"flair", "ce_t1wi", "t2wi"}
"""


# Where a walk stands: file and heading.
WALKS = {
    ("lesion/models/README.md", "### A backbone"): BACKBONE,
    ("lesion/models/README.md", "### A baseline"): BASELINE,
    ("lesion/active/README.md", "## How to add a strategy"): STRATEGY,
    ("lesion/dicom/README.md", "## How to add a sequence"): SEQUENCE,
}


def blocks(file, heading):
    """The fenced blocks of a walk: kind, first line (which names the file), the rest."""
    after = (ROOT / file).read_text().split(f"\n{heading}\n")[1]
    section = re.split(r"^##+ ", after, maxsplit=1, flags=re.M)[0]
    return re.findall(r"^```(\w+)\n(.*?)\n(.*?)^```$", section, re.S | re.M)


def apply(folder, kind, first, body):
    """Writes a block's new file, or makes its changes, each of which must fit exactly one place."""
    file = folder / first.lstrip("+# ")
    if kind == "python":
        assert not file.exists(), file
        file.write_text(f"{first}\n{body}")
        return
    text = file.read_text()
    for change in body.split("@@\n"):
        lines = [line or " " for line in change.splitlines()]
        assert {line[0] for line in lines} <= set(" +-"), change
        old, new = ("".join(f"{line[1:]}\n" for line in lines if line[0] != gone) for gone in "+-")
        assert f"\n{text}".count(f"\n{old}") == 1, f"{file.name}: not in one place:\n{old}"
        text = f"\n{text}".replace(f"\n{old}", f"\n{new}")[1:]
    file.write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk[1].rpartition(" ")[2])
def test_a_walk_does_what_it_says(walk, tmp_path):
    for name in NEEDED:
        copy, leave = shutil.copytree if (ROOT / name).is_dir() else shutil.copy, shutil.ignore_patterns("__pycache__")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, tmp_path / name, **({"ignore": leave} if copy is shutil.copytree else {}))
    there = blocks(*walk)
    assert there
    for block in there:
        apply(tmp_path, *block)
    python_files = {name for _, first, _ in there if (name := first.lstrip("+# ")).endswith(".py")}
    assert run(tmp_path, "ruff", "check", "-q", *python_files) == ""
    assert run(tmp_path, sys.executable, "-c", f"{HERE}\n{WALKS[walk]}\nprint('done')").endswith("done\n")


def run(folder, *command):
    """What it printed; tiny networks are compiled fast."""
    env = os.environ | {"PYTHONPATH": str(folder), "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout


def test_a_walk_that_no_longer_fits_its_file_fails(tmp_path):
    (tmp_path / "a.py").write_text("ONE = 1\nTWO = 2\n")
    apply(tmp_path, "diff", "+++ a.py", " ONE = 1\n+HALF = 0.5\n@@\n-TWO = 2\n+TWO = 3\n")
    assert (tmp_path / "a.py").read_text() == "ONE = 1\nHALF = 0.5\nTWO = 3\n"
    with pytest.raises(AssertionError, match="not in one place"):
        apply(tmp_path, "diff", "+++ a.py", " TWO = 2\n+HALF = 0.5\n")


COMMAND = r"python -m launch\.(\w+)((?:[^\n]*\\\n)*[^\n]*)"
COMMANDS = [found for file in (README, *OTHERS) for found in re.findall(rf"^ +{COMMAND}", file.read_text(), re.M)]


@pytest.mark.parametrize(("program", "given"), COMMANDS, ids=[f"{i} {name}" for i, (name, _) in enumerate(COMMANDS)])
def test_a_command_has_flags_and_fields_that_there_are(program, given):
    source = (ROOT / "launch" / f"{program}.py").read_text()
    if "executors.define_flags(" in source:
        source += (ROOT / "lesion/experiments/executors.py").read_text()
    if "reading_flags.define_flags(" in source:
        source += (ROOT / "lesion/dicom/reading_flags.py").read_text()
    known = set(re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', source))
    assert set(re.findall(r"--(\w+)", given)) - {"config"} <= known, given
    if found := re.search(r"--config=configs/(\w+)\.py:?(\S*)", given):
        config = importlib.import_module(f"configs.{found[1]}").get_config(found[2])
        for field in re.findall(r"--config\.([\w.]+)", given):
            functools.reduce(lambda part, name: part[name], field.split("."), config)


def test_your_own_folder_takes_six_commands():
    first = README.read_text().split("## Your own DICOM folder")[1].split("\n## ")[0]
    commands = ["prepare", "prepare", "convert_weights", "train", "active", "report"]
    assert re.findall(r"python -m launch\.(\w+)", first) == commands


def test_readmes_are_short_enough_to_read_and_their_links_lead_somewhere():
    assert len(README.read_bytes()) <= 9 * 1024
    for file in (README, *OTHERS):
        text = file.read_text()
        code = re.findall(r"^```\w+\n(.*?)^```$", text, re.S | re.M) + re.findall(r"^    .*$", text, re.M)
        assert [line for block in code for line in block.splitlines() if len(line) >= 90] == [], file
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert link.startswith("https://") or (file.parent / link).exists(), f"{file}: {link}"
