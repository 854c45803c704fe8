import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from fake_run import CONFIG, fake_active

from lesion import report
from lesion.report import canvas, figures, labelling, labelling_section, paper, read, words


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
    got = report.banners(read.Folder(config, {}, {}, [], [], [], {}))
    assert [b.split(":")[0] for b in got] == want


def test_equal_strategies_are_one_curve(tmp_path):
    fake_active(tmp_path, 0, 0.02, ("margin", "random", "entropy", "least_confidence", "bald"))
    curves = labelling.curves(read.read(tmp_path).labelling[0])
    assert [c.names for c in curves] == [("entropy", "least_confidence", "margin"), ("bald",), ("random",)]
    assert "are one curve here" in report.render(read.read(tmp_path))


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
    assert np.isnan(found.regret[1:]).all()
    strict = {"config": {"entropy_threshold": 0.05}}
    assert labelling.stop(read.Labelling("flair", strict, {}, {"entropy": runs}), "entropy").num_stopped == 0
    table = labelling_section._deltas(read.Labelling("flair", {}, {}, {"entropy": runs}), "entropy", "x")
    stopped = [int(row[1].text.split()[0]) for row in table.rows]
    assert stopped == sorted(stopped) and stopped[labelling_section.DELTAS.index(0.3)] == found.num_stopped


def test_figures_are_well_formed_themed_and_apart():
    x = np.linspace(0, 1, 5)
    line, mark = figures.Line("entropy", x, x, x - 0.1, x + 0.1, 0), figures.Mark(0.7, 0.6, 0.8, 7, True)
    drawings = [
        figures.lines("a", "", "x", "y", [line], limits=(0, 1), reference=("all", 0.5), mark=("stop", 0.3)),
        figures.lines("b", "", "x", "y", [line], limits=(0, 1)),
        figures.roc("c", "", [figures.Roc("AUC .5", x, x, 1)], (figures.Point("r", 0.2, 0.7, True),)),
        figures.dots("d", "", "AUC", [figures.Dots("s", (mark,), x), figures.Dots("p", (mark, mark))], hollow="h"),
    ]
    for drawing in drawings:
        canvas.stamp(drawing, "PHANTOM RESULTS")
    ids = []
    for drawing in map(canvas.svg, drawings):
        assert "PHANTOM RESULTS" in drawing
        ET.fromstring(drawing.replace("aria-hidden", 'xmlns:xlink="http://www.w3.org/1999/xlink" aria-hidden', 1))
        found = re.findall(r'\bid="([^"]*)"', drawing)
        assert set(re.findall(r'(?:url\(#|href="#)([^")]*)', drawing)) <= set(found)
        ids += found
        assert "currentColor" in drawing
        assert "<text" in drawing
        assert not re.search(r"#[0-9a-f]{6}\b", drawing), "a print colour is left"
    assert len(ids) == len(set(ids))


def test_numbers_and_verdicts():
    assert words.number("auc", 0.876) == "0.88"
    assert words.number("accuracy", 0.8764) == "87.6"
    assert words.number("auc", float("nan")) == words.interval("auc", float("nan"), 1) == words.MISSING
    assert [words.signed("accuracy", v) for v in (0.0123, -0.0123, 0.0001)] == ["+1.2", "−1.2", "0.0"]
    assert words.versus_guessing(0.6, 0.8) == "better than guessing"
    assert words.versus_guessing(0.4, 0.8).startswith("not told")
    assert words.versus_guessing(0.2, 0.4).startswith("worse")
    nan = float("nan")
    auc_of_shuffled = ((0.4, 0.6), (0.51, 0.6), (0.3, 0.49), (nan, nan))
    said = [words.unlearnable(*ends) for ends in auc_of_shuffled]
    assert [text.split(":")[0] for text in said] == [
        "not told from guessing",
        "more than guessing",
        "below guessing",
        "cannot be told",
    ]
    assert words.memorised(nan, nan) == "cannot be told" and words.memorised(0.3, 0.4).startswith("below guessing")
    assert words.versus_random(-0.2, -0.1) == "below random"
    assert words.versus_random(0.0, 0.0) == "no difference in any pair"
    assert words.change("auc", (0.01, -0.01, 0.03)) == "+0.010 (95 % interval −0.010 to +0.030)"
    assert words.change("accuracy", (0.01, float("nan"), float("nan"))) == "+1.0 points (no interval: too few runs)"
    assert words.minutes(CONFIG["started"], CONFIG["finished"]) == "8 min"
    assert words.stamp("2026-01-01T11:00:59+01:00") == "2026-01-01 10:00 UTC"
    assert [words.stamp(v) for v in (None, "soon")] == ["not recorded", "soon"]
    assert words.minutes(None, "x") == words.MISSING
    assert words.flat({"a": {"b": [1, 2]}, "c": None}) == [("a.b", "1, 2"), ("c", "None")]


def test_published_numbers_are_the_papers():
    assert sum(c["encephalitis"] + c["glioma"] for c in paper.SLICES.values()) == 3752
    assert paper.TRANSFER["ce_t1wi"][2] == paper.Row("Inception-V3", "95.08", ".98", "95.08")
    assert set(paper.TRANSFER) == set(paper.SLICES) == set(paper.LABELLING) == set(paper.TITLES)
    for column, want in (("accuracy", "84.19"), ("f1", "84.13")):  # AlexNet of Tables 3-5 gives Table 6
        values = [float(getattr(paper.TRANSFER[s][0], column)) for s in paper.TITLES]
        assert abs(np.mean(values) - float(want)) < 0.04
