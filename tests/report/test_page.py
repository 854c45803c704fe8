import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from fake_run import CONFIG, fake_active, fake_doctor, fake_run, fake_transfer, write_json, write_rows

from lesion import errors, report
from lesion.report import page as report_page
from lesion.report import read


class Page(HTMLParser):
    """Ids, references and tags of a page."""

    void = frozenset(("meta", "img", "br", "wbr", "hr", "input", "link", "use", "path", "image", "rect"))

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
    return rendered(workdir)


def rendered(workdir):
    """Returns what `report.write` puts into report.html, without the figures for a paper."""
    folder = read.read(workdir)
    return report_page.html(folder, report_page.contents(folder))


def text_of(page):
    return re.sub(r"\s+", " ", " ".join(Page(page).text))


@pytest.mark.slow
def test_the_page_opens_offline_and_hangs_together(page):
    parsed = Page(page)
    assert not parsed.stack
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert all(link.startswith(("#", "data:text/csv;charset=utf-8;base64,")) for link in parsed.links)
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert len(parsed.sources) == 2
    assert not {"script", "link", "iframe"} & set(parsed.tags)
    outside = set(re.findall(r"https?://[^\"' <)]*", page))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in page


def test_the_page_says_what_was_run_and_how_it_came_out(page):
    text = text_of(page)
    for phrase in (
        "PHANTOM RESULTS: made by simulation, they say nothing about patients",
        "48 simulated patients (32 with encephalitis, 16 with glioma)",
        "EfficientNet-Lite0 with ImageNet weights, frozen",
        "Table 3 of the paper", "Table 4 of the paper", "Table 5 of the paper",
        "as printed; the mean of 90.09 in the paper's Table 6 needs 86.40 here",
        "ab12" * 16, "5f1d" * 16, "77aa" * 16,
        "3168 files read", "2 (other modality: CT)",
        "Table 2 of the paper", "62,378,344", "24.734", "not reproduced",
        "python -m launch.reproduce --config=configs/demo.py",
        "Nadeau and Bengio 2003",
    ):  # fmt: skip
        assert phrase in text, phrase
    assert "RANDOM WEIGHTS" not in text
    assert "Not shown here" not in text


def test_label_efficiency_and_where_rules_stop_are_shown(page):
    text = text_of(page)
    assert "120 slices, 20 patients; 25 of 25 runs" in text and "not by half: 2 of 25 runs" in text
    assert "75.0 (70.0 to 80.0) 0.81 " in text
    assert "entropy successive models agree 5 of 25 128 (120 to 130) +5.6 points" in text


@pytest.mark.parametrize("over", [True, False])
def test_a_doctors_rounds_are_shown_and_no_score_is_made_of_them(tmp_path, over):
    fake_doctor(tmp_path, over=over)
    page = rendered(tmp_path)
    text = text_of(page)
    assert ("100 slices of 15 simulated patients labelled so far" in text) != over
    assert ". How often the model is right is not known" in text
    assert "After each round Round Labelled slices" in text and "4 100 15 0.30 0.10" in text
    assert (
        "It stopped after 4 rounds: every remaining entropy below δ. 1 slice could not be told, 2 sl" in text
    ) == over
    assert ("could not be told, 2 slices could not be used: left out." in text) == over
    assert ("It goes on." in text) != over
    assert "δ = 0.3" in page and "Accuracy" not in text
    assert len(set(Page(page).ids)) == len(Page(page).ids)


def test_no_patient_is_listed(page):
    assert not re.search(r"\bP0{2}[0-9a-f]{2}\b", page)
    assert "Sffff0" not in page


@pytest.mark.slow
def test_the_same_folder_gives_the_same_bytes(workdir, page):
    assert rendered(workdir) == page


def test_scores_on_the_page_are_those_of_metrics(workdir, page):
    run = next(r for r in read.read(workdir).transfer if r.sequence == "ce_t1wi")
    assert (run.label >= 0).all()
    auc = run.scores["patient"]["auc"]
    assert f"{auc['value']:.2f} {auc['low']:.2f} to {auc['high']:.2f}" in text_of(page)


def test_a_broken_experiment_is_named_and_the_rest_appears(tmp_path):
    fake_run(tmp_path)
    (tmp_path / "transfer/efficientnet_lite0/flair/predictions.csv").unlink()
    broken = tmp_path / "transfer/efficientnet_lite0/t2wi/predictions.csv"
    broken.write_text("fold,patient,label,probability\n0,a,1,nan\n")
    (tmp_path / "active" / "ce_t1wi" / "curves.csv").write_text("fold,seed\n0,0\n")
    (tmp_path / "cohort" / "cohort.png").write_bytes(b"not a picture")
    (tmp_path / "cohort" / "cohort.json").write_text("{broken")
    text = text_of(rendered(tmp_path))
    for name, reason in (
        ("transfer/efficientnet_lite0/flair", "did not finish"),
        ("transfer/efficientnet_lite0/t2wi", "probabilities must be finite"),
        ("active/ce_t1wi", "curves.csv lacks the column strategy"),
        ("cohort/cohort.png", "not a PNG file"),
        ("cohort/cohort.json", "not a JSON object"),
    ):
        assert re.search(rf"{name} : .{{0,40}}{reason}", text), name
    assert "Table 4 of the paper" in text


