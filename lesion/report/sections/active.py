"""Active-learning curves (Figs 9 to 11): each query strategy against random, label efficiency, when to stop."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lesion import metrics
from lesion.metrics import active_runs, stopping
from lesion.metrics.active_runs import RANDOM, SCORES, Curve, Difference, Standing, Stop
from lesion.report import figures, paper, tables, words
from lesion.report.canvas import LINE, Drawing
from lesion.report.records import Folder, Rounds
from lesion.report.tables import Table

BUDGETS = (40, 100, 400)  # labelled slices at which strategies are compared
DELTAS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # nats; two classes have ln 2 = 0.69 at most
RULES = {
    "entropy": "every remaining entropy below δ",
    "exhausted": "nothing left to query",
    "slices": "budget of slices",
    "patients": "budget of patients",
    "stabilizing_predictions": "successive models agree",
}
_AXES = {"accuracy": ("accuracy on test slices, %", 100.0), "auc": ("AUC on test slices", 1.0)}
_DIFFERENCES = {"accuracy": ("accuracy minus random, points", 100.0), "auc": ("AUC minus random", 1.0)}
_BUDGETS = {"slices": "labelled slices", "patients": "labelled patients"}
_FULL = {"accuracy": "accuracy, %:", "auc": "AUC:"}
_STRATEGY = "Query strategy"
_GAINED = {"accuracy": "Accuracy gained by going on", "auc": "AUC gained by going on"}
_TITLES = {"aift": "aift, by patient", "margin_k_means": "margin, k-means"}


def strategy_title(strategy: str) -> str:
    """Returns a strategy as printed, e.g. `least confidence`."""
    return _TITLES.get(strategy, strategy.replace("_", " "))


def criteria(run: Rounds) -> stopping.StoppingCriteria:
    """Returns the stopping criteria of a run's configuration; the paper's for those that it does not name."""
    names = ("entropy_threshold", "budget_slices", "budget_patients", "stabilizing_predictions")
    defaults = stopping.StoppingCriteria()
    values = (run.fields.get(name, default) for name, default in zip(names, defaults, strict=True))
    return stopping.StoppingCriteria(*values)


def stops(run: Rounds, strategy: str, limits: stopping.StoppingCriteria) -> list[Stop]:
    """Returns where each rule would have stopped a strategy's runs."""
    return active_runs.stops_of_runs(run.rounds, strategy, limits)


def stop_at_delta(run: Rounds, strategy: str, delta: float) -> Stop | None:
    """Returns where a threshold δ of the entropy, in nats, would have stopped a strategy's runs; None if δ is 0."""
    found = stops(run, strategy, stopping.StoppingCriteria(entropy=delta, stabilizing_predictions=0))
    return found[0] if delta else None


def _full(run: Rounds, score: str) -> tables.Triple:
    """Returns (mean, low, high) of a score with all labels, NaN where it is not known."""
    values = run.metrics.get("full_data", {}).get(score) or (None,) * 3
    mean, low, high = (math.nan if value is None else float(value) for value in values)
    return mean, max(low, 0.0), min(high, 1.0)  # a t-interval may leave the scale


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
        limits, reference, full = _limits(list(bands.values()), scale, (0.0, 1.0)), None, _full(run, score)
        if math.isfinite(full[0]):
            reference = ("all labels", scale * full[0])
            limits = min(limits[0], reference[1]), max(limits[1], reference[1] + 0.03 * (limits[1] - limits[0]))
        full_band = scale * full[1], scale * full[2]
        for budget, x_label in _BUDGETS.items():
            caption, mark = f"{'AUC' if score == 'auc' else 'Accuracy'} against {x_label}.", None
            if stop and stop.num_stopped:
                mark = (f"δ: {stop.num_stopped} of {stop.num_runs} runs", stop.costs[budget][1])
                caption += " Dotted upright: where the δ rule had stopped half of the runs that it stops; by going on "
                caption += f"to the last round these changed by {words.change(score, *stop.regret[score])}."
            lines = []
            for curve in curves:
                mean, *ends = bands[curve.strategy][:3]
                low, high = (scale * np.clip(end, 0, 1) for end in ends)  # a t-interval may leave the scale
                title, style = strategy_title(curve.strategy), styles[curve.strategy]
                lines.append(figures.Line(title, curve.costs[budget], scale * mean, low, high, style))
            options: dict[str, Any] = {"limits": limits, "reference": reference, "reference_band": full_band}
            options |= {"mark": mark}
            result.append(figures.lines(f"{name}-{score}-{budget}", caption, x_label, y_label, lines, **options))
    return result


def _difference_figure(name: str, differences: list[Difference], score: str, styles: Mapping[str, int]) -> Drawing:
    """Draws the difference of each strategy to random."""
    y_label, scale = _DIFFERENCES[score]
    low, high = _limits([d.bands[score] for d in differences], scale, (-1.0, 1.0))
    lines = []
    for d in differences:
        mean, low_end, high_end = (scale * values for values in d.bands[score][:3])
        title = strategy_title(d.strategy)
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
    """Returns cells: runs that a rule stops, labelled slices there, and what going on gained."""
    where, gained = words.MISSING, dict.fromkeys(_GAINED.values(), words.MISSING)
    if stop.num_stopped:
        least, median, most = stop.costs["slices"]
        where = f"{median:.0f} ({least:.0f} to {most:.0f})"
        for score, heading in _GAINED.items():
            inside = ": the interval includes 0" if stop.regret[score][1] <= 0 <= stop.regret[score][2] else ""
            gained[heading] = words.change(score, *stop.regret[score]) + inside
    return {"Runs stopped": f"{stop.num_stopped} of {stop.num_runs}", "Labelled slices, median (range)": where} | gained


