import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from fake_run import CONFIG, fake_active
from test_page import rendered

from lesion.metrics import active_runs
from lesion.report import canvas, figures, paper, read, words
from lesion.report.records import Folder
from lesion.report.sections import active, leakage, summary


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
    got = summary.banners(Folder(config=config))
    assert [b.split(":")[0] for b in got] == want


@pytest.mark.slow
def test_equal_strategies_are_one_curve(tmp_path):
    fake_active(tmp_path, 0, 0.02, ("margin", "random", "entropy", "least_confidence", "bald"))
    curves = active_runs.mean_curves(read.read(tmp_path).active[0].rounds)
    assert [c.names for c in curves] == [["entropy", "least_confidence", "margin"], ["bald"], ["random"]]
    assert "are one curve here" in rendered(tmp_path)


def test_difference_finds_a_planted_gain_and_no_gain(tmp_path):
    for gain, verdict in ((0.05, "above random"), (0.0, "the interval includes 0: no difference shown")):
        fake_active(tmp_path, 1, gain)
        found = active_runs.difference_to_random(read.read(tmp_path).active[0].rounds, "entropy")
        mean, low, high = found.overall["accuracy"]
        assert mean == pytest.approx(gain * 2 / 3, abs=0.015)
        assert words.versus_random(low, high) == verdict
        assert found.num_pairs == 25
    rounds = read.read(tmp_path).active[0].rounds
    assert active_runs.difference_to_random(rounds, "random") is None
    assert active_runs.difference_to_random(active_runs.rows_of(rounds, "entropy"), "entropy") is None


def test_every_delta_is_looked_up(tmp_path):
    fake_active(tmp_path, 1, 0.03)
    run = read.read(tmp_path).active[0]
    table = active.deltas_table(run, "entropy", "x")
    stopped = [int(row["Runs stopped"].split()[0]) for row in table.rows]
    assert stopped == sorted(stopped) and stopped[0] == 0 < stopped[-1]
    (own,) = [stop for stop in active.stops(run, "entropy", active.criteria(run)) if stop.rule == "entropy"]
    assert stopped[active.DELTAS.index(0.3)] == own.num_stopped
    assert active.stop_at_delta(run, "entropy", 0) is None


@pytest.mark.slow
def test_the_strategies_stand_side_by_side_at_equal_cost_and_each_has_one_title(tmp_path):
    fake_active(tmp_path, 1, 0.06, ("aift", "random", "entropy"))
    shown = active.section(read.read(tmp_path))["sequences"][0]
    table = shown["standings"]
    assert {row["Query strategy"] for row in table.rows} == {"aift, by patient", "entropy"}
    assert all(row["100 labels", "AUC"].numbers[0] > 0 for row in table.rows)
    assert [note.split(" ")[0] for note in table.notes] == ["100", "The", "No"]
    assert "no winner is shown" in table.notes[0] and "40 and 400 labels" in table.notes[2]
    titles = {d["strategy"] for d in shown["differences"]} | {title for title, _ in shown["budgets"]}
    assert titles == {"aift, by patient", "entropy"} == {r["Query strategy"] for r in shown["stops"].rows} - {"random"}
    assert "lots decided among equal scores in 25 of 225 rounds" in shown["chance"][0]
    assert all("to the last round these changed by" in drawn.caption for drawn in shown["figures"])


def test_figures_are_well_formed_themed_and_apart():
    x = np.linspace(0, 1, 5)
    line, mark = figures.Line("entropy", x, x, x - 0.1, x + 0.1, 0), figures.Mark(0.7, 0.6, 0.8, 7, True)
    rate = 0.7, 0.6, np.nan
    drawings = [
        figures.lines("a", "", "x", "y", [line], limits=(0, 1), reference=("all", 0.5), mark=("stop", 0.3)),
        figures.lines("b", "", "x", "y", [line], limits=(0, 1)),
        figures.roc("c", "", [figures.Roc("AUC .5", x, x, 1)], [figures.Point("r", rate, rate, published=True)]),
        figures.dots("d", "", "AUC", [figures.Dots("s", (mark,), x), figures.Dots("p", (mark, mark))], hollow="h"),
        figures.dots("e", "", "AUC", [figures.Dots("s", (mark, mark._replace(value=np.nan)))], sides=("a", "b")),
    ]
    assert figures.dots("f", "", "AUC", [figures.Dots("s", (mark._replace(value=np.nan),))]) is None
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
    nan = float("nan")
    assert words.number("auc", 0.876) == "0.88"
    assert words.number("accuracy", 0.8764) == "87.6"
    assert words.number("auc", nan) == words.interval("auc", nan, 1) == words.MISSING
    assert [words.signed("accuracy", v) for v in (0.0123, -0.0123, 0.0001)] == ["+1.2", "−1.2", "0.0"]
    assert words.versus_chance(0.6, 0.8) == "better than chance"
    assert words.versus_chance(0.4, 0.8).startswith("not told")
    assert words.versus_chance(0.2, 0.4).startswith("worse")
    texts = [leakage.on_shuffled_labels(*ends) for ends in ((0.4, 0.6), (0.51, 0.6), (0.3, 0.4), (nan, nan))]
    assert [text[:12] for text in texts] == ["not told fro", "there is not", "below chance", "cannot be to"]
    level = {"true": 0.8, "mean": 0.49, "error": 0.006, "low": 0.3, "high": 0.7, "p": 0.005}
    changed = [level, level | {"p": 0.2}, level | {"mean": 0.55}]
    verdicts = [leakage.on_permutations(found) for found in changed]
    assert [verdict.split(" than")[0] for verdict in verdicts] == [
        "the true labels are told better",
        "the true labels are not told better",
        "shuffled labels are told better",
    ]
    assert words.versus_random(-0.2, -0.1) == "below random"
    assert words.versus_random(0.0, 0.0) == "no difference in any pair"
    assert words.change("auc", 0.01, -0.01, 0.03) == "+0.010 (95 % interval −0.010 to +0.030)"
    assert words.change("accuracy", 0.01, nan, nan) == "+1.0 points (no interval: too few runs)"
    assert [words.p_value(p) for p in (0.0004, 0.5, nan)] == ["< 0.001", "0.500", "–"]
    assert words.duration(CONFIG["started"], CONFIG["finished"]) == "8 min"
    assert words.timestamp("2026-01-01T11:00:59+01:00") == "2026-01-01 10:00 UTC"
    assert [words.timestamp(v) for v in (None, "soon")] == ["not recorded", "soon"]
    assert words.duration(None, "x") == words.MISSING
    assert words.flatten({"a": {"b": [1, 2]}, "c": None}) == [("a.b", "1, 2"), ("c", "None")]
    assert words.identifier("roc", "T1 (x)", 0) == "roc-T1--x-0"


def test_published_numbers_are_the_papers():
    assert sum(c["encephalitis"] + c["glioma"] for c in paper.SLICES.values()) == 3752
    assert paper.TRANSFER["ce_t1wi"][2] == paper.Row("Inception-V3", "95.08", ".98", "95.08")
    assert set(paper.TRANSFER) == set(paper.SLICES) == set(paper.ACTIVE_LEARNING) == set(paper.TITLES)
    for column, want in (("accuracy", "84.19"), ("f1", "84.13")):  # AlexNet of Tables 3-5 gives Table 6
        values = [float(getattr(paper.TRANSFER[s][0], column)) for s in paper.TITLES]
        assert abs(np.mean(values) - float(want)) < 0.04
