"""Another cohort: a finished run's networks on patients of another hospital, beside their scores on their own."""

from typing import Any

import numpy as np

from lesion import metrics
from lesion.report import figures, tables, words
from lesion.report.records import External, Folder
from lesion.report.sections import calibration, roc, transfer
from lesion.report.tables import FIRST, Table

_THRESHOLDS = {"half": "½", "youden": "greatest Youden index on the run's test folds"}


def _scores_table(run: External) -> Table:
    """Returns the scores on the run's own test folds and on the other cohort, one row each."""
    both = {"own test folds": run.evaluation["cross_validated"], "other cohort": run.scores}
    rows = [
        transfer.score_row(f"{name}: {words.plural(scores['num_patients'], 'patient')}", scores)
        for name, scores in both.items()
    ]
    return Table("external-scores", "The same networks at home and elsewhere", rows, transfer.COLUMNS)


def _thresholds_table(run: External) -> Table:
    """Returns the patients' sensitivity, specificity and accuracy at each threshold."""
    label, probability, _ = run.columns("patient")
    headings = words.score_names(run.classes)
    rows = []
    for name, value in run.evaluation["thresholds"].items():
        scores = metrics.scores_of_calls(label, probability > value)
        row = {FIRST: _THRESHOLDS[name], "Above": f"{value:.3f}"}
        rows.append(row | {headings[score]: tables.score(score, entry) for score, entry in scores.items()})
    note = "Thresholds were fixed before these patients were seen. Small print: 95 % intervals."
    return Table("external-thresholds", "Patients called at thresholds fixed beforehand", rows, notes=[note])


def _recalibrated(run: External) -> dict[str, Any] | None:
    """Returns the table before and after recalibration, on the patients it was not fitted on; None without one."""
    record = run.evaluation["recalibration"]
    if record is None:
        return None
    label, probability, patient = run.columns("patient")
    rest = ~np.isin(patient, record["patients"])
    rows = []
    for name, shift in (("as trained", 0.0), ("RECALIBRATED", record["intercept"])):
        moved = metrics.shifted(probability[rest], shift)
        scores = metrics.calibration_scores(label[rest], moved, patient[rest], bins=calibration.BINS)["patient"]
        predicted = f"{100 * scores['predicted']:.0f} / {100 * scores['observed']:.0f}"
        row = {FIRST: name, f"Predicted / true {run.classes.positive}, %": predicted}
        rows.append(row | {"ECE": f"{scores['ece']:.3f}", "Brier": calibration.cell(scores["brier"])})
    fitted, others = (words.plural(int(count), "patient") for count in ((~rest).sum(), rest.sum()))
    caption = f"Recalibration of the intercept on {fitted}, tried on the other {others}"
    note = f"{record['intercept']:+.2f} was added to each patient's logit. The order of patients, and the AUC, stay."
    return {"table": Table("external-recalibrated", caption, rows, notes=[note])}


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that external.html.j2 prints, or None if there are none."""
    if not folder.external:
        return None
    (run,) = folder.external
    scored = metrics.calibration_scores(*run.columns("slice"), bins=calibration.BINS)
    curves = [
        line
        for style, level in enumerate(("slice", "patient"))
        for line in roc.curves([(run, f"{level}s", style)], level)
    ]
    caption = f"{run.sequence_title}: ROC curves on the other cohort; beside each name its AUC with 95 % interval."
    return {
        "title": run.sequence_title,
        "evaluation": run.evaluation,
        "scores": _scores_table(run),
        "thresholds": _thresholds_table(run),
        "roc": figures.roc("figure-external-roc", caption, curves, [], run.classes),
        "verdict": calibration.verdict(scored, calibration.overconfidence(run), run.classes.positive),
        "reliability": calibration.figure(run, "figure-external-calibration"),
        "recalibrated": _recalibrated(run),
    }
