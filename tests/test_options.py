"""The flags that programs share: overrides are checked, help and lists can be acted on."""

from importlib import import_module

import pytest
from absl import flags
from ml_collections import config_flags

from lesion import options, usage
from lesion.errors import UserError

BAD = {
    "optim.lr=fast": 'it takes a number, such as --config.optim.lr=0.001',
    "optim.lr=nan": "it takes a number",
    "num_epochs=2.5": "it takes a whole number, such as --config.num_epochs=50",
    "head.widths=512": 'it takes a tuple of whole numbers, such as --config.head.widths="(512, 256)"',
    "head.widths=('a', 'b')": "it takes a tuple of whole numbers",
    "head.widths=(512": "it takes a tuple of whole numbers",
    "strategies=entropy": "it takes a tuple of words, such as --config.strategies=\"('entropy', 'random')\"",
    "class_weights=maybe": "it takes true or false, such as --config.class_weights=false",
    "optim=3": "it holds fields: name one of them, such as --config.optim.",
    "lr=3": "no field --config.lr: is it --config.optim.lr?",
    "num_epoch=3": "is it --config.num_epochs?",
    "heads.width=3": "is it --config.head.widths?",
    "optim.lr.x=3": "is it --config.optim.lr?",
    "qqq=3": "--help tells which there are",
}  # fmt: skip
GOOD = {
    *("optim.lr=1", "optim.lr=3e-4", "num_epochs=3", "head.widths=()", "head.widths=(64,)", "head.widths=[64, 32]"),
    *("strategies=('badge',)", "class_weights=True", "weights=a/b", "weights=", "optim={'lr': 1.0}"),
}


def check(*argv):
    config = import_module("configs.active").get_config()
    options.check_overrides(config, ["program", "--config=configs/active.py", *argv])
    return config


@pytest.mark.parametrize("override", BAD)
def test_an_override_that_cannot_be_is_one_line_that_mends_it(override):
    with pytest.raises(UserError) as error:
        check(f"--config.{override}")
    line = str(error.value)
    assert "\n" not in line and f"--config.{override.partition('=')[0]}" in line and BAD[override] in line


def test_what_passes_is_what_ml_collections_takes():
    for override in GOOD:
        argv, values = ["program", f"--config.{override}"], flags.FlagValues()
        config_flags.DEFINE_config_dict("config", check(argv[1]), flag_values=values, sys_argv=argv)
        values(argv)
    for argv in (["--config.num_epochs", "3"], ["--config.class_weights"], ["--noconfig.class_weights"], ["--x=1"]):
        check(*argv)
    with pytest.raises(UserError, match="a whole number"):
        check("-config.num_epochs", "x")


def test_every_configuration_is_listed_with_what_it_takes():
    text = usage.configs_text()
    for one in usage.listed():
        module = import_module(f"configs.{one.file.removeprefix('configs/').removesuffix('.py')}")
        assert one.about == module.__doc__.partition("\n")[0] and one.about in " ".join(text.split())
        assert one.argument == module.ARGUMENT and f"{one.file}[:{one.argument}]" in text
        assert one.sweeps == hasattr(module, "sweep") and one.program.startswith("launch.")
    for value, message in (("nowhere.py", "there are configs/active.py"), ("pyproject.toml", "no configuration")):
        with pytest.raises(UserError, match=message):
            options.load_config(value)


def test_help_tells_every_field_in_the_words_of_its_comment(monkeypatch):
    config = import_module("configs.demo").get_config()
    monkeypatch.setattr(usage, "_width", lambda: 100)
    told = usage.help_text({"__doc__": "About.\n\n    python -m x \\\n        y"}, ["x"], config, "configs/demo.py")
    assert "About.\n\n    python -m x \\\n        y\n\nFlags:" in told
    said = usage.comments()
    for name, value in usage.flat(config).items():
        if not hasattr(value, "keys"):
            assert f"  --config.{name}=" in told
            assert usage.about(name, said), f"{name} has no comment"
    assert "augmented copies beside each training slice, 0 to 4" in " ".join(told.split())
    assert max(map(len, told.splitlines())) <= 100


def test_seed_is_an_override_of_the_configuration():
    argv = options.named_seed(["x", "--seed=3", "-seed", "4", "--seeds=1", "--config.seed=5"])
    assert argv == ["x", "--seeds=1", "--config.seed=5", "--config.seed=3", "--config.seed=4"]
    with pytest.raises(UserError, match="seed=x: it takes a whole number"):
        check(*options.named_seed(["--seed=x"]))


def test_the_value_of_config_is_the_last_that_is_given():
    assert options.config_value(["x", "--config.a=1"], "d") == "d"
    assert options.config_value(["x", "--config=a", "-config", "b", "--config.a=1"], "d") == "b"
