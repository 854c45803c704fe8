"""The sections on calibration and comparison: their verdicts, and that their parts of the page hang together."""

import dataclasses
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from lesion import metrics
from lesion.report import canvas, figures, page, paper
from lesion.report.records import Folder, Predictions, Reader
from lesion.report.sections import calibration, comparison, decisions, transfer


def run(title, signal, sequence="ce_t1wi", seed=0, num_patients=60, split="a"):
    """Returns four slices a patient; all runs share patients, and what is hard about them."""
    label = np.arange(num_patients) % 3 == 0
    hard = np.random.default_rng(1).normal(size=num_patients)
    logit = signal * (2 * label - 1) + 0.7 * hard + 0.5 * np.random.default_rng([seed, 2]).normal(size=num_patients)
    rows = np.repeat(np.arange(num_patients), 4)
    probability = np.clip(1 / (1 + np.exp(-logit[rows])) + 0.01 * (np.arange(rows.size) % 4), 0, 1)
    patient, label = np.array([f"pseudonym{i:03d}" for i in rows]), label[rows].astype(int)
    columns = {"fold": (rows % 5).astype(str), "patient": patient, "label": label, "probability": probability}
    return Predictions(title=title, sequence=sequence, config={"split_hash": split}, **columns)


def reader(name, share, num_patients=60):
    truth = np.arange(num_patients) % 3 == 0
    wrong = np.random.default_rng(5).random(num_patients) >= share
    return Reader(name, np.array([f"pseudonym{i:03d}" for i in range(num_patients)]), (truth ^ wrong).astype(int))


def compared(runs, readers=()):
    return comparison.section(Folder(transfer=tuple(runs), readers=tuple(readers)))


def calibrated(runs):
    return calibration.section(Folder(transfer=tuple(runs)))


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def well_formed(html):
    ET.fromstring(f"<page xmlns:xlink='x'>{html}</page>")
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert "pseudonym" not in html and "#0" not in html.replace("&#0", "")
    return True


def test_a_planted_difference_is_shown_and_an_equal_model_is_not_called_different():
    runs = [run("plain", 0.6), run("better <b>", 2.5), run("twin", 0.6), run("other split", 0.62, split="b")]
    found = compared(runs)
    (group,) = found["groups"]
    better, twin, other = group["rows"]
    assert better.verdicts["auc"] == "better than plain"
    assert comparison.is_shown(better.found.patient["auc"], better.found.adjusted["auc"])
    assert twin.verdicts["auc"] == "no difference shown" and twin.found.adjusted == {"auc": 1, "accuracy": 1}
    assert other.verdicts["auc"] == "no difference shown" and not group["one_split"]
    assert group["num_tests"] == 6 and better.found.adjusted["auc"] >= 2 * better.found.p["auc"]
    (swapped,) = comparison.compare(runs[1], runs[:1])
    assert swapped.found.patient["auc"]["value"] == pytest.approx(-better.found.patient["auc"]["value"])
    assert swapped.verdicts["auc"] == "worse than better <b>"
    html = page.section_html("comparison", {"comparison": found})
    assert well_formed(html)
    text = text_of(html)
    assert "corrected for the 6 tests of this table (Holm)" in text and "do not stand on one split" in text
    assert "Better than plain: better &lt;b&gt;." in text and "no sensitivity" in text.lower()
    assert "Readers" not in text.replace("Models and readers", "")


def test_many_tests_make_a_difference_unsure():
    entry = {"value": 0.1, "low": 0.01, "high": 0.2}
    nan = float("nan")
    assert comparison.verdict(entry, 0.04, "x") == "better than x" and comparison.is_shown(entry, 0.04)
    assert comparison.verdict(entry, 0.06, "x").endswith("once all tests are counted")
    assert comparison.verdict(entry, nan, "x").endswith("has no answer") and not comparison.is_shown(entry, nan)
    assert comparison.verdict(entry | {"low": -0.01}, 0.01, "x") == "no difference shown"
    assert comparison.verdict(entry | {"value": nan}, 0.01, "x").startswith("cannot be told")


