"""Every program on every kind of run: an answer, or one line that says why there is none."""

import re

import pytest
import tiny
from dicom_trees import make_tree

from configs import doctor as configs_doctor
from configs import fusion as configs_fusion
from lesion import files, models, report
from lesion.dataset import prepare
from lesion.errors import UserError
from lesion.experiments import kinds
from lesion.experiments.preview import preview
from lesion.inference.explain import explain_run
from lesion.inference.predict import predict
from lesion.inspect import features, page, reader, text
from lesion.worklist import csv_file, round_file

pytestmark = pytest.mark.slow

SMALL = {"num_epochs": 1, "initial_labeled": 4, "num_acquire": 2, "num_rounds": 2, "num_repeats": 1}
HNCNN = {"backbone": "hncnn", "mode": "scratch", "head_widths": ()}
CACHED = {"finetune_from": "conv2", "cache_activations": True}
# {kind of run: (kind of experiment, configuration, part of the run, its checkpoint)}
FOLD = "checkpoints/fold_0"
RUNS = {
    "frozen": ("transfer", lambda: tiny.config(**SMALL | {"mode": "frozen"}), "", FOLD),
    "finetune": ("transfer", lambda: tiny.config(**SMALL), "", FOLD),
    "cached activations": ("transfer", lambda: tiny.config(**SMALL, **CACHED), "", FOLD),
    "capsnet": ("transfer", lambda: baseline("tiny_capsnet"), "", FOLD),
    "cnn": ("transfer", lambda: tiny.config(**SMALL | HNCNN), "", FOLD),
    "svm": ("transfer", lambda: baseline("tiny_svm"), "", FOLD),
    "fusion": ("fusion", lambda: fusion(), "", f"early/{FOLD}"),
    "fusion, early": ("fusion", lambda: fusion(), "early", FOLD),
    "fusion, late": ("fusion", lambda: fusion(), "late", FOLD),
    "active": ("active", lambda: tiny.active_config(**SMALL), "", FOLD),
    "doctor": ("doctor", lambda: doctor(), "", "checkpoints/model"),
}
FUSION = dict.fromkeys(("predict", "predict fold", "explain", "features"), "is a fusion, whose networks take several")
ACTIVE = dict.fromkeys(("predict", "predict fold", "explain", "features"), "is a run of launch.active")
# What is refused, and why; all else works.
REFUSED = {
    "svm": dict.fromkeys(("explain", "features"), "is of a support vector machine, which has no Grad-CAM"),
    "fusion": FUSION,
    "fusion, early": FUSION,
    "fusion, late": FUSION,
    "active": ACTIVE | dict.fromkeys(("inspect", "against", "page"), "there is no"),
    "doctor": ACTIVE | {"predict fold": "is no run", "features": "needs a whole network", "against": "there is no"},
}


def baseline(name):
    return tiny.config(**SMALL, backbone=name, **tiny.BASELINE_RUNS[name])


def fusion():
    made = tiny.changed(configs_fusion.get_config("tiny"), tiny.START | {"num_epochs": 1})
    with made.unlocked():
        made.fusion.update({"sequences": ("flair", "t2wi"), "inner_folds": 2, "attention_width": 4})
    return made.lock()


def doctor():
    return tiny.changed(configs_doctor.get_config("tiny,flair"), tiny.START | SMALL)


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", tiny.SPEC)
        for name, row in tiny.BASELINES.items():
            patch.setitem(models.BASELINES, name, row)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The patients' files, a dataset of them, and one of the same without two labels; not to be changed."""
    folder = tmp_path_factory.mktemp("every program")
    tree = make_tree(folder / "dicom", patients=8, slices=2, kinds=("flair", "t2wi"))
    prepare.prepare(tree, folder / "data", folder / "private")
    table = (tree / "patients.csv").read_text()
    (tree / "patients.csv").write_text(table.replace("MRN006,encephalitis", "MRN006,").replace("7,glioma", "7,"))
    prepare.prepare(tree, folder / "unlabeled", folder / "private")
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """Runs of every kind, made once."""
    made = {}

    def train(name):
        kind, config, _, _ = RUNS[name]
        data, workdir = folder / ("unlabeled" if kind == "doctor" else "data"), folder / name.partition(",")[0]

        def call():
            return kinds.KINDS[kind].run(config(), kinds.KINDS[kind].load(config(), data, True), workdir)

        if workdir not in made:
            made[workdir] = call()
            while kind == "doctor" and "waits for the doctor" in made[workdir]:
                current = round_file.newest(workdir)
                path = round_file.folder_of(workdir, current.number) / csv_file.FILE
                path.write_text("\n".join(["slice,label", *(f"{item.slice},glioma" for item in current.items)]))
                made[workdir] = call()
        return kind, config(), data, workdir, call

    return train


def said(program, *arguments, **options):
    """What a program tells its user; any other error is a traceback."""
    try:
        return f"done: {program(*arguments, **options)}"
    except UserError as error:
        return str(error)


def inspect(path, against=None, html=None):
    opened = reader.open_checkpoint(path)
    leaves = text.print_checkpoint(opened, against)
    if html:
        page.write(html, opened, leaves)


@pytest.mark.filterwarnings("ignore:numpy.core")  # treescope looks at the names of all modules, of old ones too
@pytest.mark.parametrize("name", RUNS)
def test_every_program_answers_or_says_why_not(name, folder, trained, tmp_path):
    kind, made, data, workdir, train = trained(name)
    _, _, part, checkpoint = RUNS[name]
    run, first = workdir / part, workdir / part / checkpoint
    dicom, private = folder / "dicom", folder / "private"
    told = {
        "train again": said(train),
        "dry run": said(preview, kinds.Experiment("", made, kind), data, workdir),
        "predict": said(predict, run, dicom, tmp_path / "run.csv", private=private),
        "predict fold": said(predict, first, dicom, tmp_path / "fold.csv", private=private),
        "explain": said(explain_run, run, data, tmp_path / "explain"),
        "report": said(report.write, workdir),
        "inspect": said(inspect, first),
        "against": said(inspect, first, first.with_name("fold_1")),
        "page": said(inspect, first, None, tmp_path / "page.html"),
        "features": said(lambda: list(features.describe(first, next(dicom.rglob("IM0001")), tmp_path / "gradcam.png"))),
    }
    refused = REFUSED.get(name, {})
    for program, words in told.items():
        assert re.search(refused.get(program, "^done"), words), (program, words)
        assert program not in refused or "\n" not in words
    assert "finished" in told["dry run"]
    tables = [path.name for path in tmp_path.glob("*.csv")]
    assert tables == [] if "predict" in refused else sorted(tables) == ["fold.csv", "run.csv"]
    if name in ("capsnet", "cnn", "svm"):  # the patients are the run's own: its networks say the same again
        again = {row["slice"]: float(row["probability"]) for row in files.read_csv(tmp_path / "fold.csv")}
        before = [row for row in files.read_csv(run / "predictions.csv") if row["fold"] == "0"]
        for row in before:
            assert again[row["slice"]] == pytest.approx(float(row["probability"]), abs=1e-4)