def _stops_table(run: Rounds, found: list[Stop], name: str) -> Table | None:
    """Returns the table of where each rule would have stopped the runs; None without rules."""
    rows = [{_STRATEGY: strategy_title(s.strategy), "Rule": RULES[s.rule]} | _stop_cells(s) for s in found]
    left = ["Rule", *_GAINED.values()]
    return Table(f"{name}-stops", f"When to stop: {run.sequence_title}", rows, left=left) if rows else None


def deltas_table(run: Rounds, strategy: str, name: str) -> Table:
    """Returns the ablation of δ: runs go on past it, so that the same runs show where every δ would have stopped."""
    found = {delta: stop_at_delta(run, strategy, delta) for delta in DELTAS}
    rows = [{"δ, nats": f"{delta:g}"} | _stop_cells(stop) for delta, stop in found.items() if stop]
    caption = f"Every δ, querying by {strategy_title(strategy)}: {run.sequence_title}"
    return Table(f"{name}-deltas", caption, rows, left=list(_GAINED.values()))


def _standings_table(run: Rounds, name: str) -> Table | None:
    """Returns the table of all strategies minus random at the budgets of `BUDGETS`; None if no runs cover one."""
    found = [s for s in (active_runs.standing(run.rounds, budget) for budget in BUDGETS) if s]
    if not found:
        return None
    heading = {"accuracy": "accuracy, points", "auc": "AUC"}
    rows = [
        {_STRATEGY: strategy_title(strategy)}
        | {
            (f"{s.slices} labels", heading[score]): tables.difference(score, s.to_random[score][strategy])
            for s in found
            for score in SCORES
        }
        for strategy in found[0].to_random["auc"]
    ]
    notes = [*map(_lead, found), "The best is named in hindsight, which flatters its lead."]
    missing = [str(budget) for budget in BUDGETS if budget not in {s.slices for s in found}]
    if missing:
        notes.append(f"No runs cover {words.join(missing)} labels.")
    return Table(f"{name}-standings", f"Minus random at equal cost: {run.sequence_title}", rows, notes=notes)


def _lead(standing: Standing) -> str:
    """Returns which strategy wins at a budget by AUC, in words that claim no more than the interval supports."""
    best, following, (value, low, high) = standing.lead["auc"]
    text = f"{standing.slices} labels, {words.plural(standing.num_pairs, 'pair')}: the highest AUC is that of "
    text += f"{strategy_title(best)}, {words.change('auc', value, low, high)} above {strategy_title(following)}"
    return f"{text}: {'it wins' if low > 0 else 'no winner is shown'}."


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
    caption = f"{strategy_title(difference.strategy)} minus random: {run.sequence_title}"
    name = words.identifier(name, difference.strategy, "minus-random")
    return Table(name, caption, rows, left=[f"{heading}: verdict" for heading in headings], notes=[note])


def _chance(run: Rounds, strategies: Sequence[str]) -> list[str]:
    """Returns for each strategy but random how far chance decided who was asked, in words."""
    texts = []
    for strategy in strategies:
        (tied, rounds), shares = active_runs.ties(run.rounds, strategy), active_runs.sure_shares(run.rounds, strategy)
        if strategy != RANDOM:
            text = f"{strategy_title(strategy)}: of the unlabelled slices {100 * shares[0]:.0f} % were below "
            text += f"{stopping.SURE_NATS:g} nats in the first round, {100 * shares[-1]:.0f} % in the last"
            texts.append(text + f"; lots decided among equal scores in {tied} of {rounds} rounds" * bool(tied))
    return texts


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
        "same": [strategy_title(strategy) for strategy in same],
        "by_patient": run.fields.get("unit") == "patient",
        "frozen": run.fields.get("mode") == "frozen",
        "asked_rounds": run.fields.get("num_rounds"),
        "ended_rounds": run.metrics.get("num_rounds"),
        "full": [f"{heading} {tables.score(score, _full(run, score))}" for score, heading in _FULL.items()]
        if math.isfinite(_full(run, "auc")[0])
        else [],
        "chance": _chance(run, [curve.strategy for curve in curves]),
        "standings": _standings_table(run, name) if differences else None,
        "figures": _curve_figures(name, run, curves, next(iter(entropy_stops), None), styles),
        "differences": [
            {"strategy": strategy_title(d.strategy), "num_pairs": d.num_pairs}
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
        "budgets": [(strategy_title(d.strategy), _budgets_table(run, d, name)) for d in differences],
    }


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that active.html.j2 prints, or None if there are none."""
    failed = folder.failed_of("active")
    if not (folder.active or failed):
        return None
    return {"sequences": [_sequence(run) for run in folder.active], "failed": failed}