def test_an_experiment_of_the_plan_that_never_ran_is_missing(tmp_path):
    fake_transfer(tmp_path / "transfer" / "alexnet" / "flair", 0, 1.0)
    names = ["transfer/alexnet/flair", "transfer/alexnet/t2wi", "active/ce_t1wi"]
    write_json(tmp_path / "plan.json", {"experiments": names, "left_out": {}})
    missing = dict(read.read(tmp_path).missing)
    assert missing["transfer/alexnet/t2wi"] == missing["active/ce_t1wi"] == "not run"


def test_a_run_that_no_rule_would_have_stopped_is_reported_and_a_broken_one_says_why(tmp_path):
    off = {"entropy_threshold": 0.0, "stabilizing_predictions": 0.0}
    fake_active(tmp_path, 3, 0.03, config=CONFIG | {"config": CONFIG["config"] | off})
    text = text_of(rendered(tmp_path))
    assert "When to stop." not in text and "Active-learning curves" in text
    (tmp_path / "curves.csv").write_text("fold,seed\n0,0\n")
    with pytest.raises(errors.UserError, match=r"cannot be shown: .*curves\.csv lacks the column strategy"):
        read.read(tmp_path)


@pytest.mark.slow
def test_single_runs_are_reported_too(tmp_path):
    config = CONFIG | {"config": CONFIG["config"] | {"sequence": "t2wi"}}
    fake_transfer(tmp_path / "a", 0, 1.0, config)
    fake_active(tmp_path / "b", 0, 0.0, config=config)
    fake_transfer(tmp_path / "c", 0, 1.0, CONFIG | {"part": "early", "config": CONFIG["config"] | {"sequence": ""}})
    first, second, third = (text_of(rendered(tmp_path / name)) for name in "abc")
    assert "Table 5 of the paper" in first
    assert "Fig. 11" in second
    assert "Calibration, early" in third
    for text in (first, second, third):
        assert "PHANTOM RESULTS" in text
        assert "Not shown here" not in text


def test_a_single_run_has_its_deals_and_its_readers_beside_it(tmp_path):
    for name in (".", "deals/1", "deals/2"):
        fake_transfer(tmp_path / name, len(name), 1.0, num_patients=15)
    write_rows(tmp_path / "readers.csv", ("patient", "reader", "label"), [(f"P{p:04x}", "A", p % 2) for p in range(15)])
    (run,), (reader,) = read.read(tmp_path).transfer, read.read(tmp_path).readers
    assert len(run.deals) == 2 and run.deals[0].probability.shape != () and reader.name == "A"
    text = text_of(rendered(tmp_path))
    assert "mean over the folds of 3 deals" in text and "model minus reader" in text


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
    text = text_of(rendered(tmp_path))
    assert "LEAKY FOLDS" in text
    assert "had not seen that patient" not in text


@pytest.mark.slow
def test_text_from_outside_cannot_become_markup(tmp_path):
    inner = {"backbone": "<img src=x>", "sequence": '"><script>$x'}
    evil = CONFIG | {"command": "<script>alert(1)</script>", "config": inner}
    fake_transfer(tmp_path / "a", 0, 1.0, evil)
    fake_active(tmp_path / "b", 0, 0.0, ("<script>$b", "random"), config=evil)
    for name in "ab":
        page = rendered(tmp_path / name)
        assert "<script>" not in page
        assert "<img src=x" not in page


def test_one_class_one_fold_and_perfect_scores_are_said_not_hidden(tmp_path):
    header = ("fold", "patient", "slice", "label", "probability")
    write_rows(tmp_path / "one" / "predictions.csv", header, [(0, "a", "s", 1, 0.7), (0, "b", "t", 1, 0.2)])
    write_rows(
        tmp_path / "all" / "predictions.csv", header, [(i % 2, f"p{i}", f"s{i}", i % 2, i % 2) for i in range(20)]
    )
    assert "no interval: too few patients or one class" in text_of(rendered(tmp_path / "one"))
    text = text_of(rendered(tmp_path / "all"))
    assert "1.00 0.80 to 1.00 better than chance" in text  # ten of each class: Newcombe's score interval
    assert "1.00 to 1.00" not in text


@pytest.mark.slow
def test_the_command_line(tmp_path):
    workdir = tmp_path / "run"
    header = ("fold", "patient", "slice", "label", "probability")
    write_rows(workdir / "predictions.csv", header, [(0, "a", "s", 1, 0.7), (0, "b", "t", 1, 0.2)])

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
