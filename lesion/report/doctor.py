"""What a doctor's rounds say: how much is labelled, and how sure the model is of the rest."""

from typing import Any

import numpy as np

from lesion.report import figures, labelling, paper, read, words

_LEFT = {"max_entropy": "most uncertain slice left", "mean_entropy": "mean of those left"}


def section(run: read.Doctor, name: str) -> dict[str, Any]:
    """Everything that the report says about one doctor's labelling; `name` starts its figure's id.

    Returns:
        A dict: title, rows (one a round), figure (caption, svg) or None, over (which rules stopped it, in words, or
        () while it goes on), skipped (slices).
    """
    told, rounds = run.metrics.get("stopped_by", ()), run.rounds
    rows = [
        {
            "round": int(rounds["round"][i]) + 1,
            "slices": int(rounds["labeled_slices"][i]),
            "patients": int(rounds["labeled_patients"][i]),
            "entropy": {column: float(rounds[column][i]) for column in _LEFT},
        }
        for i in range(len(rounds["round"]))
    ]
    return {
        "title": paper.TITLES.get(run.sequence, run.sequence),
        "rows": rows,
        "figure": _figure(run, name) if len(rows) > 1 else None,
        "over": [words.RULES.get(rule, "all rounds that were allowed") for rule in told],
        "skipped": run.metrics.get("skipped_slices"),
    }


def _figure(run: read.Doctor, name: str) -> tuple[str, str]:
    delta = float(labelling.setting(run, "entropy_threshold", labelling.DELTA))
    nothing = np.full(len(run.rounds["round"]), np.nan)
    lines = [
        figures.Line(label, run.rounds["labeled_slices"], run.rounds[column], nothing, nothing, style)
        for style, (column, label) in enumerate(_LEFT.items())
    ]
    svg = figures.lines(
        f"{name}-entropy",
        "labelled slices",
        "entropy of unlabelled slices, nats",
        lines,
        limits=(0.0, 0.72),
        reference=(f"δ = {delta:g}", delta) if delta else None,
    )
    return "Entropy of what is not labelled, after each round; ln 2 = 0.69 nats is no idea at all.", svg
