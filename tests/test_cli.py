"""Command lines: overrides are checked, help and lists can be acted on."""

import subprocess
import sys
from importlib import import_module

import pytest
from absl import flags
from ml_collections import config_flags

from lesion import cli
from lesion.errors import UserError

BAD = {
    "head.widths=('a', 'b')": "it takes values like 512,256",
    "head.widths=wide": "it takes values like 512,256",
    "strategies=1,2": "it takes values like entropy,random",
    "optim=3": "it holds fields: set one, such as --config.optim.backbone_lr=...",
    "num_epochs=2.5": "it takes a value like 50",
    "optim.lr=fast": "it takes a value like 0.001",
    "class_weights=maybe": "it takes a value like false",
    "optim={'lrr': 3}": "no field --config.optim.lrr: is it --config.optim.lr?",
    "lr=3": "no field --config.lr: is it --config.optim.lr?",
    "num_epoch=3": "is it --config.num_epochs?",
    "heads.width=3": "is it --config.head.widths?",
    "optim.lr.x=3": "is it --config.optim.lr?",
    "qqq=3": "--help shows all fields",
}
GOOD = {
    "--config.optim.lr=1": ("optim.lr", 1.0),
    "--config.head.widths=512,256": ("head.widths", (512, 256)),
    "--config.head.widths=(64,)": ("head.widths", (64,)),
    "--config.head.widths=[64, 32]": ("head.widths", (64, 32)),
    "--config.head.widths=": ("head.widths", ()),
    "--config.strategies=badge": ("strategies", ("badge",)),
    "--config.strategies=entropy,random": ("strategies", ("entropy", "random")),
    "--config.strategies=('entropy','random')": ("strategies", ("entropy", "random")),
    "--config.class_weights": ("class_weights", True),
    "--noconfig.class_weights": ("class_weights", False),
    "--config.weights=a/b": ("weights", "a/b"),
    "--config.optim={'lr': 0.01}": ("optim.lr_decay", 0.9),  # the rest of a group stays
    "--seed=3": ("seed", 3),
}


def parsed(*argv):
    config, values = import_module("configs.active").get_config(), flags.FlagValues()
    argv = ["program", *cli.override_flags(config, argv)]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    values(argv)
    return values.config


@pytest.mark.parametrize("override", BAD)
def test_an_override_that_cannot_be_is_one_line_that_mends_it(override):
    with pytest.raises(UserError) as error:
        parsed(f"--config.{override}")
    line = str(error.value)
    assert "\n" not in line and f"--config.{override.partition('=')[0].partition('.')[0]}" in line
    assert BAD[override] in line


@pytest.mark.parametrize("override", GOOD)
def test_an_override_is_taken(override):
    name, value = GOOD[override]
    found = cli.flatten(parsed(override))[name]
    assert found == value and type(found) is type(value)
    if "=" in override and not override.endswith("="):
        assert cli.flatten(parsed(*override.split("=", 1)))[name] == value


def test_a_message_that_repeats_a_value_of_several_lines_is_one():
    assert cli.one_line(UserError("--config.mode=a\n \r\nb: choose  one")) == "--config.mode=a b: choose  one"


def test_a_field_that_was_renamed_is_refused_with_its_new_name():
    config = import_module("configs.active").get_config()
    for old, new in cli.RENAMED.items():
        assert new in config and old not in config
        with pytest.raises(UserError, match=f"--config.{old}: it is called --config.{new} now"):
            parsed(f"--config.{old}=1")


def test_the_list_of_configurations_tells_what_each_takes(capsys):
    for file, module in cli.list_configs().items():
        assert module.ARGUMENT and module.__doc__.strip(), file
    for value, message in (("nowhere.py", "there are configs/active.py"), ("pyproject.toml", "no configuration")):
        with pytest.raises(UserError, match=message):
            cli.load_config(value)


def ran(*flags_given):
    command = [sys.executable, "-m", "launch.train", *flags_given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_help_shows_flags_and_the_configuration_itself():
    status, out, _ = ran("--config=configs/transfer.py", "--help")
    assert status == 0 and "--data:" in out and "--[no]dry_run:" in out and "--workdir:" in out
    assert "config.num_copies = 4  # augmented copies beside each training slice, 0 to 4" in out
    status, out, _ = ran("--config=list")
    assert status == 0 and "configs/active.py[:BACKBONE,SEQUENCE]   with launch.active" in out


@pytest.mark.slow
def test_a_seed_counts_in_a_flagfile_too(tmp_path):
    (tmp_path / "flags").write_text("--seed=x\n")
    status, _, err = ran(f"--flagfile={tmp_path}/flags", "--data=nowhere", "--workdir=nowhere")
    assert status == 1 and err.startswith("error: --config.seed=x: it takes a value like 0") and err.count("\n") == 1
