"""The sections on calibration and comparison: what they say, and that their parts of the page hang together."""

import re
import xml.etree.ElementTree as ET
from typing import NamedTuple

import numpy as np
import pytest

from lesion import metrics
from lesion.report import calibration, canvas, comparison, figures, page, paper, plots, read, scored


class Run(NamedTuple):
    sequence: str
    config: dict
    fold: np.ndarray
    patient: np.ndarray
    label: np.ndarray
    probability: np.ndarray
    model: str


def run(model, signal, sequence="ce_t1wi", seed=0, num_patients=60, split="a"):
    """Four slices a patient; all runs share patients, and what is hard about them."""
    label = np.arange(num_patients) % 3 == 0
    hard = np.random.default_rng(1).normal(size=num_patients)
    logit = signal * (2 * label - 1) + 0.7 * hard + 0.5 * np.random.default_rng([seed, 2]).normal(size=num_patients)
    rows = np.repeat(np.arange(num_patients), 4)
    probability = np.clip(1 / (1 + np.exp(-logit[rows])) + 0.01 * (np.arange(rows.size) % 4), 0, 1)
    patient = np.array([f"pseudonym{i:03d}" for i in rows])
    return Run(sequence, {"split_hash": split}, rows % 5, patient, label[rows].astype(int), probability, model)


def reader(name, share, num_patients=60):
    truth = np.arange(num_patients) % 3 == 0
    wrong = np.random.default_rng(5).random(num_patients) >= share
    return read.Reader(name, np.array([f"pseudonym{i:03d}" for i in range(num_patients)]), (truth ^ wrong).astype(int))


def render(name, **sections):
    return page.environment().get_template(name).render(**sections)


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def well_formed(page):
    ET.fromstring(f"<page xmlns:xlink='x'>{page}</page>")
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert "pseudonym" not in page and "#0" not in page.replace("&#0", "")
    return True


def test_a_planted_difference_is_shown_and_an_equal_model_is_not_called_different():
    runs = [run("plain", 0.6), run("better <b>", 2.5), run("twin", 0.6), run("other split", 0.62, split="b")]
    found = comparison.section(runs, num_resamples=300)
    (group,) = found["groups"]
    better, twin, other = group["rows"]
    assert better["says"]["auc"] == "better than plain" and better["shown"]["auc"]
    assert twin["says"]["auc"] == "the same in every draw" and twin["adjusted"] == {"auc": 1, "accuracy": 1}
    assert other["says"]["auc"] == "no difference shown" and not group["one_split"]
    assert group["num_tests"] == 6 and better["adjusted"]["auc"] >= 2 * better["p"]["auc"]
    swapped = comparison.section(runs[:2], reference="better <b>", num_resamples=300)["groups"][0]["rows"][0]
    assert swapped["auc"]["value"] == pytest.approx(-better["auc"]["value"])
    assert swapped["says"]["auc"] == "worse than better <b>"
    page = render("comparison.html.j2", comparison=found)
    assert well_formed(page)
    text = text_of(page)
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
    assert [comparison.p_value(p) for p in (0.0004, 0.5, nan)] == ["< 0.001", "0.500", "–"]


def test_readers_are_points_beside_every_curve_and_are_said_to_be_simulated():
    runs = [run(f"model {i}", 1.5, seed=i) for i in range(7)]
    some, all_ = reader("simulated reader 2", 0.6), reader("simulated reader 10", 0.6)
    readers = [some._replace(patient=some.patient[:30], call=some.call[:30]), all_]
    found = comparison.section([*runs, run("alone", 1.0, "flair")], readers, num_resamples=200)
    flair, group = found["groups"]
    assert (flair["title"], flair["rows"], len(flair["duels"]), len(group["duels"])) == ("FLAIR", [], 2, 14)
    assert len(group["rocs"]) == 2 and all("model 0" in canvas.svg(drawing) for drawing in group["rocs"])
    assert all("R2" in canvas.svg(drawing) for drawing in group["rocs"])
    first = group["duels"][0]["result"]
    assert (first["num_patients"], first["num_left_out"]) == (30, 30)
    scores = group["readers"][1]["scores"]
    assert scores["accuracy"]["low"] < 0.6 < scores["accuracy"]["high"]
    assert set(group["duel_verdicts"]) == {"simulated reader 2", "simulated reader 10"}
    page = render("comparison.html.j2", comparison=found)
    assert well_formed(page) and "These readers are simulated" in page and "30 left out" in text_of(page)
    real = comparison.section(runs[:1], [reader("reader 1", 0.8)], num_resamples=50)
    assert "simulated" not in render("comparison.html.j2", comparison=real)


