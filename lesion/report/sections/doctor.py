"""A doctor's rounds of active learning: labels given, and the entropy of the slices that remain."""

from typing import Any

import numpy as np

from lesion.report import figures, words
from lesion.report.canvas import Drawing
from lesion.report.records import Folder, Rounds
from lesion.report.sections import active
from lesion.report.tables import Table

_LEFT_OUT = {"cannot_tell": "could not be told", "not_usable": "could not be used"}
_LEFT = {"max_entropy": "most uncertain slice left", "mean_entropy": "mean of those left"}


def _figure(run: Rounds) -> Drawing:
    """Draws the entropy of the unlabelled slices after each round."""
    rounds, delta = run.rounds.replace(-np.inf, np.nan), active.criteria(run).entropy
    nothing = np.full(len(rounds), np.nan)
    lines = [
        figures.Line(label, rounds["labeled_slices"].to_numpy(), rounds[column].to_numpy(), nothing, nothing, style)
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


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that doctor.html.j2 prints, or None if there are none."""
    if not folder.doctor:
        return None
    (run,) = folder.doctor
    rows = [
        {
            "Round": int(row.round) + 1,
            "Labelled slices": int(row.labeled_slices),
            "Their patients": int(row.labeled_patients),
        }
        | {
            f"{name} entropy left, nats": f"{entropy:.2f}" if np.isfinite(entropy) else "nothing left"
            for name, entropy in (("Largest", row.max_entropy), ("Mean", row.mean_entropy))
        }
        for row in run.rounds.itertuples()
    ]
    return {
        "title": run.sequence_title,
        "num_rounds": words.plural(len(rows), "round"),
        "stopped_by": [active.RULES.get(r, "all rounds that were allowed") for r in run.metrics.get("stopped_by", ())],
        "left_out": [
            f"{words.plural(count, 'slice')} {what}"
            for name, what in _LEFT_OUT.items()
            if (count := run.metrics.get(f"{name}_slices"))
        ],
        "figure": _figure(run) if len(rows) > 1 else None,
        "table": Table("doctor-rounds", "After each round", rows),
    }
