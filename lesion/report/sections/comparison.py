"""Comparisons of the models of one sequence with the first of them and with readers, on the same patients."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lesion import metrics
from lesion.classes import Classes
from lesion.report import figures, paper, tables, words
from lesion.report.canvas import Drawing
from lesion.report.records import Folder, Predictions, Reader
from lesion.report.sections import roc
from lesion.report.tables import Cell, Table

ALPHA = 1 - metrics.LEVEL
MOST_CURVES = 5  # in one figure; more cannot be distinguished
SHARES = ("accuracy", "sensitivity", "specificity")
TESTED = {"auc": "AUC of patients", "accuracy": "Accuracy of patients"}


class Row(NamedTuple):
    """A model compared with the reference: its title, the numbers, and {"auc" or "accuracy": verdict}."""

    title: str
    found: metrics.Comparison
    verdicts: dict[str, str]


def compare(reference: Predictions, runs: Sequence[Predictions]) -> list[Row]:
    """Returns the comparison of each run with `reference`, see `metrics.compare_models`."""
    comparisons = metrics.compare_models(reference.columns("slice"), [run.columns("slice") for run in runs])
    return [
        Row(run.title, c, {s: verdict(c.patient[s], c.adjusted[s], reference.title) for s in TESTED})
        for run, c in zip(runs, comparisons, strict=True)
    ]


def is_shown(entry: dict[str, float], adjusted: float) -> bool:
    """Returns whether a difference is shown: its interval excludes 0 and its `adjusted` p is below `ALPHA`."""
    return bool((entry["low"] > 0 or entry["high"] < 0) and adjusted < ALPHA)


def verdict(entry: dict[str, float], adjusted: float, comparator: str) -> str:
    """Returns the conclusion that one difference supports, in words."""
    if not np.isfinite([entry["value"], entry["low"], entry["high"]]).all():
        return "cannot be told: too few patients or one class"
    if entry["low"] <= 0 <= entry["high"]:
        return "no difference shown"
    if not np.isfinite(adjusted):
        return "no difference shown: the test has no answer"
    if adjusted >= ALPHA:
        return "no difference shown once all tests are counted"
    return ("better than " if entry["value"] > 0 else "worse than ") + comparator


def group_verdicts(verdicts: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Returns {verdict, capitalized: titles} of (verdict, title) pairs, in order of first occurrence."""
    groups: dict[str, list[str]] = {}
    for text, title in verdicts:
        groups.setdefault(words.capital(text), []).append(title)
    return groups


def discordant_pairs(mcnemar: metrics.McNemar) -> str:
    """Returns the patients that only the first called right and those that only the second did, as printed."""
    return f"{mcnemar.first_only} : {mcnemar.second_only}"


def model_vs_reader(runs: Sequence[Predictions], readers: Sequence[Reader]) -> list[dict[str, Any]]:
    """Compares each model with each reader, on the patients that both judged.

    Returns:
        For each pair with a common patient, the result of `metrics.model_vs_reader` with "title", "reader", "adjusted"
        ({share: p of McNemar's test, corrected over the shares of all pairs by Holm's method}) and "verdict" on the
        accuracy.
    """
    rows: list[dict[str, Any]] = []
    for run in runs:
        for reader in readers:
            if np.isin(reader.patient, run.patient).any():
                scores = metrics.model_vs_reader(run.columns("slice"), reader.columns(runs))
                rows.append(scores | {"title": run.title, "reader": reader.name})
    adjusted = metrics.holm(np.array([row[share]["p"] for row in rows for share in SHARES])).reshape(-1, len(SHARES))
    for row, p in zip(rows, adjusted.tolist(), strict=True):
        row["adjusted"] = dict(zip(SHARES, p, strict=True))
        row["verdict"] = verdict(row["accuracy"], row["adjusted"]["accuracy"], row["reader"])
    return rows


def _num_patients(num_patients: int, num_left_out: int) -> Cell:
    """Returns the cell of the patients that both judged, with those left out in small print."""
    return Cell(str(num_patients), f"({num_left_out} left out)" if num_left_out else "")


def _models_table(sequence: str, reference: str, rows: Sequence[Row]) -> Table:
    """Returns the table of each model minus the reference."""
    cells = [
        {
            "Model": row.title,
            "Patients of both": _num_patients(row.found.num_patients, row.found.num_left_out),
            "AUC, patients": tables.difference("auc", row.found.patient["auc"]),
            "p, DeLong": words.p_value(row.found.adjusted["auc"]),
            "AUC, slices": tables.difference("auc", row.found.slice["auc"]),
            "Accuracy, points": tables.difference("accuracy", row.found.patient["accuracy"]),
            "Discordant pairs": discordant_pairs(row.found.mcnemar),
            "p, McNemar": words.p_value(row.found.adjusted["accuracy"]),
        }
        for row in rows
    ]
    caption = f"{paper.sequence_title(sequence)}: each model minus {reference}; small print: 95 % interval"
    return Table(words.identifier("comparison", sequence), caption, cells, notes=[words.DIFFERENCES])


def _readers_table(sequence: str, classes: Classes, scores: dict[str, dict[str, Any]], simulated: bool) -> Table:
    """Returns the table of each reader's scores."""
    shares = {"Sensitivity, %": "sensitivity", "Specificity, %": "specificity"}
    shares |= {"Accuracy, %": "accuracy", words.score_names(classes)["f1_positive"]: "f1_positive"}
    cells = [
        {"Reader": reader, "Patients": own["num_patients"]}
        | {heading: tables.score(name, own[name]) for heading, name in shares.items()}
        for reader, own in scores.items()
    ]
    title = f"readers{', SIMULATED' if simulated else ''}"
    caption = f"{paper.sequence_title(sequence)}: {title}; small print: 95 % interval"
    return Table(words.identifier("readers", sequence), caption, cells, notes=[words.INTERVALS])


