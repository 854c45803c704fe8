"""Words numbers and verdicts for the report: rounded, and claiming no more than their interval supports."""

import datetime
import math
from collections.abc import Sequence
from typing import Any

from lesion import metrics
from lesion.classes import Classes

MISSING = "–"
INTERVALS = (
    "Intervals: AUC by DeLong, of slices by Obuchowski, on the logit scale; the others by Wilson, of slices with the "
    "effective number of patients."
)
DIFFERENCES = (
    "Intervals of differences: from those of both (AUC: DeLong, shares: Wilson) and their correlation, by Newcombe's "
    "square-and-add."
)
LEVELS = ("patients", "slices")


def score_names(classes: Classes) -> dict[str, str]:
    """Returns the headings of all scores, by score."""
    return {
        "accuracy": "Accuracy, %",
        "auc": "AUC",
        "f1_weighted": "F1, weighted, %",
        "f1_positive": f"F1, {classes.positive}, %",
        "sensitivity": f"Sensitivity ({classes.positive} found), %",
        "specificity": f"Specificity ({classes.negative} kept), %",
    }


def number(score: str, value: float) -> str:
    """Returns a score as printed: AUC as a fraction with two digits, others in per cent with one digit."""
    if not math.isfinite(value):
        return MISSING
    return f"{value:.2f}" if score == "auc" else f"{100 * value:.1f}"


def interval(score: str, low: float, high: float) -> str:
    """Returns the ends of an interval as printed; a dash for NaN."""
    if not low <= high:
        return MISSING
    return f"{number(score, low)} to {number(score, high)}"


def least_patients() -> str:
    """Returns with how few patients which intervals are left out, in words; see `metrics.LEAST`."""
    names = {"auc": "AUC", "f1_weighted": "weighted F1", "f1_positive": "F1 of one class"}
    texts = [
        f"{names.get(score, score)} {join([f'{least} ({level})' for level, least in zip(LEVELS, leasts, strict=True)])}"
        for score, leasts in metrics.LEAST.items()
    ]
    return f"fewer patients (for an AUC of the rarer class) than {'; '.join(texts)}"


def signed(score: str, value: float) -> str:
    """Returns a difference with its sign: AUC as a fraction with three digits, others in points with one digit."""
    if not math.isfinite(value):
        return MISSING
    text = f"{abs(value):.3f}" if score == "auc" else f"{100 * abs(value):.1f}"
    if not float(text):
        return text
    return ("+" if value > 0 else "−") + text


def signed_interval(score: str, low: float, high: float) -> str:
    """Returns the ends of a difference's interval as printed; a dash for NaN."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return MISSING
    return f"{signed(score, low)} to {signed(score, high)}"


def change(score: str, value: float, low: float, high: float) -> str:
    """Returns a difference with its unit and interval, or a note that there is no interval."""
    unit = " points" if score == "accuracy" else ""
    ends = signed_interval(score, low, high)
    note = "no interval: too few runs" if ends == MISSING else f"95 % interval {ends}"
    return f"{signed(score, value)}{unit} ({note})"


def p_value(p: float) -> str:
    """Returns a p value with three digits; a dash for NaN."""
    if not math.isfinite(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def versus_chance(low: float, high: float) -> str:
    """Returns the verdict of an AUC's interval against chance, whose AUC is ½."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval: too few patients or one class"
    if low > 0.5:
        return "better than chance"
    return "worse than chance" if high < 0.5 else "not told from chance, 0.5 is inside"


def versus_random(low: float, high: float) -> str:
    """Returns the verdict of the interval of a difference to random queries."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no difference can be shown"
    if low == high == 0:
        return "no difference in any pair"
    if low <= 0 <= high:
        return "the interval includes 0: no difference shown"
    return "above random" if low > 0 else "below random"


def timestamp(text: Any) -> str:
    """Returns an ISO time stamp to the minute, e.g. `2026-01-01 10:07 UTC`; other text is returned unchanged."""
    try:
        return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (TypeError, ValueError):
        return str(text or "not recorded")


def duration(started: Any, finished: Any) -> str:
    """Returns the time between two ISO time stamps in s or min; a dash if one is missing or malformed."""
    try:
        seconds = (datetime.datetime.fromisoformat(finished) - datetime.datetime.fromisoformat(started)).total_seconds()
    except (TypeError, ValueError):
        return MISSING
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Returns a nested configuration as (dotted name, value) pairs, in its order."""
    if isinstance(value, dict):
        return [pair for k, v in value.items() for pair in flatten(v, f"{prefix}.{k}" if prefix else str(k))]
    return [(prefix, ", ".join(map(str, value)) if isinstance(value, list) else str(value))]


def join(names: Sequence[str]) -> str:
    """Returns `a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), *names[-1:]] if len(names) > 1 else names)


def plural(count: int, noun: str) -> str:
    """Returns `1 patient`, `2 patients`, `1,044 slices`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def capital(text: str) -> str:
    """Returns a text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def identifier(*parts: object) -> str:
    """Returns a name for ids and files, of letters, digits and hyphens."""
    cleaned = ("".join(c if c.isascii() and c.isalnum() else "-" for c in str(part)).strip("-") for part in parts)
    return "-".join(part or "x" for part in cleaned)
