"""The report of the whole paper: every experiment of the folder, failed ones too, and what it hands on."""

import base64
import csv
import io
import json
import re
import shutil
import urllib.parse

import numpy as np
import pytest
from fake_run import CONFIG, fake_doctor, fake_failure, fake_paper, fake_png, fake_transfer, write_json
from test_page import Page, rendered, text_of

from lesion import errors, metrics, report
from lesion.report import canvas, figures, manuscript, page, read, tables
from lesion.report.sections import ablations, comparison, summary

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return read.read(fake_paper(tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def contents(folder):
    return page.contents(folder)


@pytest.fixture(scope="module")
def html(folder, contents):
    return page.html(folder, contents)


def test_every_experiment_stands_in_its_section(html):
    parsed, text = Page(html), text_of(html)
    assert not parsed.stack and len(parsed.ids) == len(set(parsed.ids))
    order = "summary cohort transfer roc baselines fusion comparison calibration decisions leakage".split()
    order += "labelling ablations looks backbones reading run".split()
    assert [i for i in parsed.ids if i in order] == order
    assert parsed.links[: len(order)] == [f"#{name}" for name in order]
    for phrase in (
        "Networks: AlexNet, ResNet-50, Inception-V3, fine-tuned",
        "3 baselines; the three sequences fused in 3 ways; leaky folds on CE-T1WI; 2 sweeps of settings (5 runs)",
        "Table 6, this cohort: means over the three sequences",
        "Table 7, this cohort: CE-T1WI; bold: transfer",
        "widths of its layers; its dropout", "as guessed when it was run",
        "Fused minus best single sequence, the same patients",
        "corrected for the 6 tests of this table (Holm), the intervals are not",
        "CE-T1WI in 2 folds, FLAIR in 1 fold; AUC within them, mean over folds: FLAIR 0.70, CE-T1WI 0.80.",
        "Attention, mean over patients: FLAIR 40 % of it (50 % of the slices), T2WI 60 % of it (50 % of the slices).",
        "they got the share of glioma among those trained on", "got the next best that they have",
        "a missing sequence is allowed. All: frozen features, 20 epochs, 1 copy.",
        "on this cohort a leaky split changes the accuracy of slices by +",
        "so this much is memorised",
        "about 96 % accuracy",
        "head.widths=512-256 (default)",
        "shared setting, from which the main runs may differ. The main runs of transfer: fine-tuned, 50 epochs, 1 copy",
        "Head: efficientnet_lite0, CE-T1WI, frozen features, 20 epochs, 1 copy",
        "Leakage. CE-T1WI (frozen features, 20 epochs, 1 copy): on this cohort",
        "shuffled 200 times, folds by patient dealt anew each time; logistic regression on frozen features",
        "First line: the test folds pooled", "– mean ± SD over folds", "AUC by DeLong, of slices by Obuchowski",
        "by Newcombe's square-and-add",
        "Fig. 9 of the paper", "Fig. 11 of the paper",
    ):  # fmt: skip
        assert phrase in text, phrase
    assert "no coarse box" not in text
    joined = text.replace("= ", "=")  # a line may end there
    counts = [joined.count(f"{setting} (default)") for setting in ("head.widths=512-256", "threshold=0.3")]
    assert all(counts) and joined.count("(default)") == sum(counts)
    assert html.count("data:image/png") == 2 + 9


def test_what_failed_is_listed_on_top_and_where_it_would_stand(html):
    text = text_of(html)
    top, rest = text.split("Cohort", 2)[1], text.split("Transfer (Tables 3 to 6)", 1)[1]
    assert "2 runs FAILED" in top and "transfer/inception_v3_keras/flair : out of memory while training" in top
    assert "inception_v3_keras FAILED: out of memory while training fold 3" in rest
    assert "diamant FAILED: weights & 100% of_the memory second line" in rest


def test_only_failures_are_a_report_too_and_what_was_planned_is_missing(tmp_path):
    for name in (
        "fusion",
        "leakage/flair/leaky_true",
        "ablations/k/num_acquire=10",
        "explain/alexnet/flair",
        "active/t2wi",
    ):
        fake_failure(tmp_path / name, name.upper())
    plan = {"experiments": ["transfer/alexnet/flair", "fusion"], "left_out": {"transfer/x/t2wi": "no T2WI"}}
    write_json(tmp_path / "plan.json", plan)
    text = text_of(rendered(tmp_path))
    assert text.count("FAILED: FUSION") == text.count("FAILED: LEAKAGE/FLAIR/LEAKY_TRUE") == 1
    assert "active/t2wi FAILED: ACTIVE/T2WI" in text and "explain/alexnet/flair FAILED: EXPLAIN" in text
    assert "FAILED: ABLATIONS/K/NUM_ACQUIRE=10" in text.replace("= ", "=") and "explain/alexnet/flair : EXPLAIN" in text
    assert "transfer/alexnet/flair : not run" in text and "fusion : not run" not in text
    assert "transfer/x/t2wi : left out: no T2WI" in text


def test_a_setting_is_called_by_what_distinguishes_it():
    labels = ablations._labels(["mode=finetune,finetune_from=a,copies=0", "mode=frozen,copies=0", "copies=0"])
    assert list(labels.values()) == ["mode=finetune, finetune_from=a", "mode=frozen", "copies=0"]
    assert ablations._labels(["k=1,n=2"]) == {"k=1,n=2": "k=1, n=2"}


def test_fusion_is_judged_by_the_tests_of_all_comparisons_and_says_who_lacks_a_sequence(folder, contents):
    found = contents["fusion"]
    assert [row["Lack it"] for row in found["table"].rows] == ["–", "–", "–", 2, 4, 5, 6]
    first, *fused = sorted(folder.fusion[:4], key=lambda run: run.model != "best_single")
    rows = comparison.compare(first, fused)
    assert [row["p, DeLong"] for row in found["differences"].rows] == [f"{r.found.adjusted['auc']:.3f}" for r in rows]
    verdicts = [row.verdicts["auc"].split(" than")[0] for row in rows]
    assert all(verdict in text for verdict, text in zip(verdicts, found["verdicts"], strict=True))


def test_numbers_beside_tables_and_figures_are_theirs(folder, contents, html):
    drawings, found = (list(page.find(contents, kind)) for kind in (canvas.Drawing, tables.Table))
    links = re.findall(r'href="data:text/csv;charset=utf-8;base64,([^"]*)" download="([^"]*)"', html)
    assert len(links) == len({name for _, name in links}) == len(drawings) + len(found)
    content = {name: base64.b64decode(urllib.parse.unquote(data)).decode() for data, name in links}
    for name, text in content.items():
        rows = list(csv.reader(io.StringIO(text)))
        assert len(rows) > 1 and len({len(row) for row in rows}) == 1, name
        assert not re.search(r"\b[PS]0{2}[0-9a-f]{2}", text), name
    run = next(r for r in folder.transfer if (r.model, r.sequence) == ("resnet50", "ce_t1wi"))
    auc = metrics.evaluate(run.label, run.probability, run.patient)["patient"]["auc"]
    row = next(r for r in csv.DictReader(io.StringIO(content["table-4-ce-t1wi.csv"])) if r[""] == "ResNet-50")
    got = [float(row[f"patients: AUC{end}"]) for end in ("", ", low", ", high")]
    assert got == pytest.approx([auc["value"], auc["low"], auc["high"]])


def test_latex_has_its_columns_and_braces_and_says_phantom(contents):
    found = list(page.find(contents, tables.Table))
    assert len(found) > 40
    for table in found:
        text = tables.latex(table, "PHANTOM RESULTS")
        plain = re.sub(r"\\[\\{}&%$#_]", lambda m: r"\\" if m.group() == r"\\" else "", text)
        assert plain.count("{") == plain.count("}") and plain.isascii()
        assert not re.search(r"[#~]|(?<!\\)%(?! made)", plain.replace("% made", ""))
        stamp = "PUBLISHED" if table.published else "PHANTOM RESULTS"
        assert rf"\caption{{{stamp}" in text
        columns = re.search(r"\\begin\{tabular\}\{((?:[lr]|p\{0?\.\d+\\linewidth\})+)\}", text).group(1)
        columns = re.sub(r"p\{[^}]*\}", "p", columns)
        cells = [cell for cell in table.frame.to_numpy().ravel() if cell.style != "failed"]
        long = any(len(cell.text) > tables.PARAGRAPH for cell in cells)
        assert ("p" in columns) == long
        body = [line for line in plain.splitlines() if line.endswith(r"\\")]
        assert len(body) >= len(table.rows) + 1
        for line in body:
            spans = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            assert line.count("&") + 1 + sum(spans) == len(columns) == len(table.headings), line
    assert (
        tables.escape_latex("50 % of_a & {b} ~ − \\") == r"50 \% of\_a \& \{b\} \textasciitilde{} $-$ \textbackslash{}"
    )


def test_pdf_figures_are_vectors_with_embedded_fonts_and_always_the_same():
    x = np.linspace(0, 1, 4)
    drawing = figures.lines("a", "δ (caption)", "x − 1", "y", [figures.Line("l", x, x, x, x, 0)], limits=(0, 1))
    first = canvas.pdf(drawing)
    canvas.svg(drawing)
    assert first.startswith(b"%PDF") and first == canvas.pdf(drawing)
    assert b"/FontFile2" in first and b"/Type3" not in first
    assert b"/CreationDate" not in first and b"/Image" not in first.split(b"/ProcSet")[0]


def test_the_folder_for_a_paper_is_swapped_whole_and_the_authors_files_stay(tmp_path, monkeypatch):
    fake_transfer(tmp_path, 0, 1.0, num_patients=12)
    monkeypatch.setattr(canvas, "pdf", lambda drawing: drawing.name.encode())
    report.write(tmp_path)
    made = {path.name: path.read_bytes() for path in (tmp_path / "paper").iterdir()}
    assert {"table-6-published.tex", "spread-patient.pdf", "files.txt"} <= made.keys()
    (tmp_path / "paper" / "main.tex").write_text("mine")
    (tmp_path / "paper" / "stale.tex").write_text("old")
    (tmp_path / "paper" / "files.txt").write_text("stale.tex\n" + made["files.txt"].decode())

    def broken(*_):
        raise OSError("disk full")

    before = (tmp_path / "report.html").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(manuscript, "swap", broken)
        with pytest.raises(OSError, match="disk full"):
            report.write(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before and (tmp_path / "paper" / "stale.tex").exists()
    for killed in (False, True):
        if killed:  # after the old folder was put aside
            (tmp_path / "paper").rename(tmp_path / manuscript.ASIDE)
            (tmp_path / ".paper.new").mkdir()
        report.write(tmp_path)
        after = {path.name: path.read_bytes() for path in (tmp_path / "paper").iterdir()}
        assert after == made | {"main.tex": b"mine"}
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_labels_shuffled_slice_by_slice_are_shown_though_patients_carry_both(tmp_path):
    cell = tmp_path / "leakage" / "flair" / "leaky_shuffled"
    fake_transfer(cell, 0, 1.0, num_patients=20)
    rows = (cell / "predictions.csv").read_text().splitlines()
    shuffled = [re.sub(r",[01],", f",{i % 2},", row) for i, row in enumerate(rows[1:])]
    (cell / "predictions.csv").write_text("\n".join([rows[0], *shuffled]))
    text = text_of(rendered(tmp_path))
    assert "leaky folds, shuffled labels" in text and "no memorising shown" in text
    shutil.copytree(cell, tmp_path / "transfer" / "alexnet" / "flair")
    assert ("transfer/alexnet/flair", "20 patients carry both labels") in read.read(tmp_path).missing


def test_readers_are_points_and_a_broken_table_of_them_is_named(tmp_path, folder):
    assert [reader.name for reader in folder.readers] == ["simulated reader 1", "simulated reader 2"]
    fake_transfer(tmp_path / "transfer" / "lite0" / "flair", 0, 1.0, num_patients=9)
    calls = "".join(f"P{p:04x},doctor,{('encephalitis', 'glioma', '')[p % 3]}\n" for p in range(9))
    (tmp_path / "readers.csv").write_text("patient,reader,label\n" + calls)
    read_again = read.read(tmp_path)
    drawings = page.find(page.contents(read_again), canvas.Drawing)
    data = next(drawing.data for drawing in drawings if drawing.name.endswith("lite0-patient"))
    points = data[data["line"] == "doctor"].to_numpy().tolist()
    assert points == [["doctor", 1.0, 0.0]]  # p % 3 == 0 has glioma, and was called encephalitis
    for row, reason in (("P0000,doctor,1", "two answers of doctor for one patient"), ("Px,b,2", "neither 0 nor 1: 2")):
        (tmp_path / "readers.csv").write_text(f"patient,reader,label\n{calls}{row}\n")
        assert reason in dict(read.read(tmp_path).missing)["readers.csv"]
    (tmp_path / "readers.csv").write_text("reader\nx\n")
    assert ("readers.csv", "readers.csv lacks the column patient, label") in read.read(tmp_path).missing


def test_other_classes_are_named_throughout_and_stand_beside_no_number_of_the_paper(tmp_path):
    fake_paper(tmp_path)
    fake_doctor(tmp_path / "doctor", rounds=2)
    for path in [*tmp_path.rglob("config.json"), *tmp_path.rglob("cohort.json")]:
        record = json.loads(path.read_text().replace("encephalitis", "Low-grade").replace("glioma", "GBM"))
        where = record if path.name == "cohort.json" else record.setdefault("data", {})
        where["classes"] = ["Low-grade", "GBM"]
        write_json(path, record)
    (tmp_path / "readers.csv").write_text("reader,patient,label\nA,P0000,gbm\nA,P0001,Low-grade\n")
    folder = read.read(tmp_path)
    contents = page.contents(folder)
    html = page.html(folder, contents)
    csvs = [tables.csv(table) for table in page.find(contents, tables.Table)]
    csvs += [tables.frame_csv(drawing.data) for drawing in page.find(contents, canvas.Drawing)]
    for text in (html, *csvs):
        assert not re.search("encephalit|gliom", text, re.IGNORECASE)
    assert not [table.name for table in page.find(contents, tables.Table) if table.published == tables.PUBLISHED]
    for phrase in (
        "Low-grade or GBM: report", "(32 with Low-grade, 16 with GBM)", "The paper told other classes apart",
        "Table 1, this cohort", "80 of 100 have GBM", "called GBM. Weighted F1", "they got the share of GBM among",
        "Specificity (Low-grade kept)", "1 − specificity (Low-grade called GBM)", "Predicted / true GBM",
    ):  # fmt: skip
        assert phrase in text_of(html), phrase
    for phrase in ("of the paper:", "Radiologist", "paper's radiologists", "The paper prints", "Fig. 9 of"):
        assert phrase not in text_of(html), phrase


def test_a_folder_that_only_fuses_and_one_without_weights_are_told(tmp_path):
    for seed, model in enumerate(("late", "only_flair", "only_t2wi")):
        fake_transfer(tmp_path / "a" / model, seed, 1.5 - seed / 2, num_patients=20, one_a_patient=True)
    text = text_of(rendered(tmp_path / "a"))
    assert "Fused minus FLAIR alone" in text and "chosen by these very scores, which flatters it" in text
    assert "Not shown here" not in text and "PHANTOM RESULTS" in text
    random = CONFIG | {"weights": {"model": "alexnet", "pretrained": False, "seed": 3}}
    fake_transfer(tmp_path / "b" / "transfer" / "alexnet" / "flair", 0, 1.0, random, num_patients=12)
    fake_transfer(tmp_path / "b" / "transfer" / "resnet50" / "flair", 0, 1.0, num_patients=12)
    text = text_of(rendered(tmp_path / "b"))
    assert "RANDOM WEIGHTS: those of alexnet were never trained" in text
    assert "alexnet, random weights" in text and "resnet50, random weights" not in text
    assert "Weights, alexnet random, seed 3 Weights, efficientnet lite0 lite, sha256 ab12" in text


def test_shuffled_labels_are_announced_but_not_those_of_the_leakage_panel(tmp_path):
    shuffled = CONFIG | {"phantom": False, "config": CONFIG["config"] | {"label_control": "shuffled"}}
    fake_transfer(tmp_path / "leakage" / "flair" / "leaky_shuffled", 0, 0.0, shuffled, num_patients=12)
    assert summary.banners(read.read(tmp_path)) == []
    fake_transfer(tmp_path / "baselines" / "cnn_f" / "ce_t1wi", 0, 0.0, shuffled, num_patients=12)
    folder = read.read(tmp_path)
    (banner,) = summary.banners(folder)
    assert banner.startswith("SHUFFLED LABELS: those of baselines/cnn_f/ce_t1wi were dealt at random")
    assert summary.stamp(folder) == ""  # on every figure: that is for what all of the data is


def test_what_failed_is_not_shown_as_the_older_run_in_its_folder(tmp_path):
    for name in ("transfer/alexnet/flair", "fusion/late", "ablations/k/n=1", "leakage/flair/leaky_true"):
        fake_transfer(tmp_path / name, 0, 1.0, num_patients=12, one_a_patient=name.startswith("fusion"))
    fake_png(tmp_path / "explain" / "alexnet" / "flair" / "gradcam.png", 100, 100)
    failing = [
        "transfer/alexnet/flair",
        "fusion",
        "ablations/k/n=1",
        "leakage/flair/leaky_true",
        "explain/alexnet/flair",
    ]
    for name in failing:
        fake_failure(tmp_path / name)
    folder = read.read(tmp_path)
    assert sorted(run.name for run in folder.failed) == sorted(failing)
    assert not any(folder.experiments()) and not folder.explain
    with pytest.raises(errors.UserError, match="failed: out of memory"):
        read.read(tmp_path / "transfer" / "alexnet" / "flair")


def test_random_weights_are_told_wherever_they_are_shown(tmp_path):
    random = CONFIG | {"weights": {"pretrained": False}}
    scratch = random | {"config": {"mode": "scratch"}}
    write_json(tmp_path / "baselines.json", {"cnn_f_svm": {"title": "CNN-F features, SVM"}})
    alexnet = {"title": "AlexNet, single tower", "num_params": 62_378_344, "input_size": 224, "feature_width": 9216}
    write_json(tmp_path / "models.json", {"alexnet": alexnet})
    write_json(tmp_path / "plan.json", {"experiments": ["baselines/cnn_f_svm/ce_t1wi", "transfer/alexnet/flair"]})
    sweep = tmp_path / "ablations" / "start"
    fake_transfer(sweep / "weights=none", 0, 1.0, random, num_patients=12)
    fake_transfer(tmp_path / "transfer" / "alexnet" / "flair", 0, 1.0, num_patients=12)
    fake_transfer(tmp_path / "baselines" / "diamant" / "ce_t1wi", 0, 1.0, scratch, num_patients=12)
    assert not any("RANDOM" in banner for banner in summary.banners(read.read(tmp_path)))  # on purpose, and no method's
    fake_transfer(sweep / "mode=frozen", 0, 1.0, random, num_patients=12)
    fake_transfer(tmp_path / "baselines" / "cnn_f_svm" / "ce_t1wi", 0, 1.0, random, num_patients=12)
    fake_transfer(tmp_path / "fusion" / "late", 0, 1.0, random, num_patients=12, one_a_patient=True)
    fake_transfer(tmp_path / "leakage" / "flair" / "leaky_true", 0, 1.0, random, num_patients=12)
    fake_png(tmp_path / "explain" / "resnet50" / "flair" / "gradcam.png", 100, 100)
    write_json(tmp_path / "explain" / "resnet50" / "flair" / "config.json", random)
    folder = read.read(tmp_path)
    text = text_of(rendered(tmp_path))
    for phrase in (
        "RANDOM WEIGHTS: those of CNN-F features, SVM, fusion runs, leakage runs and ablation runs were never",
        "CNN-F features, SVM, random weights",
        "late: the predictions of the sequences, averaged, random weights",
        "leaky folds, true labels, random weights",
        "resnet50, random weights",
    ):
        assert phrase in text, phrase
    assert "diamant, random weights" not in text and "AlexNet, random weights" not in text
    assert folder.transfer[0].title == "AlexNet"  # a backbone's variant is left out, not a part of a baseline's name
