"""Active-learning curves (Figs 9 to 11): each query strategy against random, label efficiency, when to stop."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lesion import metrics
from lesion.metrics import active_runs, stopping
from lesion.metrics.active_runs import RANDOM, SCORES, Curve, Difference, Stop
from lesion.report import figures, paper, tables, words
from lesion.report.canvas import LINE, Drawing
from lesion.report.records import Folder, Rounds
from lesion.report.tables import Table

DELTAS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # nats; two classes have ln 2 = 0.69 at most
RULES = {
    "entropy": "every remaining entropy below δ",
    "mean_entropy": "mean remaining entropy below δ",
    "p95_entropy": "95 % of remaining entropies below δ",
    "exhausted": "nothing left to query",
    "slices": "budget of slices",
    "patients": "budget of patients",
    "stabilizing_predictions": "successive models agree",
}
_AXES = {"accuracy": ("accuracy on test slices, %", 100.0), "auc": ("AUC on test slices", 1.0)}
_DIFFERENCES = {"accuracy": ("accuracy minus random, points", 100.0), "auc": ("AUC minus random", 1.0)}
_BUDGETS = {"slices": "labelled slices", "patients": "labelled patients"}
_STRATEGY = "Query strategy"
_GAINED = "Accuracy gained by going on"


def strategy_title(strategy: str) -> str:
    """Returns a strategy as printed, e.g. `least confidence`."""
    # AIFT keeps a quarter of a slice and its four copies, which is one: see `active.acquisition.aift`.
    return "aift, of one copy" if strategy == "aift" else strategy.replace("_", " ")


def criteria(run: Rounds) -> stopping.StoppingCriteria:
    """Returns the stopping criteria of a run's configuration; the paper's for those that it does not name."""
    names = ("entropy_threshold", "budget_slices", "budget_patients", "stabilizing_predictions")
    defaults = stopping.StoppingCriteria()
    values = (run.fields.get(name, default) for name, default in zip(names, defaults, strict=True))
    return stopping.StoppingCriteria(*values)


def stops(run: Rounds, strategy: str, limits: stopping.StoppingCriteria) -> list[Stop]:
    """Returns where each rule would have stopped a strategy's runs, by the entropy statistic of their configuration."""
    return active_runs.stops_of_runs(run.rounds, strategy, limits, run.fields.get("entropy_statistic", "max"))


def stop_at_delta(run: Rounds, strategy: str, delta: float) -> Stop | None:
    """Returns where a threshold δ of the entropy, in nats, would have stopped a strategy's runs; None if δ is 0."""
    found = stops(run, strategy, stopping.StoppingCriteria(entropy=delta, stabilizing_predictions=0))
    return found[0] if delta else None


def rule_title(run: Rounds, rule: str) -> str:
    """Returns a rule in words; the rule of δ names the run's entropy statistic."""
    statistic = run.fields.get("entropy_statistic", "max")
    return RULES[f"{statistic}_entropy" if rule == "entropy" and statistic != "max" else rule]


def _limits(bands: Sequence[metrics.Band], scale: float, inside: tuple[float, float]) -> tuple[float, float]:
    """Returns a y range, times `scale`, that holds the part of all bands within `inside`, with a small margin."""
    values = np.concatenate([np.concatenate(band[:3]) for band in bands])
    values = np.clip(values[np.isfinite(values)], *inside)
    if not values.size:
        return inside[0] * scale, inside[1] * scale
    air = 0.04 * max(float(np.ptp(values)), 0.02)
    return scale * (float(values.min()) - air), scale * (float(values.max()) + air)


