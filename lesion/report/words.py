"""Numbers and verdicts as a reader wants them: rounded, with their interval, claiming no more than it carries."""

import datetime
import math
from collections.abc import Sequence
from typing import Any

MISSING = "–"
SCORE_NAMES = {
    "accuracy": "Accuracy, %",
    "auc": "AUC",
    "f1_weighted": "F1, weighted, %",
    "f1_glioma": "F1, glioma, %",
    "sensitivity": "Sensitivity (glioma found), %",
    "specificity": "Specificity (encephalitis kept), %",
}


def number(score: str, value: float) -> str:
    """A score as printed: AUC as a fraction with two digits, the others in per cent with one."""
    if not math.isfinite(value):
        return MISSING
    return f"{value:.2f}" if score == "auc" else f"{100 * value:.1f}"


def interval(score: str, low: float, high: float) -> str:
    """Both ends as printed; a dash where there is none, or none with a width: see `metrics.evaluate`."""
    if not low < high:
        return MISSING
    return f"{number(score, low)} to {number(score, high)}"


def signed(score: str, value: float) -> str:
    """A difference with its sign: AUC as a fraction with three digits, accuracy in points with one."""
    if not math.isfinite(value):
        return MISSING
    text = f"{abs(value):.3f}" if score == "auc" else f"{100 * abs(value):.1f}"
    if not float(text):
        return text
    return ("+" if value > 0 else "−") + text


def versus_guessing(low: float, high: float) -> str:
    """What an AUC's interval says of guessing, whose AUC is ½."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval: too few patients or one class"
    if low == high:
        return "no interval: too few errors to judge by"
    if low > 0.5:
        return "better than guessing"
    return "worse than guessing" if high < 0.5 else "not told from guessing, 0.5 is inside"


def right(summary: dict[str, Any]) -> str:
    """How many patients were called right."""
    total = summary["scores"]["num_patients"]
    return f"{round(summary['scores']['patient']['accuracy']['value'] * total)} of {total} patients called right"


def commoner(summaries: list[dict[str, Any]]) -> str:
    """How many patients the commoner disease alone would have got right, by sequence where that differs."""
    counts = [
        (round(s["majority"]["patient"] * s["scores"]["num_patients"]), s["scores"]["num_patients"]) for s in summaries
    ]
    texts = [f"{count} of {total}" for count, total in counts]
    if len(set(texts)) == 1:
        return texts[0]
    return ", ".join(f"{text} ({s['title']})" for text, s in zip(texts, summaries, strict=True))


def change(score: str, triple: tuple[float, float, float]) -> str:
    """A difference with its interval, where there is one, in words."""
    value, low, high = triple
    unit = " points" if score == "accuracy" else ""
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{signed(score, value)}{unit} (no interval: too few runs)"
    return f"{signed(score, value)}{unit} (95 % interval {signed(score, low)} to {signed(score, high)})"


def versus_random(low: float, high: float) -> str:
    """What the interval of a difference to random choice says."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no difference can be shown"
    if low == high == 0:
        return "no difference in any pair"
    if low <= 0 <= high:
        return "the interval includes 0: no difference shown"
    return "above random" if low > 0 else "below random"


def flatters(low: float, high: float) -> str:
    """What the interval of leaky minus honest accuracy says."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "nothing can be shown"
    if low <= 0 <= high:
        return "no flattery shown, the interval includes 0"
    return "it flatters" if low > 0 else "it does not flatter here"


def memorised(low: float, high: float) -> str:
    """What the interval of an AUC on shuffled labels says when slices of a patient are on both sides."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "cannot be told"
    if low > 0.5:
        return "there is nothing to learn but whose slice it is, so this much is memorised"
    return f"{'below' if high < 0.5 else 'not told from'} guessing: no memorising shown"


def unlearnable(low: float, high: float) -> str:
    """What the interval of an AUC on shuffled labels says when no patient is on both sides."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "cannot be told"
    if low > 0.5:
        return "more than guessing: something leaks here too"
    return "below guessing" if high < 0.5 else "not told from guessing"


RULES = {
    "entropy": "every remaining entropy below δ",
    "mean_entropy": "mean remaining entropy below δ",
    "p95_entropy": "95 % of remaining entropies below δ",
    "exhausted": "nothing left to ask",
    "slices": "budget of slices",
    "patients": "budget of patients",
    "stabilizing_predictions": "successive models agree",
}


def cost(needed: dict[str, Any]) -> str:
    """The median cost of reaching a score, and how many runs did: `120 slices, 31 patients; 25 of 25`."""
    runs = f"{needed['reached']} of {needed['runs']} runs"
    if needed.get("at_start"):
        runs += f", {needed['at_start']} at the start already"
    if needed["slices"] is None:
        return f"not by half: {runs}"
    return f"{needed['slices']:.0f} slices, {needed['patients']:.0f} patients; {runs}"


def optional(score: str, triple: list[float | None]) -> str:
    """A score with its interval; null, as JSON has it, is a dash."""
    value, low, high = (math.nan if x is None else x for x in triple)
    ends = interval(score, low, high)
    return number(score, value) + (f" ({ends})" if ends != MISSING else "")


def minutes(started: Any, finished: Any) -> str:
    """The time between two ISO stamps, or a dash."""
    try:
        seconds = (datetime.datetime.fromisoformat(finished) - datetime.datetime.fromisoformat(started)).total_seconds()
    except (TypeError, ValueError):
        return MISSING
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def stamp(text: Any) -> str:
    """An ISO stamp to the minute, e.g. `2026-01-01 10:07 UTC`; what is no stamp stays as it is."""
    try:
        return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (TypeError, ValueError):
        return str(text or "not recorded")


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested config as (dotted name, value) pairs in its own order."""
    if isinstance(value, dict):
        return [pair for k, v in value.items() for pair in flat(v, f"{prefix}.{k}" if prefix else str(k))]
    return [(prefix, ", ".join(map(str, value)) if isinstance(value, list) else str(value))]


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), *names[-1:]] if len(names) > 1 else names)


def plural(count: int, noun: str) -> str:
    """`1 patient`, `2 patients`, `1,044 slices`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
