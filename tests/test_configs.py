import copy
import json
import subprocess
import sys
from importlib import import_module
from math import inf, nan

import pytest

from lesion import cli, models
from lesion.errors import UserError
from lesion.experiments import kinds, plan
from lesion.transfer import checks
from lesion.transfer.checks import check_config

NAMES = ("transfer", "active", "doctor", "demo", "head_search", "baselines", "fusion", "paper", "paper_small")


def get(name, arg=""):
    return import_module(f"configs.{name}").get_config(arg)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_locked_serialisable_and_runnable(name):
    config = get(name)
    assert config.is_locked
    assert json.loads(config.to_json())["num_epochs"] == (20 if name == "paper_small" else 50)
    check_config(config)
    with pytest.raises(AttributeError):
        config.learning_rate = 1.0
    assert "python -m launch." in import_module(f"configs.{name}").__doc__


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_config_is_the_config(name, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": json.loads(get(name).to_json())}))
    assert get("recorded", str(path)).to_dict() == get(name).copy_and_resolve_references().to_dict()
    again = get("recorded", str(path))
    again.optim.lr = 3e-4
    assert again.optim.backbone_lr == 3e-4
    with pytest.raises(ValueError, match="name a run's"):
        get("recorded", str(tmp_path))


def test_the_papers_numbers():
    config = get("active")
    assert (config.batch_size, config.optim.lr, config.optim.lr_decay, config.num_folds) == (32, 1e-3, 0.9, 5)
    assert (config.initial_labeled, config.num_acquire, config.entropy_threshold) == (400, 50, 0.3)
    assert config.head.widths == (512, 256)


def test_every_baseline_is_runnable_at_the_papers_rate_but_capsnet():
    for name in models.BASELINES:
        config = get("baselines", f"{name},t2wi")
        check_config(config)
        assert (config.backbone, config.sequence) == (name, "t2wi")
        assert config.optim.lr == config.optim.backbone_lr == (1e-4 if name == "capsnet" else 1e-3)


def test_arguments_name_backbone_and_sequence():
    config = get("transfer", "resnet50,flair")
    assert (config.backbone, config.sequence) == ("resnet50", "flair")
    with pytest.raises(ValueError, match="at most 2 parts"):
        get("transfer", "a,b,c")


def test_an_experiment_of_the_plan_is_a_config_of_its_own():
    config = get("demo")
    assert set(plan.experiment_config(config, sequence="flair")) == set(get("transfer"))
    active = plan.experiment_config(config, "active", **{"sequence": "flair", "optim.lr": 3e-4})
    assert set(active) == set(get("active"))
    assert (active.sequence, active.num_epochs) == ("flair", config.active.num_epochs)
    assert (active.optim.backbone_lr, config.optim.lr) == (3e-4, 1e-3)


def test_the_backbones_rate_follows_the_heads_unless_set():
    config = get("transfer").copy_and_resolve_references()
    assert config.optim.backbone_lr == config.optim.lr
    config = get("transfer")
    config.optim.lr = 3e-4
    assert config.optim.backbone_lr == 3e-4
    config.optim.backbone_lr = 1e-5
    assert (config.optim.lr, config.optim.backbone_lr) == (3e-4, 1e-5)


def test_every_setting_of_the_head_search_is_runnable():
    settings = []
    import_module("configs.head_search").sweep(lambda **overrides: settings.append(overrides))
    assert len({str(s) for s in settings}) == len(settings) == 14
    for overrides in settings:
        config = get("head_search")
        config.update_from_flattened_dict(overrides)
        check_config(config)


BAD = {"mode": "warp", "data_on": "moon", "backbone": "resnet99"}


@pytest.mark.parametrize(("field", "value"), BAD.items(), ids=BAD)
def test_a_bad_value_is_one_line(field, value):
    config = get("transfer").copy_and_resolve_references()
    config[field] = value
    with pytest.raises(UserError, match=str(value)):
        check_config(config)


# Values below and above the range of each number.
OUTSIDE = {
    "seed": (-1, 2**32),
    "num_folds": (1, 1001),
    "num_copies": (-1, 5),
    "num_epochs": (0, 100_001),
    "batch_size": (0, 65537),
    "label_smoothing": (-0.1, 1.0),
    "patience": (-1, 1_000_001),
    "validation": (0.0, 1.0),
    "checkpoint_every": (0, 1_000_001),
    "optim.lr": (0.0, -1e-3, inf, nan),
    "optim.backbone_lr": (-1e-3, inf),
    "optim.lr_decay": (0.0, 1.1),
    "head.dropout": (-0.1, 1.0),
    "head.widths": ((0,), (512, -1), (65537,), (True,)),
    "svm.num_features": (0, 4097),
    "svm.c": (0.0, inf),
    "fusion.attention_width": (0, 65537),
    "fusion.inner_folds": (1, 1001),
    "num_deals": (0, 1001),
    "num_repeats": (0, 1001),
    "num_rounds": (0, 10_001),
    "initial_labeled": (0, 1_000_001),
    "num_acquire": (0, 1_000_001),
    "max_per_patient": (-1, 1_000_001),
    "dropout_samples": (0, 10_001),
    "parallel_runs": (-1, 1_000_001),
    "budget_slices": (-1, 1_000_001),
    "budget_patients": (-1, 1_000_001),
    "entropy_threshold": (-0.1, 0.694, 1.0),  # the last in bits
    "stabilizing_predictions": (-0.1, 1.1),
}
NUMBERED = ("transfer", "baselines", "fusion", "active", "doctor")


def numbers(config):
    fields = cli.flatten(config)
    return {k for k, v in fields.items() if type(v) in (int, float) or k == "head.widths"}


def test_every_number_has_a_range():
    found = set.union(*(numbers(get(name, *["cnn_f_svm"] * (name == "baselines"))) for name in NUMBERED))
    assert found == set(checks.RANGES) == set(OUTSIDE)


@pytest.mark.parametrize("field", OUTSIDE)
def test_a_number_outside_its_range_is_told_the_range(field):
    for name in NUMBERED:
        if field not in numbers(made := get(name, *["cnn_f_svm"] * (name == "baselines"))):
            continue
        for value in OUTSIDE[field]:
            config = copy.deepcopy(made)
            config.update_from_flattened_dict({field: value})
            with pytest.raises(UserError) as error:
                kinds.KINDS[kinds.kind_of(config)].check(config)
            text = ",".join(map(str, value)) if isinstance(value, tuple) else value
            assert f"--config.{field}={text}: " in str(error.value) and "\n" not in str(error.value)
            assert checks.RANGES[field].text in str(error.value) or value == 4097  # more than the network has


DISAGREE = {
    "scratch with weights": ({"mode": "scratch", "weights": "w"}, "leave out --config.weights"),
    "a stage of nothing": ({"mode": "finetune", "finetune_from": "layer9"}, "no stage 'layer9'"),
    "a stage while frozen": ({"finetune_from": "layer4"}, "is for --config.mode=finetune"),
    "nothing to cache": ({"mode": "finetune", "cache_activations": True}, "needs --config.finetune_from"),
}


@pytest.mark.parametrize(("changes", "message"), DISAGREE.values(), ids=DISAGREE)
def test_values_that_disagree_are_one_line(changes, message):
    config = get("transfer", "resnet50,flair")
    config.update(changes)
    with pytest.raises(UserError, match=message):
        check_config(config)


FLAGS = {
    "an unknown field": (["--config.nope=3"], "no field --config.nope: --help shows all fields"),
    "a field misspelt": (
        ["--config=configs/active.py", "--config.optim.lrr=3"],
        "no field --config.optim.lrr: is it --config.optim.lr?",
    ),
    "no number": (["--config.num_epochs=many"], "--config.num_epochs=many: it takes a value like 50"),
    "a rate below": (["--config.optim.lr=-1", "--dry_run"], "--config.optim.lr=-1.0: it must be above 0"),
    "a group in part": (["--config.optim={'lr': 0}", "--dry_run"], "--config.optim.lr=0.0: it must be above 0"),
    "bits": (
        ["--config=configs/active.py", "--config.entropy_threshold=1", "--dry_run"],
        "--config.entropy_threshold=1.0: it must be 0 to 0.693 nats",
    ),
    "too many parts": (["--config=configs/transfer.py:a,b,c"], "at most 2 parts"),
    "no file": (["--config=configs/nowhere.py"], "there are configs/active.py, "),
    "no record": (["--config=configs/recorded.py:nowhere"], "name a run's config.json"),
    "an unknown flag": (["--nope=3"], "flag 'nope'"),
    "no dataset": ([], "no dataset in"),
}


# As `python -m launch.train` does, each case in a fork of one process: what takes long to import is imported once.
FORKS = """
import json, os, runpy, sys
import lesion.experiments.kinds
for given, stderr in json.loads(sys.argv[1]):
    if not os.fork():
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
        program = "launch.active" if given[0] == "--config=configs/active.py" else "launch.train"
        sys.argv = [program, *given]
        runpy.run_module(program, run_name="__main__")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """{case: (exit status, stderr)}, and the folder they would have written to."""
    folder = tmp_path_factory.mktemp("flags")
    paths = f"--data={folder / 'nowhere'}", f"--workdir={folder / 'run'}"
    cases = [([*given, *paths], str(folder / f"{i}")) for i, (given, _) in enumerate(FLAGS.values())]
    command = [sys.executable, "-W", "ignore", "-c", FORKS, json.dumps(cases)]
    statuses = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    told = [(folder / f"{i}").read_text() for i in range(len(cases))]
    return dict(zip(FLAGS, zip(map(int, statuses), told, strict=True), strict=True)), folder


@pytest.mark.slow
@pytest.mark.parametrize("case", FLAGS)
def test_bad_flags_are_one_line_and_write_nothing(case, ended):
    (status, stderr), folder = ended[0][case], ended[1]
    assert status == 1
    (line,) = stderr.strip().splitlines()
    assert line.startswith("error: ") and FLAGS[case][1] in line
    assert not (folder / "run").exists()