def _curve_figures(
    name: str, run: Rounds, curves: list[Curve], stop: Stop | None, styles: Mapping[str, int]
) -> list[Drawing]:
    """Draws accuracy and AUC against labelled slices and labelled patients, in the form of Figs 9-11."""
    result = []
    for score, (y_label, scale) in _AXES.items():
        bands = {curve.strategy: curve.bands[score] for curve in curves}
        limits, reference = _limits(list(bands.values()), scale, (0.0, 1.0)), None
        full = run.metrics.get("full_data", {}).get(score)
        if full is not None:
            reference = ("all labels", scale * full)
            limits = min(limits[0], reference[1]), max(limits[1], reference[1] + 0.03 * (limits[1] - limits[0]))
        for budget, x_label in _BUDGETS.items():
            caption, mark = f"{'AUC' if score == 'auc' else 'Accuracy'} against {x_label}.", None
            if budget == "slices" and stop and stop.num_stopped:
                mark = (f"δ: {stop.num_stopped} of {stop.num_runs} runs", stop.slices[1])
                caption += " Dotted upright: where the δ rule had stopped half of the runs that it stops."
            lines = []
            for curve in curves:
                mean, *ends = bands[curve.strategy][:3]
                low, high = (scale * np.clip(end, 0, 1) for end in ends)  # a t-interval may leave the scale
                title, style = strategy_title(curve.strategy), styles[curve.strategy]
                lines.append(figures.Line(title, curve.costs[budget], scale * mean, low, high, style))
            options: dict[str, Any] = {"limits": limits, "reference": reference, "mark": mark}
            result.append(figures.lines(f"{name}-{score}-{budget}", caption, x_label, y_label, lines, **options))
    return result


def _difference_figure(name: str, differences: list[Difference], score: str, styles: Mapping[str, int]) -> Drawing:
    """Draws the difference of each strategy to random."""
    y_label, scale = _DIFFERENCES[score]
    low, high = _limits([d.bands[score] for d in differences], scale, (-1.0, 1.0))
    lines = []
    for d in differences:
        mean, low_end, high_end = (scale * values for values in d.bands[score][:3])
        title = d.strategy.replace("_", " ")
        lines.append(figures.Line(title, d.slices, mean, low_end, high_end, styles[d.strategy]))
    return figures.lines(
        f"{name}-difference-{score}",
        f"{words.capital(y_label)}, pairs of the same fold, seed and start.",
        _BUDGETS["slices"],
        y_label,
        lines,
        limits=(min(low, -0.02 * scale), max(high, 0.02 * scale)),
        reference=("random", 0.0),
    )


def _area(score: str, area: Sequence[float | None]) -> str:
    """Returns the area under a curve with its interval; None becomes a dash."""
    value, low, high = (math.nan if end is None else end for end in area)
    ends = words.interval(score, low, high)
    return words.number(score, value) + (f" ({ends})" if ends != words.MISSING else "")


def _label_cost(needed: Mapping[str, Any]) -> str:
    """Returns the median cost of a score and the runs that reached it: `120 slices, 31 patients; 25 of 25 runs`."""
    runs = f"{needed['reached']} of {needed['runs']} runs"
    runs += f", {needed['at_start']} at the start already" if needed["at_start"] else ""
    if needed["slices"] is None:
        return f"not by half: {runs}"
    return f"{needed['slices']:.0f} slices, {needed['patients']:.0f} patients; {runs}"


def _efficiency_table(run: Rounds, curves: list[Curve], name: str) -> Table | None:
    """Returns the table of label efficiency: areas under curves, and labels that reach a share of the full AUC."""
    entries = run.metrics.get("strategies", {})
    rows = [
        {
            _STRATEGY: strategy_title(strategy),
            "Accuracy, %": _area("accuracy", entries[strategy]["area"]["accuracy"]),
            "AUC": _area("auc", entries[strategy]["area"]["auc"]),
            "95 % of full AUC": _label_cost(entries[strategy]["needed"]["auc"]["0.95"]),
            "99 % of full AUC": _label_cost(entries[strategy]["needed"]["auc"]["0.99"]),
        }
        for strategy in [curve.strategy for curve in curves if curve.strategy in entries]
    ]
    left = ["95 % of full AUC", "99 % of full AUC"]
    return Table(f"{name}-bought", f"Label efficiency: {run.sequence_title}", rows, left=left) if rows else None


def _stop_cells(stop: Stop) -> dict[str, str]:
    """Returns cells: runs that a rule stops, labelled slices there, and the accuracy gained by going on."""
    where = gained = words.MISSING
    if stop.num_stopped:
        least, median, most = stop.slices
        where = f"{median:.0f} ({least:.0f} to {most:.0f})"
        inside = ": the interval includes 0" if stop.regret[1] <= 0 <= stop.regret[2] else ""
        gained = words.change("accuracy", *stop.regret) + inside
    runs = f"{stop.num_stopped} of {stop.num_runs}"
    return {"Runs stopped": runs, "Labelled slices, median (range)": where, _GAINED: gained}