def test_a_reader_of_other_patients_is_not_compared():
    stranger = read.Reader("reader 1", np.array(["nobody"]), np.array([1]))
    found = comparison.section([run("plain", 1.0)], [stranger], num_resamples=20)
    assert found["groups"][0]["readers"] == found["groups"][0]["duels"] == []
    assert well_formed(render("comparison.html.j2", comparison=found))
    assert not render("comparison.html.j2", comparison=comparison.section([run("plain", 1.0)])).strip()


def test_what_the_papers_readers_imply_gives_back_what_is_printed():
    for row, counts in ((row, c) for row in paper.readers_implied() for c in enumerate(((118, 57), (108, 56)))):
        place, (encephalitis, glioma) = counts
        sensitivity, specificity = (x / 100 for x in row["implied"][place])
        hits, false = sensitivity * glioma, (1 - specificity) * encephalitis
        accuracy = (hits + encephalitis - false) / (glioma + encephalitis)
        f1 = 2 * hits / (hits + false + glioma)
        assert (100 * accuracy, 100 * f1) == pytest.approx((float(row["accuracy"]), float(row["f1"])))
        assert (sensitivity + specificity) / 2 < float(row["auc"])  # as the page says
    assert len(paper.readers_implied()) == 2


def test_calibration_says_too_sure_only_of_what_is():
    rng = np.random.default_rng(0)
    probability = rng.beta(0.7, 0.9, 150)
    label = (rng.random(150) < probability).astype(int)
    patient = np.array([f"pseudonym{i}" for i in range(150)])
    honest = Run("flair", {}, patient, patient, label, probability, "honest")
    sure = honest._replace(probability=np.where(probability > 0.5, 0.99, 0.01), model="sure")
    shy = honest._replace(probability=0.4 + 0.2 * label, model="shy")
    found = calibration.section([honest, sure, shy], num_resamples=300)
    (group,) = found["groups"]
    assert [row["says"] for row in group["rows"]] == [
        "no miscalibration shown",
        "too sure of itself",
        "right more often than it says",
    ]
    ece = group["rows"][1]["scores"]["patient"]["ece"]["value"]
    assert ece == pytest.approx(metrics.calibration_error(label, sure.probability))
    noise = honest._replace(probability=rng.permutation(sure.probability))
    assert "worse than always saying" in calibration.section([noise], num_resamples=100)["groups"][0]["rows"][0]["says"]
    page = render("calibration.html.j2", calibration=found)
    assert well_formed(page) and f"{ece:.3f}" in page and "The other 2 models" in page
    assert "Too sure of itself: sure." in text_of(page).replace(" :", ":")
    assert not render("calibration.html.j2", calibration=calibration.section([])).strip()


def test_a_model_of_other_patients_is_named_and_the_rest_compared():
    plain, other = run("plain", 1.0), run("elsewhere", 1.0)
    runs = [plain, other._replace(patient=np.char.add(other.patient, "x")), run("like it", 1.0, seed=1)]
    found = comparison.section(runs, num_resamples=20)
    assert [row["model"] for row in found["groups"][0]["rows"]] == ["like it"]
    assert "scored by plain as well: elsewhere." in text_of(render("comparison.html.j2", comparison=found))


def test_one_class_and_the_reports_own_records_pass():
    one = run("one class", 1.0)
    one = one._replace(label=np.zeros_like(one.label))
    found = comparison.section([one, one._replace(model="again")], num_resamples=20)
    assert found["groups"][0]["rows"][0]["says"]["auc"].startswith("cannot be told")
    assert found["groups"][0]["rocs"] == []
    assert well_formed(render("comparison.html.j2", comparison=found))
    assert well_formed(render("calibration.html.j2", calibration=calibration.section([one], num_resamples=20)))
    assert set(Run._fields) <= set(read.Run._fields)


def test_figures_hold_what_is_told():
    effects = [plots.Effect(label, *[value] * 3, False) for label, value in (("a", 0.0), ("b", float("nan")))]
    forest = plots.forest("f", "", "difference", effects, ("x better", "better"))
    points = [plots.Point("reader", f"R{i}", (0.8, 0.7, 0.9), (0.7 + 0.01 * i, 0.6, 0.8)) for i in range(3)]
    x = np.linspace(0, 1, 4)
    roc = plots.roc("r", "", [figures.Roc("m", x, x, i) for i in range(plots.MOST_CURVES)], points)
    for drawing, words in ((forest, ("x better", ">a<", ">b<")), (roc, ("R0", "R2", "reader"))):
        svg = canvas.svg(drawing)
        assert well_formed(svg) and "var(--" in svg and svg == canvas.svg(drawing)
        assert all(word in svg for word in words)
    assert scored.identifier("roc", "T1 (x)", 0) == "roc-T1--x--0"