def _models_readers_table(sequence: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Returns the table of each model minus each reader."""
    cells = [
        {
            "Model": row["title"],
            "Reader": row["reader"],
            "Patients of both": _num_patients(row["num_patients"], row["num_left_out"]),
            "Discordant pairs, model : reader": discordant_pairs(row["mcnemar"]),
        }
        | {
            (words.capital(share), heading): cell
            for share in SHARES
            for heading, cell in (
                ("points", tables.difference(share, row[share])),
                ("p, McNemar", words.p_value(row["adjusted"][share])),
            )
        }
        for row in rows
    ]
    name = words.identifier("models-readers", sequence)
    caption = f"{paper.sequence_title(sequence)}: model minus reader, on the patients that both judged; in points"
    return Table(name, caption, cells, left=["Reader"], notes=[words.DIFFERENCES])


def _forest(sequence: str, reference: str, rows: Sequence[Row], score: str) -> Drawing | None:
    """Draws the difference of each model to the reference; None without a row."""
    unit, scale = ("AUC", 1) if score == "auc" else ("accuracy, points", 100)
    dots = []
    for row in rows:
        entry = row.found.patient[score]
        value, low, high = (scale * end for end in tables.triple(entry))
        hollow = not is_shown(entry, row.found.adjusted[score])
        dots.append(figures.Dots(row.title, [figures.Mark(value, low, high, hollow=hollow)]))
    caption = f"{TESTED[score]} minus that of {reference}, 95 % interval."
    name, sides = words.identifier("forest", sequence, score), (f"{reference} better", "better")
    return figures.dots(
        name,
        caption,
        f"difference in {unit}",
        dots,
        solid="difference shown",
        hollow="no difference shown",
        sides=sides,
    )


def _rocs(sequence: str, runs: Sequence[Predictions], points: Sequence[figures.Point]) -> list[Drawing]:
    """Draws ROC curves of patients in the form of Figs 6 to 8; every figure has the first run and all readers."""
    first, *others = runs
    parts = [others[start : start + MOST_CURVES - 1] for start in range(0, len(others), MOST_CURVES - 1)] or [[]]
    caption = f"ROC curves of patients, {paper.sequence_title(sequence)}; beside each name its AUC with 95 % interval."
    caption += " Readers are points, with 95 % intervals as crosses." if points else ""
    result = []
    for i, part in enumerate(parts):
        curves = roc.curves(((run, run.title, style) for style, run in enumerate([first, *part])), "patient")
        if curves:
            name = words.identifier("roc-models", sequence, i)
            result.append(figures.roc(name, caption, curves, points, first.classes))
    return result


def _group(sequence: str, runs: Sequence[Predictions], readers: Sequence[Reader], simulated: bool) -> dict[str, Any]:
    """Returns the values that comparison.html.j2 prints for one sequence; the first run is the reference."""
    first, *others = runs
    paired = [run for run in others if np.isin(run.patient, first.patient).any()]
    rows = compare(first, paired)
    numbered = [(f"R{i}", reader, reader.columns(runs)) for i, reader in enumerate(readers, 1)]
    numbered = [(short, reader, columns) for short, reader, columns in numbered if columns[0].size]
    scores = {f"{short} {reader.name}": metrics.reader_scores(*columns) for short, reader, columns in numbered}
    points = [
        point
        for (short, reader, _), own in zip(numbered, scores.values(), strict=True)
        for point in roc.reader_point(reader.name, own, short)
    ]
    against = model_vs_reader(runs, [reader for _, reader, _ in numbered])
    return {
        "title": first.sequence_title,
        "reference": first.title,
        "one_split": len({run.config.get("split_hash") for run in runs} - {None}) <= 1,
        "apart": [run.title for run in others if run not in paired],
        "rows": rows,
        "num_tests": sum(bool(np.isfinite(p)) for row in rows for p in row.found.p.values()),
        "verdicts": {
            title: group_verdicts((row.verdicts[score], row.title) for row in rows) for score, title in TESTED.items()
        },
        "forests": [_forest(sequence, first.title, rows, score) for score in TESTED],
        "models": _models_table(sequence, first.title, rows) if rows else None,
        "rocs": _rocs(sequence, runs, points) if scores else [],
        "readers": _readers_table(sequence, first.classes, scores, simulated) if scores else None,
        "against_readers": against,
        "reader_verdicts": {
            reader.name: group_verdicts((r["verdict"], r["title"]) for r in against if r["reader"] == reader.name)
            for _, reader, _ in numbered
        },
        "models_readers": _models_readers_table(sequence, against) if against else None,
    }


def by_sequence(runs: Iterable[Predictions]) -> dict[str, list[Predictions]]:
    """Returns {sequence: its runs}, sequences in the paper's order."""
    groups: dict[str, list[Predictions]] = {sequence: [] for sequence in paper.TITLES}
    for run in runs:
        groups.setdefault(run.sequence, []).append(run)
    return {sequence: own for sequence, own in groups.items() if own}


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that comparison.html.j2 prints, or None if there are none."""
    simulated = any(reader.name.startswith("simulated") for reader in folder.readers)
    groups = [
        _group(sequence, runs, folder.readers, simulated)
        for sequence, runs in by_sequence((*folder.transfer, *folder.baselines)).items()
        if len(runs) > 1 or folder.readers
    ]
    return {"groups": groups, "simulated": simulated, "paper_readers": paper.readers_implied()} if groups else None