def _stops_table(run: Rounds, found: list[Stop], name: str) -> Table | None:
    """Returns the table of where each rule would have stopped the runs; None without rules."""
    rows = [{_STRATEGY: s.strategy.replace("_", " "), "Rule": rule_title(run, s.rule)} | _stop_cells(s) for s in found]
    return Table(f"{name}-stops", f"When to stop: {run.sequence_title}", rows, left=["Rule", _GAINED]) if rows else None


def deltas_table(run: Rounds, strategy: str, name: str) -> Table:
    """Returns the ablation of δ: runs go on past it, so that the same runs show where every δ would have stopped."""
    found = {delta: stop_at_delta(run, strategy, delta) for delta in DELTAS}
    rows = [{"δ, nats": f"{delta:g}"} | _stop_cells(stop) for delta, stop in found.items() if stop]
    caption = f"Every δ, querying by {strategy.replace('_', ' ')}: {run.sequence_title}"
    return Table(f"{name}-deltas", caption, rows, left=[_GAINED])


def _budgets_table(run: Rounds, difference: Difference, name: str) -> Table:
    """Returns the table of a strategy minus random at every budget."""
    rows, headings = [], ["accuracy, points", "AUC"]
    for i, slices in enumerate(difference.slices):
        row: dict[str, Any] = {"round": i, "labelled slices": f"{slices:.0f}"}
        for (score, band), heading in zip(difference.bands.items(), headings, strict=True):
            mean, low, high = (float(values[i]) for values in band[:3])
            verdict = words.versus_random(low, high).split(":")[0].replace("the interval ", "")
            row |= {heading: tables.difference(score, (mean, low, high)), f"{heading}: verdict": verdict}
        rows.append(row)
    note = (
        "With this many budgets an interval or two may miss 0 by chance alone; the average over all budgets above is "
        "the one number fixed beforehand."
    )
    caption = f"{difference.strategy.replace('_', ' ')} minus random: {run.sequence_title}"
    name = words.identifier(name, difference.strategy, "minus-random")
    return Table(name, caption, rows, left=[f"{heading}: verdict" for heading in headings], notes=[note])


def _sequence(run: Rounds) -> dict[str, Any]:
    """Returns the values that active.html.j2 prints for one sequence."""
    name, limits = words.identifier("labelling", run.sequence), criteria(run)
    curves = active_runs.mean_curves(run.rounds)
    others = iter(range(2, 2 + len(curves)))
    styles = {
        c.strategy: 1 if c.strategy == RANDOM else 0 if i == 0 else next(others) % len(LINE)
        for i, c in enumerate(curves)
    }
    differences = [d for curve in curves if (d := active_runs.difference_to_random(run.rounds, curve.strategy))]
    all_stops = [stop for curve in curves for stop in stops(run, curve.strategy, limits)]
    entropy_stops = [s for s in all_stops if s.rule == "entropy" and s.strategy != RANDOM]
    other_stops = [s for s in all_stops if s.rule != "entropy"]
    same = next((curve.names for curve in curves if len(curve.names) > 1), [])
    return {
        "title": run.sequence_title,
        "published": paper.ACTIVE_LEARNING.get(run.sequence) if run.classes.are_of_paper else None,
        "first": curves[0],
        "same": [strategy.replace("_", " ") for strategy in same],
        "by_patient": run.fields.get("unit") == "patient",
        "figures": _curve_figures(name, run, curves, next(iter(entropy_stops), None), styles),
        "differences": [
            {"strategy": d.strategy.replace("_", " "), "num_pairs": d.num_pairs}
            | {
                score: f"{words.change(score, *change)}: {words.versus_random(*change[1:])}"
                for score, change in d.overall.items()
            }
            for d in differences
        ],
        "difference_figures": [_difference_figure(name, differences, s, styles) for s in SCORES if differences],
        "efficiency": _efficiency_table(run, curves, name),
        "stops": _stops_table(run, entropy_stops + other_stops, name),
        "delta": limits.entropy,
        "deltas": deltas_table(run, entropy_stops[0].strategy, name) if entropy_stops else None,
        "budgets": [(d.strategy.replace("_", " "), _budgets_table(run, d, name)) for d in differences],
    }


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that active.html.j2 prints, or None if there are none."""
    failed = folder.failed_of("active")
    if not (folder.active or failed):
        return None
    return {"sequences": [_sequence(run) for run in folder.active], "failed": failed}