@pytest.mark.slow
def test_readers_are_points_beside_every_curve_and_called_simulated():
    runs = [run(f"model {i}", 1.5, seed=i) for i in range(7)]
    first, second = reader("simulated reader 2", 0.6), reader("simulated reader 10", 0.6)
    readers = [first._replace(patient=first.patient[:30], call=first.call[:30]), second]
    found = compared([*runs, run("alone", 1.0, "flair")], readers)
    flair, group = found["groups"]
    pairs = group["against_readers"]
    assert (flair["title"], flair["rows"], len(flair["against_readers"]), len(pairs)) == ("FLAIR", [], 2, 14)
    assert len(group["rocs"]) == 2 and all("model 0" in canvas.svg(drawing) for drawing in group["rocs"])
    assert all("R2" in canvas.svg(drawing) for drawing in group["rocs"])
    assert (pairs[0]["num_patients"], pairs[0]["num_left_out"]) == (30, 30)
    low, high = group["readers"].rows[1]["Accuracy, %"].numbers[1:]
    assert low < 0.6 < high
    assert set(group["reader_verdicts"]) == {"simulated reader 2", "simulated reader 10"}
    html = page.section_html("comparison", {"comparison": found})
    assert well_formed(html) and "These readers are simulated" in html and "30 left out" in text_of(html)
    human = compared(runs[:1], [reader("reader 1", 0.8)])
    assert "simulated" not in page.section_html("comparison", {"comparison": human})


def test_a_reader_of_other_patients_is_not_compared():
    stranger = Reader("reader 1", np.array(["nobody"]), np.array([1]))
    found = compared([run("plain", 1.0)], [stranger])
    assert found["groups"][0]["readers"] is None and found["groups"][0]["against_readers"] == []
    assert well_formed(page.section_html("comparison", {"comparison": found}))
    assert compared([run("plain", 1.0)]) is None


def test_what_the_papers_readers_imply_gives_back_what_is_printed():
    for row, counts in ((row, c) for row in paper.readers_implied() for c in enumerate(((118, 57), (108, 56)))):
        index, (encephalitis, glioma) = counts
        sensitivity, specificity = (x / 100 for x in row["implied"][index])
        hits, false = sensitivity * glioma, (1 - specificity) * encephalitis
        accuracy = (hits + encephalitis - false) / (glioma + encephalitis)
        f1 = 2 * hits / (hits + false + glioma)
        assert (100 * accuracy, 100 * f1) == pytest.approx((float(row["accuracy"]), float(row["f1"])))
        assert (sensitivity + specificity) / 2 < float(row["auc"])  # as the page says
    assert len(paper.readers_implied()) == 2


def test_calibration_calls_overconfident_only_what_is():
    rng = np.random.default_rng(0)
    probability = rng.beta(0.7, 0.9, 150)
    label = (rng.random(150) < probability).astype(int)
    patient = np.array([f"pseudonym{i}" for i in range(150)])
    columns = {"fold": patient, "patient": patient, "label": label, "probability": probability}
    honest = Predictions(sequence="flair", title="honest", **columns)
    sure = dataclasses.replace(honest, probability=np.where(probability > 0.5, 0.99, 0.01), title="sure")
    shy = dataclasses.replace(honest, probability=0.4 + 0.2 * label, title="shy")
    found = calibrated([honest, sure, shy])
    (group,) = found["groups"]
    assert group["verdicts"] == {
        "No miscalibration shown": ["honest"],
        "Overconfident": ["sure"],
        "Right more often than predicted": ["shy"],
    }
    ece = metrics.calibration_error(label, sure.probability)
    assert group["table"].rows[1]["ECE, patients"] == f"{ece:.3f}"
    noise = dataclasses.replace(honest, probability=rng.permutation(sure.probability))
    assert "worse than always predicting" in next(iter(calibrated([noise])["groups"][0]["verdicts"]))
    html = page.section_html("calibration", {"calibration": found})
    assert well_formed(html) and f"{ece:.3f}" in html and "The other 2 models" in html
    assert "Overconfident: sure." in text_of(html)
    assert calibrated([]) is None


def test_a_model_of_other_patients_is_named_and_the_rest_compared():
    plain, other = run("plain", 1.0), run("elsewhere", 1.0)
    elsewhere = dataclasses.replace(other, patient=np.char.add(other.patient, "x"))
    found = compared([plain, elsewhere, run("like it", 1.0, seed=1)])
    assert [row.title for row in found["groups"][0]["rows"]] == ["like it"]
    assert "scored by plain as well: elsewhere." in text_of(page.section_html("comparison", {"comparison": found}))


