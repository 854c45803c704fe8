import json
from importlib import import_module

import pytest

from lesion.dataset import store
from lesion.errors import UserError
from lesion.experiments import plan as plans
from lesion.experiments import reproduce
from lesion.runs import rundir


def get(name, **changes):
    config = import_module(f"configs.{name}").get_config()
    config.update_from_flattened_dict(changes)
    return config


def planned(monkeypatch, config, sequences=("flair", "ce_t1wi", "t2wi")):
    counts = {name: {"glioma": 1} if name in sequences else {} for name in ("flair", "ce_t1wi", "t2wi")}
    monkeypatch.setattr(store, "load_info", lambda data_dir: {"sequences": counts})
    return plans.plan(config, "data")


@pytest.mark.parametrize("name", ["demo", "paper_small", "paper"])
def test_every_experiment_of_a_plan_has_a_folder_of_its_own(monkeypatch, name):
    experiments, left_out = planned(monkeypatch, get(name))
    names = [one.name for one in experiments]
    assert len(set(names)) == len(names) and not left_out
    assert all(one.config.is_locked and json.loads(one.config.to_json()) for one in experiments)
    backbones = get(name).transfer.backbones or (get(name).backbone,)
    assert {f"transfer/{b}/{s}" for b in backbones for s in ("flair", "ce_t1wi", "t2wi")} <= set(names)
    if name != "demo":
        assert {f"leakage/ce_t1wi/{which}" for which in plans.LEAKAGE} | {"permutation/ce_t1wi"} < set(names)
        assert {n.split("/")[1] for n in names if n.startswith("ablations/")} == {
            "head", "start", "copies", "num_acquire", "initial",
        }  # fmt: skip


def test_what_the_cohort_lacks_is_left_out_and_nothing_else(monkeypatch):
    experiments, left_out = planned(monkeypatch, get("demo"), ("flair", "ce_t1wi"))
    assert left_out == {"transfer/efficientnet_lite0/t2wi": "the cohort has no t2wi"}
    assert [one.name for one in experiments][-1] == "active/ce_t1wi"
    with pytest.raises(UserError, match="nothing to run on data: the cohort has no"):
        planned(monkeypatch, get("demo"), ())


def test_a_bad_value_anywhere_in_the_plan_is_told_before_anything_runs(monkeypatch):
    for changes, message in (
        ({"transfer.backbones": ("resnet99",)}, "no backbone 'resnet99'"),
        ({"active.strategies": ("guess",)}, "no strategy 'guess'"),
        ({"ablations.transfer.head": ((("head.pooling", "least"),),)}, "head.pooling=least"),
    ):
        with pytest.raises(UserError, match=message):
            planned(monkeypatch, get("paper_small", **changes))


def test_settings_name_their_folder():
    assert rundir.setting_name((("head.widths", (512, 256)), ("num_copies", 4))) == "head.widths=512-256,num_copies=4"
    assert rundir.setting_name((("head.widths", ()), ("weights", ""))) == "head.widths=none,weights=none"
    assert "/" not in rundir.setting_name((("weights", "a/b"),))


def test_weights_are_found_by_the_backbones_name(tmp_path):
    (tmp_path / "all/resnet50").mkdir(parents=True)
    one = tmp_path / "one"
    one.mkdir()
    (one / "provenance.json").write_text('{"model": "alexnet"}')
    assert plans.weights_of("resnet50", str(tmp_path / "all")) == str(tmp_path / "all/resnet50")
    assert plans.weights_of("alexnet", str(tmp_path / "all")) == plans.weights_of("alexnet", "") == ""
    assert plans.weights_of("alexnet", str(one)) == str(one)
    with pytest.raises(UserError, match="holds weights of alexnet, not of resnet50"):
        plans.weights_of("resnet50", str(one))
    with pytest.raises(UserError, match="no weights in"):
        plans.weights_of("resnet50", str(tmp_path / "nowhere"))


def test_a_plan_may_grow_in_its_folder_and_the_shared_fields_may_not_change(tmp_path):
    def whole(**changes):
        return {"config": json.loads(get("demo", **changes).to_json()), "split_hash": "x"}

    reproduce._open(tmp_path, whole())
    rundir.finish(tmp_path, {})
    reproduce._open(tmp_path, whole())
    assert rundir.is_finished(tmp_path, whole())
    grown = whole(**{"active.sequences": ("flair", "ce_t1wi")})
    reproduce._open(tmp_path, grown)
    assert json.loads((tmp_path / rundir.CONFIG).read_text())["config"] == grown["config"]
    assert not (tmp_path / rundir.METRICS).exists()
    recorded = (tmp_path / rundir.CONFIG).read_bytes()
    with pytest.raises(UserError, match=r"config.num_epochs is 50 there, 3 now"):
        reproduce._open(tmp_path, whole(num_epochs=3, explain=True))
    assert (tmp_path / rundir.CONFIG).read_bytes() == recorded


def test_transfer_may_differ_from_what_the_other_parts_share(monkeypatch):
    config = get("paper_small", **{"transfer.patience": 5, "transfer.mode": "finetune"})
    assert (config.mode, config.patience) == ("frozen", 0)
    by_part = {one.name.split("/")[0]: one.config for one in planned(monkeypatch, config)[0]}
    assert (by_part["transfer"].mode, by_part["transfer"].patience) == ("finetune", 5)
    assert {by_part[part].mode for part in ("fusion", "leakage")} == {"frozen"}
    with pytest.raises(UserError, match=r"baselines/cnn_f_svm/ce_t1wi: .*smoothing"):
        planned(monkeypatch, get("paper_small", **{"baselines.label_smoothing": 0.1}))
