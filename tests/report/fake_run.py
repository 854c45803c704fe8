"""Run folders as the experiments leave them, with plausible numbers."""

import csv
import io
import json
import shutil

import matplotlib.figure
import numpy as np

from lesion.report import paper

CONFIG = {
    "config": {
        "backbone": "efficientnet_lite0",
        "mode": "frozen",
        "num_epochs": 20,
        "num_copies": 1,
        "num_folds": 5,
        "entropy_threshold": 0.3,
        "optim": {"lr": 0.001},
    },
    "phantom": True,
    "versions": {"python": "3.11.2", "jax": "0.10.2"},
    "split_hash": "5f1d" * 16,
    "weights": {"model": "efficientnet_lite0", "source": "lite", "sha256": "ab12" * 16, "pretrained": True},
    "data": {"fingerprint": "77aa" * 16},
    "command": "python -m launch.reproduce --config=configs/demo.py --data=DATA --workdir=RUN",
    "started": "2026-01-01T10:00:00+00:00",
    "finished": "2026-01-01T10:07:30+00:00",
}


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_rows(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def fake_transfer(folder, seed, signal, config=CONFIG, num_patients=48, num_folds=5, leaky=False, one_a_patient=False):
    rng, rows = np.random.default_rng(seed), []
    for p in range(num_patients):
        label = int(p % 3 == 0)
        easy = rng.normal()
        for s in range(1 if one_a_patient else rng.integers(5, 13)):
            logit = signal * (2 * label - 1) + 1.2 * easy + 0.7 * rng.normal()
            fold = s % num_folds if leaky else p // 3 % num_folds
            name = "" if one_a_patient else f"S{p:04x}{s}"
            rows.append((fold, f"P{p:04x}", name, label, 1 / (1 + np.exp(-logit))))
    rows.append((0, "Pffff", "Sffff0", -1, 0.5))  # without a label: not scored
    write_rows(folder / "predictions.csv", ("fold", "patient", "slice", "label", "probability"), rows)
    write_json(folder / "config.json", config)
    write_json(folder / "metrics.json", {})


def fake_active(folder, seed, gain, strategies=("entropy", "random"), config=CONFIG, rounds=9, folds=5, seeds=5):
    rows = []
    for strategy in strategies:
        bonus = 0 if strategy == "random" else gain
        for fold in range(folds):
            for s in range(seeds):
                rng = np.random.default_rng([seed, fold, s, strategy == "random"])
                ease = np.random.default_rng([seed, fold]).normal() * 0.03
                start = np.random.default_rng([seed, fold, s]).integers(60, 71)
                for r in range(rounds):
                    t = r / (rounds - 1)
                    accuracy = 0.66 + 0.15 * t + bonus * 4 * t * (1 - t) + ease + (rng.normal() * 0.015 if r else 0)
                    auc = min(0.72 + 0.15 * t + bonus * 4 * t * (1 - t) + ease + (rng.normal() * 0.01 if r else 0), 1)
                    patients = 8 + (1 - 0.5**r) * (28 if bonus else 24)
                    entropy = 0.69 - 0.5 * t * (1.1 if bonus else 0.6) + 0.02 * rng.normal()
                    costs, entropies = (start + 20 * r, int(patients)), (entropy, entropy / 2, 0.9 * entropy)
                    agreement = float("nan") if r == 0 else 0.9 if s or strategy == "random" else 1.0
                    chance = (12 if r == rounds - 1 else 0, 0.1 + 0.8 * t)
                    rows.append((fold, s, strategy, r, *costs, 2, accuracy, auc, *entropies, agreement, *chance))
    header = "fold seed strategy round labeled_slices labeled_patients labeled_classes accuracy auc"
    entropies = "max_entropy mean_entropy p95_entropy agreement num_tied sure_share"
    write_rows(folder / "curves.csv", [*header.split(), *entropies.split()], rows)
    write_json(folder / "config.json", config)
    reached = {"slices": 120, "patients": 20, "reached": folds * seeds, "at_start": 0, "runs": folds * seeds}
    efficiency = {
        "area": {"accuracy": [0.75, 0.7, 0.8], "auc": [0.81, None, None]},
        "needed": {"auc": {"0.95": reached, "0.99": reached | {"slices": None, "reached": 2}}},
    }
    full = {"accuracy": [0.83, 0.8, 0.86], "auc": [0.88, None, None]}
    write_json(folder / "metrics.json", {"full_data": full, "strategies": dict.fromkeys(strategies, efficiency)})


def fake_permutation(folder, config=CONFIG, p=0.005):
    level = {"true": 0.84, "mean": 0.49, "error": 0.006, "low": 0.33, "high": 0.66, "p": p}
    write_json(folder / "config.json", config)
    head = {"head": "logistic regression on frozen features", "num_shuffles": 200}
    write_json(folder / "metrics.json", head | {"slice": level, "patient": level})


def fake_doctor(folder, rounds=4, over=True):
    """A folder as launch/active leaves it with a doctor."""
    header = ("round", "labeled_slices", "labeled_patients", "pseudo_slices", "max_entropy", "mean_entropy")
    table = [(r, 64 + 12 * r, 12 + r, 0, 0.69 - 0.13 * r, 0.4 - 0.1 * r) for r in range(rounds)]
    write_rows(folder / "rounds.csv", header, table)
    write_rows(folder / "predictions.csv", ("patient", "slice", "label", "said_by", "probability"), [])
    write_json(folder / "config.json", CONFIG)
    if over:
        left_out = {"cannot_tell_slices": 1, "not_usable_slices": 2}
        write_json(folder / "metrics.json", {"stopped_by": ["entropy"]} | left_out)


def fake_png(path, height, width):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = matplotlib.figure.Figure((width / 100, height / 100), dpi=100, facecolor="black")
    figure.text(0.5, 0.5, "sheet", color="white")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    path.write_bytes(buffer.getvalue())


def fake_run(workdir, phantom=True, pretrained=True):
    """A folder as launch/reproduce leaves it."""
    config = CONFIG | {"phantom": phantom, "weights": CONFIG["weights"] | {"pretrained": pretrained}}
    counts = {
        "encephalitis": {"patients": 32, "slices": 270},
        "glioma": {"patients": 16, "slices": 141},
        "unlabeled": {"patients": 0, "slices": 0},
    }
    cohort = {
        "phantom": phantom,
        "fingerprint": "77aa" * 16,
        "sequences": {name: counts for name in paper.TITLES},
        "patients": {"encephalitis": 32, "glioma": 16, "unlabeled": 0},
        "files_read": 3168,
        "skipped": {"not an image": 3, "other modality: CT": 2},
        "rejected": {"duplicate": 1},
        "preprocess": {"size": 224, "window": [0.5, 99.5]},
    }
    write_json(workdir / "config.json", config)
    lite = {"title": "EfficientNet-Lite0", "num_params": 4_652_008, "input_size": 224, "feature_width": 1280}
    alexnet = {"title": "AlexNet, single tower", "num_params": 62_378_344, "input_size": 224, "feature_width": 9216}
    write_json(workdir / "models.json", {"alexnet": alexnet, "efficientnet_lite0": lite})
    write_json(workdir / "cohort" / "cohort.json", cohort)
    fake_png(workdir / "cohort" / "preprocessing.png", 300, 1200)
    fake_png(workdir / "cohort" / "cohort.png", 500, 1200)
    for seed, (name, signal) in enumerate({"flair": 0.7, "ce_t1wi": 1.6, "t2wi": 1.0}.items()):
        inner = CONFIG["config"] | {"sequence": name}
        fake_transfer(workdir / "transfer" / "efficientnet_lite0" / name, seed, signal, config | {"config": inner})
    fake_active(workdir / "active" / "ce_t1wi", 3, 0.03, config=config)
    return workdir


def fake_failure(folder, error="out of memory while training fold 3"):
    record = {"error": error, "when": "2026-01-01T10:05:00+00:00", "command": "python -m launch.reproduce --again"}
    write_json(folder / "failed.json", record)


def fake_paper(workdir, backbones=("alexnet", "resnet50", "inception_v3"), num_patients=36):
    """A folder as launch/reproduce leaves it of the whole paper, two runs failed."""
    fake_run(workdir)
    shutil.rmtree(workdir / "transfer")
    titles = {"alexnet": "AlexNet", "resnet50": "ResNet-50", "inception_v3": "Inception-V3"}
    params = {"alexnet": 62_378_344, "resnet50": 25_557_032, "inception_v3": 23_834_568}
    table = {
        n: {"title": t, "num_params": params[n], "input_size": 224, "feature_width": 2048} for n, t in titles.items()
    }
    write_json(workdir / "models.json", table)
    specs = {
        "cnn_f": {"title": "CNN-F", "num_params": 60_834_536, "guesses": ""},
        "capsnet": {"title": "CapsNet", "num_params": 10_791_808, "guesses": "no coarse box of the tumour as input"},
        "kiryu": {"title": "Kiryu's CNN", "num_params": 1_234_567, "guesses": "widths of its layers; its dropout"},
    }
    write_json(workdir / "baselines.json", specs)

    def config(**fields):
        return CONFIG | {"config": CONFIG["config"] | fields}

    shared = {"head": {"widths": "head.widths=512-256"}, "weights": "runs/weights", "transfer": {"mode": "finetune"}}
    write_json(workdir / "config.json", config(ablations={"transfer": {"head": []}}, **shared))

    def run(name, seed, signal, fields, **options):
        fake_transfer(workdir / name, seed, signal, config(**fields), num_patients, **options)

    for m, model in enumerate(backbones):
        for s, sequence in enumerate(paper.TITLES):
            fields = {"backbone": model, "sequence": sequence, "mode": "finetune", "num_epochs": 50}
            run(f"transfer/{model}/{sequence}", 10 * m + s, 0.6 + 0.4 * m + 0.2 * s, fields)
            sheet = workdir / "explain" / model / sequence
            fake_png(sheet / "gradcam.png", 300, 900)
            write_json(sheet / "config.json", config(**fields))
    for m, model in enumerate(specs):
        run(f"baselines/{model}/ce_t1wi", 50 + m, 0.5 + 0.2 * m, {"backbone": model, "sequence": "ce_t1wi"})
    as_run = config(backbone="capsnet") | {"baseline": {"guesses": "as guessed when it was run"}}
    write_json(workdir / "baselines" / "capsnet" / "ce_t1wi" / "config.json", as_run)
    inner = {"flair": {"auc": 0.7, "loss": 0.6}, "ce_t1wi": {"auc": 0.8, "loss": 0.5}}
    notes = {
        "best_single": {"chosen": ["ce_t1wi", "flair", "ce_t1wi"], "inner": [inner] * 3, "fell_back": 2},
        "attention": {"attention": {"flair": 0.4, "t2wi": 0.6}, "slices": {"flair": 0.5, "t2wi": 0.5}},
    }
    fusion = ("early", "late", "attention", "best_single", "only_flair", "only_ce_t1wi", "only_t2wi")
    for m, model in enumerate(fusion):
        run(f"fusion/{model}", 70 + m, 1.6 - 0.15 * m, {}, one_a_patient=True)
        scores = {"lack_the_sequence": m} if model.startswith("only_") else notes.get(model, {})
        write_json(workdir / "fusion" / model / "metrics.json", scores)
    for m, cell in enumerate(("patient_true", "leaky_true", "leaky_shuffled")):
        signal = (1.0, 2.5, 2.0)[m]
        run(f"leakage/ce_t1wi/{cell}", 80 + m, signal, {"sequence": "ce_t1wi"}, leaky=cell.startswith("leaky"))
    fake_permutation(workdir / "permutation" / "ce_t1wi", config(sequence="ce_t1wi"))
    for m, setting in enumerate(("head.widths=64", "head.widths=512-256", "head.widths=1024-512-256")):
        fields = {"sequence": "ce_t1wi", "weights": "", "head": {"widths": setting}}
        run(f"ablations/head/{setting}", 90 + m, 1.0 + 0.1 * m, fields)
    for m, setting in enumerate(("entropy_threshold=0.1", "entropy_threshold=0.3")):
        fields = {"sequence": "ce_t1wi", "entropy_threshold": float(setting[-3:])}
        fake_active(workdir / "ablations" / "delta" / setting, m, 0.03, config=config(**fields), rounds=4, seeds=2)
    for m, sequence in enumerate(("flair", "t2wi")):
        fake_active(workdir / "active" / sequence, 5 + m, 0.01 * m, config=config(sequence=sequence), rounds=6, seeds=2)
    calls = [(r, f"P{p:04x}", int((p % 3 == 0) != (p % (5 + r) == 0))) for r in (1, 2) for p in range(num_patients)]
    write_rows(
        workdir / "readers.csv", ("reader", "patient", "label"), [(f"simulated_reader_{r}", p, c) for r, p, c in calls]
    )
    fake_failure(workdir / "transfer" / "inception_v3_keras" / "flair")
    fake_failure(workdir / "baselines" / "diamant" / "ce_t1wi", "weights & 100% of_the memory\nsecond line")
    return workdir