def test_one_class_can_be_shown():
    first = run("one class", 1.0)
    first = dataclasses.replace(first, label=np.zeros_like(first.label))
    found = compared([first, dataclasses.replace(first, title="again")])
    assert found["groups"][0]["rows"][0].verdicts["auc"].startswith("cannot be told")
    assert found["groups"][0]["rocs"] == []
    assert well_formed(page.section_html("comparison", {"comparison": found}))
    assert well_formed(page.section_html("calibration", {"calibration": calibrated([first])}))


def test_a_threshold_and_its_predictive_values_are_told_at_the_prevalence_that_is_asked_for():
    runs = [run("sharp", 2.5), run("dull", 0.6, seed=1)]
    found = decisions.section(Folder(transfer=tuple(runs), prevalence=0.1))
    (group,) = found["groups"]
    headings = {heading for heading, _ in group["table"].headings}
    assert headings == {"", "threshold for a specificity of 90 %", "threshold for a sensitivity of 90 %"}
    point = metrics.operating_point(*runs[0].columns("patient")[:2], decisions.fold_of_patients(runs[0]), "specificity")
    row = group["table"].rows[0]
    assert row["threshold for a specificity of 90 %", "Sensitivity, %"].numbers[0] == point["sensitivity"]["value"]
    own = decisions.section(Folder(transfer=tuple(runs)))["groups"][0]["table"].rows[0]
    key = "threshold for a specificity of 90 %", "PPV, %"
    assert float(row[key]) < float(own[key])  # of rarer patients more are called in vain
    assert {"all glioma", "sharp", "dull"} <= set(group["figure"].data["line"])
    html = page.section_html("decisions", {"decisions": found})
    assert well_formed(html) and "as given by" in html and "at a prevalence of 10.0 % glioma" in html
    one_class = dataclasses.replace(runs[0], label=np.zeros_like(runs[0].label))
    assert decisions.section(Folder(transfer=(one_class,))) is None


def test_means_over_folds_and_deals_stand_below_the_pooled_scores():
    first = run("net", 1.0)
    other = dataclasses.replace(first, fold=((first.fold.astype(int) + first.label) % 5).astype(str))
    found = transfer.section(Folder(transfer=(dataclasses.replace(first, deals=(other, other)),)))
    pooled, folds, deals, _ = found["sequences"][0]["ours"].rows
    aucs = np.array([scores["slice"]["auc"]["value"] for scores in first.fold_scores.values()])
    assert folds["slices", "AUC"] == f"{aucs.mean():.2f} ± {aucs.std(ddof=1):.2f}" and pooled[""] == "net"
    more = [s["slice"]["auc"]["value"] for deal in (other, other) for s in deal.fold_scores.values()]
    every = np.array([*aucs, *more])
    want = every.mean(), *metrics.corrected_interval(every, 5)
    assert deals["slices", "AUC"].numbers == pytest.approx(want) and "3 deals" in deals[""]
    html = page.section_html("transfer", {"transfer": found})
    assert "Nadeau and Bengio (2003)" in html and "mean ± SD over folds" in html


def test_figures_name_what_they_show():
    rows = [figures.Dots(label, [figures.Mark(*[value] * 3)]) for label, value in (("a", 0.0), ("b", float("nan")))]
    forest = figures.dots("f", "", "difference", rows, sides=("x better", "better"))
    rate = (0.8, 0.7, 0.9)
    points = [figures.Point("reader", rate, (0.7 + 0.01 * i, 0.6, 0.8), short=f"R{i}") for i in range(3)]
    x = np.linspace(0, 1, 4)
    roc = figures.roc("r", "", [figures.Roc("m", x, x, i) for i in range(comparison.MOST_CURVES)], points)
    for drawing, texts in ((forest, ("x better", ">a<")), (roc, ("R0", "R2", "reader"))):
        svg = canvas.svg(drawing)
        assert well_formed(svg) and "var(--" in svg and svg == canvas.svg(drawing)
        assert all(text in svg for text in texts)
    assert ">b<" not in canvas.svg(forest)
