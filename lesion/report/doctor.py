"""What a doctor's rounds say: how much is labelled, and how sure the model is of the rest."""

from typing import Any

import numpy as np

from lesion.report import figures, labelling, read, results, words
from lesion.report.canvas import Drawing
from lesion.report.tables import Column, Table, text

_LEFT = {"max_entropy": "most uncertain slice left", "mean_entropy": "mean of those left"}


def section(run: read.Doctor) -> dict[str, Any]:
    """Everything that the report says about one doctor's labelling.

    Returns:
        A dict: title, num_rounds, table (a row a round), figure or None, over (which rules stopped it, in words, or
        () while it goes on), skipped (slices).
    """
    told, rounds = run.metrics.get("stopped_by", ()), run.rounds
    count = len(rounds["round"])
    rows = [
        (
            text(int(rounds["round"][i]) + 1),
            text(int(rounds["labeled_slices"][i])),
            text(int(rounds["labeled_patients"][i])),
            *(text(f"{rounds[c][i]:.2f}" if rounds[c][i] >= 0 else "nothing left") for c in _LEFT),
        )
        for i in range(count)
    ]
    headings = ("Labelled slices", "Their patients", "Largest entropy left, nats", "Mean entropy left, nats")
    columns = (Column("Round", words=True), *map(Column, headings))
    return {
        "title": results.title(run.sequence),
        "num_rounds": count,
        "table": Table("doctor-rounds", "After each round", columns, rows),
        "figure": _figure(run) if count > 1 else None,
        "over": [words.RULES.get(rule, "all rounds that were allowed") for rule in told],
        "skipped": run.metrics.get("skipped_slices"),
    }


def _figure(run: read.Doctor) -> Drawing:
    delta = float(labelling.setting(run, "entropy_threshold", labelling.DELTA))
    nothing = np.full(len(run.rounds["round"]), np.nan)
    lines = [
        figures.Line(label, run.rounds["labeled_slices"], run.rounds[column], nothing, nothing, style)
        for style, (column, label) in enumerate(_LEFT.items())
    ]
    return figures.lines(
        "doctor-entropy",
        "Entropy of what is not labelled, after each round; ln 2 = 0.69 nats is no idea at all.",
        "labelled slices",
        "entropy of unlabelled slices, nats",
        lines,
        limits=(0.0, 0.72),
        reference=(f"δ = {delta:g}", delta) if delta else None,
    )
