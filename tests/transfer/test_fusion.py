"""Fusion of two planted sequences whose evidence adds up: what each way finds, keeps, and refuses."""

import csv
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from scipy.special import expit, logit

from configs import fusion as configs_fusion
from lesion import models
from lesion.dataset import UNLABELED, Slices, splits
from lesion.errors import Interrupted, UserError
from lesion.models.heads import Bags, GatedAttention
from lesion.train import epoch
from lesion.train.frozen import Examples, frozen_learner
from lesion.train.network import Network
from lesion.train.step import Recipe
from lesion.transfer import bags, folds, fusion, fusion_folds, methods

import tiny  # isort: skip

pytestmark = pytest.mark.slow

SEQUENCES = ("flair", "t2wi")
PARTS = ("only_flair", "only_t2wi", "early", "late", "best_single", "attention")
WIDTH = {"flair": 6, "t2wi": 4}
LACK = {"flair": ("p003", "p007"), "t2wi": ("p010", "p011", "p020")}


def cohort(n=120, seed=0, lack=LACK):
    """Slices and features of n patients: glioma where the evidence in both sequences together is above 0."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(0, 1, (n, 2))
    glioma = (evidence.sum(1) > 0).astype(np.int32)
    slices, features = {}, {}
    for m, name in enumerate(SEQUENCES):
        rows = [(f"p{i:03d}", i) for i in range(n) if f"p{i:03d}" not in lack[name] for _ in range(rng.integers(1, 4))]
        patient, at = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
        turned = rng.permutation(len(rows))
        ids = np.array([f"{name}{i:04d}" for i in range(len(rows))])
        made = rng.normal(0, 0.5, (len(rows), 2, WIDTH[name])).astype(np.float32)  # the slice, and one copy
        made[:, :, 0] += evidence[at, m, None]
        empty, spacing = np.zeros((len(rows), 1, 1), np.uint8), np.ones((len(rows), 2), np.float32)
        one = Slices(empty, glioma[at], patient, ids, spacing, np.zeros(len(rows), np.float32))
        slices[name], features[name] = Slices(*(x[turned] for x in one)), made[turned]
    return slices, features


def config(**changes):
    small = {"num_epochs": 12, "batch_size": 16, "num_copies": 1, "num_folds": 2, "head_widths": (16, 8)}
    made = tiny.changed(configs_fusion.get_config("tiny"), small | {"optim_lr": 0.01, "optim_backbone_lr": 0.01})
    with made.unlocked():
        made.fusion.update({"sequences": SEQUENCES, "inner_folds": 2, "attention_width": 4})
        made.update_from_flattened_dict(changes)
    return made.lock()


def setup(made, data_dir, slices):
    everyone = [np.concatenate([getattr(s, field) for s in slices.values()]) for field in ("label", "patient")]
    dealt = splits.make(*everyone, made.num_folds, made.seed)
    return fusion.make_setup(made, data_dir, {"fingerprint": "planted", "phantom": True}, slices, dealt)


@pytest.fixture(scope="module", autouse=True)
def planted(tmp_path_factory):
    """The tiny backbone is in the registry, its features are the planted ones, what was compiled is kept."""
    slices, features = cohort()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    compilation_cache.reset_cache()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", tiny.SPEC)
        patch.setattr(methods, "frozen_features", lambda config, *_: features[config.sequence])
        yield slices, features
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def whole(planted, tmp_path_factory):
    """A run that nothing stopped: its folder, and what it returned."""
    folder = tmp_path_factory.mktemp("fusion") / "run"
    return folder, fusion.run_fusion(config(), setup(config(), folder.parent, planted[0]), folder)


def rows(folder):
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_bags_hold_every_labelled_slice_once(planted):
    slices, features = planted
    slices = slices | {"flair": slices["flair"]._replace(label=slices["flair"].label.copy())}
    hidden = slices["flair"].patient == "p005"
    slices["flair"].label[hidden] = UNLABELED
    slices["t2wi"] = Slices(*(x[slices["t2wi"].patient != "p005"] for x in slices["t2wi"]))
    kept = features | {"t2wi": features["t2wi"][planted[0]["t2wi"].patient != "p005"]}
    patients = bags.find_patients(slices)
    made = bags.make_bags(patients, slices, kept)
    assert "p005" not in patients.patient and len(patients.patient) == 119
    assert made.features.shape == (119, 2, 2, 3, 6) and made.mask.shape == (119, 2, 2, 3)
    for i, m in np.ndindex(119, 2):
        name = SEQUENCES[m]
        mine = np.flatnonzero(slices[name].patient == patients.patient[i])
        mine = mine[np.argsort(slices[name].slice_id[mine])]
        assert patients.num_slices[i, m] == len(mine) == made.mask[i, 0, m].sum() == made.mask[i, 1, m].sum()
        want = kept[name][mine].swapaxes(0, 1)
        np.testing.assert_array_equal(made.features[i, :, m, : len(mine), : WIDTH[name]], want)
        assert not np.any(made.features[i, :, m, :, WIDTH[name] :])
    assert [tuple(patients.patient[~patients.have(name)]) for name in SEQUENCES] == list(LACK.values())


def test_what_only_both_tell_is_found_by_fusion(whole):
    folder, results = whole
    assert tuple(results) == PARTS
    assert [results[f"only_{n}"]["head_params"] for n in SEQUENCES] == [(w + 1) * 16 + 145 for w in WIDTH.values()]
    auc = {part: results[part]["patient"]["auc"]["value"] for part in PARTS}
    assert min(auc["early"], auc["attention"]) > auc["best_single"] + 0.05, auc
    assert auc["late"] > auc["best_single"]
    one = [(r["fold"], r["patient"], r["label"]) for r in rows(folder / "early")]
    assert len({p for _, p, _ in one}) == len(one) == 120
    records = [json.loads((folder / part / "config.json").read_text()) for part in PARTS]
    assert len({r["split_hash"] for r in records}) == 1 and [r["part"] for r in records] == list(PARTS)
    for part in PARTS:
        assert [(r["fold"], r["patient"], r["label"]) for r in rows(folder / part)] == one
        assert not any(r["slice"] for r in rows(folder / part))
        assert sorted(p.name for p in (folder / part / "checkpoints").iterdir()) == ["fold_0", "fold_1"]


def test_who_lacks_a_sequence_is_predicted_from_what_there_is(whole):
    folder, results = whole
    told = {part: {r["patient"]: float(r["probability"]) for r in rows(folder / part)} for part in PARTS}
    fold_of = {r["patient"]: int(r["fold"]) for r in rows(folder / "early")}
    for name, other in (SEQUENCES, SEQUENCES[::-1]):
        assert results[f"only_{name}"]["lack_the_sequence"] == len(LACK[name])
        for patient in LACK[name]:
            shown = [int(r["label"]) for r in rows(folder / "early") if int(r["fold"]) != fold_of[patient]]
            assert told[f"only_{name}"][patient] == pytest.approx(np.mean(shown))
            assert told["late"][patient] == told["best_single"][patient] == told[f"only_{other}"][patient]
    chosen = results["best_single"]["chosen"]
    whole_ones = [p for p in fold_of if not any(p in some for some in LACK.values())]
    for patient in whole_ones:
        assert told["best_single"][patient] == told[f"only_{chosen[fold_of[patient]]}"][patient]
        mean = np.mean([told[f"only_{name}"][patient] for name in SEQUENCES])
        assert told["late"][patient] == pytest.approx(mean, rel=1e-6)
    assert results["best_single"]["fell_back"] == sum(p in LACK[chosen[fold]] for p, fold in fold_of.items())
    for what in ("attention", "slices"):
        assert sum(results["attention"][what].values()) == pytest.approx(1)


def test_the_best_is_chosen_without_the_test_patients(planted, tmp_path):
    slices, features = planted
    made = config()
    patients = bags.find_patients(slices)
    units = folds.Units(patients.label, patients.patient, np.full(120, ""))
    train = np.arange(120) % 3 > 0
    inputs = bags.make_bags(patients, slices, features).features[:, :, 0, 0]
    seen = []

    def fit(keys, examples, units, train):
        seen.append(train)
        return folds.FoldResult({}, expit(np.asarray(examples.inputs)[:, 0, 0]), [])

    def scores(label):
        single = fusion_folds.SingleSequence(
            fit, Examples(inputs, label), units._replace(label=label), patients.have("flair")
        )
        return fusion_folds.inner_scores(made, single, train, (jax.random.key(0), jax.random.key(1)))

    who = train & patients.have("flair")
    plain = scores(patients.label)
    assert plain == scores(np.where(train, patients.label, 1 - patients.label))
    assert plain["auc"] == epoch.auc(patients.label[who], inputs[who, 0, 0])
    assert all(not np.any(one & ~who) for one in seen)
    np.testing.assert_array_equal(seen[0] ^ seen[1], who)


def test_late_means_are_of_what_there_is():
    probability = np.array([[0.2, 0.8, 0.5], [0.9, np.nan, 0.7], [1.0, 0.5, 0.0]], np.float32)
    have = np.array([[True] * 3, [True, False, True], [True, True, False]])
    np.testing.assert_allclose(fusion_folds.mean_present(probability, have, "probability"), [0.5, 0.8, 0.75], rtol=1e-6)
    want = expit([logit([0.2, 0.8, 0.5]).mean(), logit([0.9, 0.7]).mean(), logit([1 - 1e-7, 0.5]).mean()])
    np.testing.assert_allclose(fusion_folds.mean_present(probability, have, "logit"), want, rtol=1e-3)


def contents(folder):
    """Every result of a run, and the hashes of its weights."""
    tables = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.csv")}
    return tables | {p.relative_to(folder): p.read_bytes() for p in folder.rglob("metrics.json")}


def test_stopped_or_killed_at_any_fold_it_ends_with_the_same_bytes(whole, planted, tmp_path, monkeypatch):
    left, write = [0], folds._write_fold

    def counted(*args):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        write(*args)
        if left[0] == 100:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(folds, "_write_fold", counted)
    made = setup(config(), tmp_path, planted[0])
    left[0] = 102
    with pytest.raises(Interrupted, match="stopped after only_flair, part 1 of 6"):
        fusion.run_fusion(config(), made, tmp_path / "run")
    for survived, finished in ((1, 1), (8, 5)):  # within only_t2wi, then within attention
        left[0] = survived
        with pytest.raises(KeyboardInterrupt):
            fusion.run_fusion(config(), made, tmp_path / "run")
        assert len(list((tmp_path / "run").glob("*/metrics.json"))) == finished
    left[0] = 99
    assert tuple(fusion.run_fusion(config(), made, tmp_path / "run")) == ("attention",)
    assert contents(tmp_path / "run") == contents(whole[0])


def test_dropout_and_pool_outputs_are_of_bags_too(planted):
    slices, features = planted
    patients = bags.find_patients(slices)
    made = bags.make_bags(patients, slices, features)
    shown = Examples(Bags(*(jnp.asarray(x[:6]) for x in made)), jnp.asarray(patients.label[:6]))
    learner = frozen_learner(Network(GatedAttention((32, 16), 2, dropout=0.5)), Recipe(), num_samples=3)
    key, names = jax.random.key(0), ("probs", "augmented_probs", "mc_probs")

    @jax.jit
    def outputs_of(x):
        return {name: learner.pool_outputs(key, learner.init(key, x), x, name) for name in names}

    outputs = outputs_of(shown)
    assert [outputs[name].shape for name in names] == [(6, 2), (6, 2, 2), (6, 3, 2)]
    np.testing.assert_allclose(outputs["augmented_probs"][:, 0], outputs["probs"], rtol=1e-5)
    assert np.ptp(outputs["mc_probs"][..., 1], axis=1).min() > 0


def test_a_finished_run_is_kept_and_another_refused(whole, planted):
    folder, _ = whole
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    again = config(weights="")
    assert fusion.run_fusion(again, setup(again, folder.parent, planted[0]), folder) is None
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    other = config(**{"fusion.late": "logit"})
    with pytest.raises(UserError, match=r"config\.fusion\.late is 'probability' there"):
        fusion.run_fusion(other, setup(other, folder.parent, planted[0]), folder)


BAD = {
    "one sequence": ({"fusion.sequences": ("flair",)}, "fusion needs two or more"),
    "the same twice": ({"fusion.sequences": ("flair", "flair")}, "fusion needs two or more, each once"),
    "no such sequence": ({"fusion.sequences": ("flair", "dwi")}, "'dwi' is unknown: choose among ce_t1wi, flair"),
    "no such backbone": ({"fusion.backbones.t2wi.backbone": "resnet99"}, "no backbone 'resnet99'"),
    "fine-tuning": ({"mode": "finetune"}, "fusion is of frozen features"),
    "no layer": ({"head.widths": ()}, "name one at least"),
    "a mean of what": ({"fusion.late": "median"}, "choose one of 'probability', 'logit'"),
    "too few folds": ({"fusion.inner_folds": 1}, "inner_folds=1: it must be 2 to 1000"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_run_is_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        fusion.check(config(**changes))


def test_cohorts_that_cannot_be_fused_are_one_line(planted, tmp_path):
    slices = planted[0]
    half = {n: Slices(*(x[(s.patient < "p060") == (n == "flair")] for x in s)) for n, s in slices.items()}
    with pytest.raises(UserError, match="no labelled patient has slices in two of flair, t2wi"):
        setup(config(), tmp_path, half)
    with pytest.raises(UserError, match="several visits of 2 patients"):
        fusion.make_setup(config(), tmp_path, {"patients_of_several_visits": 2}, slices, None)
    few = slices["t2wi"]
    few = Slices(*(x[(few.label == 0) | (few.patient < "p006")] for x in few))
    with pytest.raises(UserError, match=r"fold \d: \d training patients with glioma have t2wi.*leave t2wi out of"):
        setup(config(), tmp_path, slices | {"t2wi": few})
    with pytest.raises(UserError, match="it takes 4 to choose"):  # patience keeps one of each half back
        setup(config(patience=1), tmp_path, slices | {"t2wi": few})


def test_backbones_are_the_shared_ones_unless_named(planted, tmp_path):
    made = config(**{"fusion.backbones.flair.backbone": "efficientnet_lite0"})
    one, other = (fusion.sequence_config(made, name) for name in SEQUENCES)
    assert (one.backbone, other.backbone, one.sequence) == ("efficientnet_lite0", "tiny", "flair")
    weights = {"flair": {"sha256": "a", "pretrained": True}, "t2wi": {"sha256": "b", "pretrained": False}}
    joined = fusion._joint_provenance(weights)
    assert joined["pretrained"] is False and joined["sequences"] == weights
    assert fusion._joint_provenance({name: weights["flair"] for name in SEQUENCES}) == weights["flair"]
