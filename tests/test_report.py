import csv
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import matplotlib.figure
import numpy as np
import pytest

from lesion import errors, report
from lesion.report import figures, labelling, paper, read, results, words

CONFIG = {
    "config": {
        "backbone": "efficientnet_lite0",
        "mode": "frozen",
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


def fake_transfer(folder, seed, signal, config=CONFIG, num_patients=48, num_folds=5):
    rng, rows = np.random.default_rng(seed), []
    for p in range(num_patients):
        label = int(p % 3 == 0)
        easy = rng.normal()
        for s in range(rng.integers(5, 13)):
            logit = signal * (2 * label - 1) + 1.2 * easy + 0.7 * rng.normal()
            rows.append((p // 3 % num_folds, f"P{p:04x}", f"S{p:04x}{s}", label, 1 / (1 + np.exp(-logit))))
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
                    slices = start + 20 * r
                    rows.append((fold, s, strategy, r, slices, int(patients), accuracy, auc, entropy, entropy / 2, 0))
    header = "fold seed strategy round labeled_slices labeled_patients accuracy auc max_entropy mean_entropy stopped"
    write_rows(folder / "curves.csv", header.split(), rows)
    write_json(folder / "config.json", config)
    write_json(folder / "metrics.json", {"full_data": {"accuracy": 0.83, "auc": 0.88}})


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
    write_json(workdir / "cohort" / "cohort.json", cohort)
    fake_png(workdir / "cohort" / "preprocessing.png", 300, 1200)
    fake_png(workdir / "cohort" / "cohort.png", 500, 1200)
    for seed, (name, signal) in enumerate({"flair": 0.7, "ce_t1wi": 1.6, "t2wi": 1.0}.items()):
        inner = CONFIG["config"] | {"sequence": name}
        fake_transfer(workdir / "transfer" / name, seed, signal, config | {"config": inner})
    fake_active(workdir / "active" / "ce_t1wi", 3, 0.03, config=config)
    return workdir


class Page(HTMLParser):
    """Ids, references and tags of a page."""

    void = frozenset(("meta", "img", "br", "hr", "input", "link", "use", "path", "image", "rect"))

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.sources, self.tags, self.text, self.stack = [], [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[k] for k in ("href", "xlink:href") if k in values]
        self.links += ["#" + u for v in values.values() for u in re.findall(r"url\(#([^)]*)\)", v or "")]
        self.sources += [values["src"]] if "src" in values else []
        if tag not in self.void:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.stack and self.stack[-1] == tag, (tag, self.stack[-3:])
            self.stack.pop()

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.void:
            self.stack.pop()

    def handle_data(self, data):
        if not self.stack or self.stack[-1] != "style":
            self.text.append(data)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return fake_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(workdir):
    return report.write(workdir).read_text("utf-8")


def text_of(page):
    return re.sub(r"\s+", " ", " ".join(Page(page).text))


def test_the_page_opens_offline_and_hangs_together(page):
    parsed = Page(page)
    assert not parsed.stack
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert all(link.startswith("#") for link in parsed.links)
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert len(parsed.sources) == 2
    assert not {"script", "link", "iframe"} & set(parsed.tags)
    outside = set(re.findall(r"https?://[^\"' <)]*", page))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in page


def test_the_page_says_what_was_run_and_how_it_came_out(page):
    text = text_of(page)
    for words_ in (
        "PHANTOM RESULTS: made by simulation, they say nothing about patients",
        "48 simulated patients (32 with encephalitis, 16 with glioma)",
        "efficientnet_lite0 with ImageNet weights, frozen",
        "Table 3 of the paper", "Table 4 of the paper", "Table 5 of the paper",
        "as printed; the mean of 90.09",
        "ab12" * 16, "5f1d" * 16, "77aa" * 16,
        "3168 files read", "2 (other modality: CT)",
        "python -m launch.reproduce --config=configs/demo.py",
        "Nadeau and Bengio 2003",
    ):  # fmt: skip
        assert words_ in text, words_
    assert "RANDOM WEIGHTS" not in text
    assert "Not shown here" not in text


def test_no_patient_is_listed(page):
    assert not re.search(r"\bP0{2}[0-9a-f]{2}\b", page)
    assert "Sffff0" not in page


def test_the_same_folder_gives_the_same_bytes(workdir, page):
    assert report.render(read.read(workdir)) == page


def test_scores_on_the_page_are_those_of_metrics(workdir, page):
    run = next(r for r in read.read(workdir).transfer if r.sequence == "ce_t1wi")
    assert (run.label >= 0).all()
    auc = results.summarise(run)["scores"]["patient"]["auc"]
    assert f"{auc['value']:.2f} {auc['low']:.2f} to {auc['high']:.2f}" in text_of(page)


@pytest.mark.parametrize(
    ("phantom", "pretrained", "want"),
    [
        (True, True, ["PHANTOM RESULTS"]),
        ("mixed", True, ["PARTLY PHANTOM"]),
        (False, False, ["RANDOM WEIGHTS"]),
        (None, True, ["COHORT NOT RECORDED"]),
        (False, True, []),
    ],
)
def test_banners(phantom, pretrained, want):
    config = {"phantom": phantom, "weights": {"pretrained": pretrained}}
    got = report.banners(read.Folder(config, {}, {}, [], [], []))
    assert [b.split(":")[0] for b in got] == want


def test_a_broken_experiment_is_named_and_the_rest_appears(tmp_path):
    fake_run(tmp_path)
    (tmp_path / "transfer" / "flair" / "predictions.csv").unlink()
    (tmp_path / "transfer" / "t2wi" / "predictions.csv").write_text("fold,patient,label,probability\n0,a,1,nan\n")
    (tmp_path / "active" / "ce_t1wi" / "curves.csv").write_text("fold,seed\n0,0\n")
    (tmp_path / "cohort" / "cohort.png").write_bytes(b"not a picture")
    (tmp_path / "cohort" / "cohort.json").write_text("{broken")
    text = text_of(report.write(tmp_path).read_text("utf-8"))
    for part, why in (
        ("transfer/flair", "did not finish"),
        ("transfer/t2wi", "probabilities must be finite"),
        ("active/ce_t1wi", "curves.csv lacks the column strategy"),
        ("cohort/cohort.png", "not a PNG file"),
        ("cohort/cohort.json", "not a JSON object"),
    ):
        assert re.search(rf"{part} : .{{0,40}}{why}", text), part
    assert "Table 4 of the paper" in text


def test_an_experiment_of_the_plan_that_never_ran_is_missing(tmp_path):
    fake_transfer(tmp_path / "transfer" / "flair", 0, 1.0)
    plan = {"transfer_sequences": ["flair", "t2wi"], "active": {"sequences": ["ce_t1wi"]}}
    write_json(tmp_path / "config.json", CONFIG | {"config": plan})
    missing = dict(read.read(tmp_path).missing)
    assert missing["transfer/t2wi"] == missing["active/ce_t1wi"] == "not run"


def test_single_runs_are_reported_too(tmp_path):
    config = CONFIG | {"config": CONFIG["config"] | {"sequence": "t2wi"}}
    fake_transfer(tmp_path / "a", 0, 1.0, config)
    fake_active(tmp_path / "b", 0, 0.0, config=config)
    first, second = (text_of(report.write(tmp_path / name).read_text("utf-8")) for name in "ab")
    assert "Table 5 of the paper" in first
    assert "Fig. 11" in second
    for text in (first, second):
        assert "PHANTOM RESULTS" in text
        assert "Not shown here" not in text


def test_nothing_to_report_is_one_line(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(errors.UserError) as error:
            report.write(folder)
        assert "\n" not in str(error.value)
        assert str(folder) in str(error.value)
    assert not list(tmp_path.iterdir())


def test_leaky_folds_are_called_so(tmp_path):
    header = ("fold", "patient", "slice", "label", "probability")
    rows = [(i % 2, f"p{i // 4}", f"s{i}", i // 4 % 2, 0.4) for i in range(40)]
    write_rows(tmp_path / "predictions.csv", header, rows)
    text = text_of(report.write(tmp_path).read_text("utf-8"))
    assert "LEAKY FOLDS" in text
    assert "had not seen that patient" not in text


def test_text_from_outside_cannot_become_markup(tmp_path):
    inner = {"backbone": "<img src=x>", "sequence": '"><script>$x'}
    evil = CONFIG | {"command": "<script>alert(1)</script>", "config": inner}
    fake_transfer(tmp_path, 0, 1.0, evil)
    fake_active(tmp_path, 0, 0.0, ("<script>$b", "random"), config=evil)
    page = report.write(tmp_path).read_text("utf-8")
    assert "<script>" not in page
    assert "<img src=x" not in page


def test_one_class_one_fold_and_perfect_scores_are_said_not_hidden(tmp_path):
    header = ("fold", "patient", "slice", "label", "probability")
    write_rows(tmp_path / "one" / "predictions.csv", header, [(0, "a", "s", 1, 0.7), (0, "b", "t", 1, 0.2)])
    write_rows(
        tmp_path / "all" / "predictions.csv", header, [(i % 2, f"p{i}", f"s{i}", i % 2, i % 2) for i in range(20)]
    )
    assert "no interval: too few patients or one class" in text_of(report.write(tmp_path / "one").read_text("utf-8"))
    assert "too few errors to judge by, not certainty" in text_of(report.write(tmp_path / "all").read_text("utf-8"))


def test_equal_strategies_are_one_curve(tmp_path):
    fake_active(tmp_path, 0, 0.02, ("margin", "random", "entropy", "least_confidence", "bald"))
    curves = labelling.curves(read.read(tmp_path).labelling[0])
    assert [c.names for c in curves] == [("entropy", "least_confidence", "margin"), ("bald",), ("random",)]
    assert "are one curve here" in text_of(report.write(tmp_path).read_text("utf-8"))


def test_difference_finds_a_planted_gain_and_no_gain(tmp_path):
    for gain, verdict in ((0.05, "above random"), (0.0, "the interval includes 0: no difference shown")):
        fake_active(tmp_path, 1, gain)
        found = labelling.difference(read.read(tmp_path).labelling[0], "entropy")
        mean, low, high = found.overall["accuracy"]
        assert mean == pytest.approx(gain * 2 / 3, abs=0.015)
        assert words.versus_random(low, high) == verdict
        assert found.num_pairs == 25
    run = read.read(tmp_path).labelling[0]
    assert labelling.difference(run, "random") is None
    assert labelling.difference(run._replace(runs={"entropy": run.runs["entropy"]}), "entropy") is None


def test_runs_of_unequal_length_are_cut_to_what_all_reached():
    def columns(rounds):
        names = ("round", "labeled_slices", "labeled_patients", "accuracy", "auc")
        return {name: np.arange(rounds, dtype=float) for name in names}

    runs = {"entropy": {("0", "0"): columns(5), ("1", "0"): columns(3)}}
    (curve,) = labelling.curves(read.Labelling("flair", {}, {}, runs))
    assert curve.slices.tolist() == [0, 1, 2]
    assert labelling.stop(read.Labelling("flair", {}, {}, runs), "entropy") is None


def test_delta_stops_where_entropy_falls_below_it_but_not_on_an_empty_pool():
    def columns(entropy):
        slices = np.array([400.0, 450, 500])
        return {
            "round": np.arange(3.0), "labeled_slices": slices, "labeled_patients": slices,
            "accuracy": np.array([0.7, 0.8, 0.9]), "auc": np.ones(3), "max_entropy": np.array(entropy),
        }  # fmt: skip

    runs = {("0", "0"): columns([0.6, 0.2, 0.1]), ("1", "0"): columns([0.6, 0.5, -np.inf])}
    found = labelling.stop(read.Labelling("flair", {}, {}, {"entropy": runs}), "entropy")
    assert (found.num_stopped, found.num_runs, found.slices) == (1, 2, (450, 450, 450))
    assert found.regret[0] == pytest.approx(0.1)
    strict = {"config": {"entropy_threshold": 0.05}}
    assert labelling.stop(read.Labelling("flair", strict, {}, {"entropy": runs}), "entropy").num_stopped == 0


def test_figures_are_well_formed_themed_and_apart():
    x = np.linspace(0, 1, 5)
    line = figures.Line("entropy", x, x, x - 0.1, x + 0.1, 0)
    drawings = [
        figures.lines("a", "x", "y", [line], limits=(0, 1), reference=("all", 0.5), mark=("stop", 0.3)),
        figures.lines("b", "x", "y", [line], limits=(0, 1)),
        figures.roc("c", [figures.Roc("AUC .5", x, x, 1)]),
        figures.spread("d", "AUC", [("slices", 0.7, 0.6, 0.8, x, 2)]),
    ]
    ids = []
    for drawing in drawings:
        ET.fromstring(drawing.replace("aria-hidden", 'xmlns:xlink="http://www.w3.org/1999/xlink" aria-hidden', 1))
        found = re.findall(r'\bid="([^"]*)"', drawing)
        assert set(re.findall(r'(?:url\(#|href="#)([^")]*)', drawing)) <= set(found)
        ids += found
        assert "currentColor" in drawing
        assert "#0" not in drawing
        assert "<text" in drawing
    assert len(ids) == len(set(ids))
    assert drawings[0] == figures.lines(
        "a", "x", "y", [line], limits=(0, 1), reference=("all", 0.5), mark=("stop", 0.3)
    )


def test_numbers_and_verdicts():
    assert words.number("auc", 0.876) == "0.88"
    assert words.number("accuracy", 0.8764) == "87.6"
    assert words.number("auc", float("nan")) == words.interval("auc", float("nan"), 1) == words.MISSING
    assert [words.signed("accuracy", v) for v in (0.0123, -0.0123, 0.0001)] == ["+1.2", "−1.2", "0.0"]
    assert words.versus_guessing(0.6, 0.8) == "better than guessing"
    assert words.versus_guessing(0.4, 0.8).startswith("not told")
    assert words.versus_guessing(0.2, 0.4).startswith("worse")
    assert words.versus_random(-0.2, -0.1) == "below random"
    assert words.minutes(CONFIG["started"], CONFIG["finished"]) == "8 min"
    assert words.minutes(None, "x") == words.MISSING
    assert words.flat({"a": {"b": [1, 2]}, "c": None}) == [("a.b", "1, 2"), ("c", "None")]


def test_the_command_line(workdir, tmp_path):
    def run(folder):
        command = [sys.executable, "-m", "launch.report", f"--workdir={folder}"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    good = run(workdir)
    assert good.returncode == 0, good.stderr
    assert good.stdout.strip() == str(workdir / "report.html")
    bad = run(tmp_path)
    assert bad.returncode == 1
    assert bad.stderr.startswith("error: ")
    assert bad.stderr.count("\n") == 1


def test_published_numbers_are_the_papers():
    assert sum(c["encephalitis"] + c["glioma"] for c in paper.SLICES.values()) == 3752
    assert paper.TRANSFER["ce_t1wi"][2] == paper.Row("Inception-V3", "95.08", ".98", "95.08")
    assert set(paper.TRANSFER) == set(paper.SLICES) == set(paper.LABELLING) == set(paper.TITLES)
    for column, want in (("accuracy", "84.19"), ("f1", "84.13")):  # AlexNet of Tables 3-5 gives Table 6
        values = [float(getattr(paper.TRANSFER[s][0], column)) for s in paper.TITLES]
        assert abs(np.mean(values) - float(want)) < 0.04
