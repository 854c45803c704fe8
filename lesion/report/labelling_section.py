"""Labelling curves (Figs 9 to 11) as figures and tables for the page."""

from typing import Any

import numpy as np

from lesion import metrics
from lesion.report import figures, labelling, paper, read, results, words
from lesion.report.canvas import LINE, Drawing
from lesion.report.tables import Cell, Column, Table, change, text

_AXES = {"accuracy": ("accuracy on test slices, %", 100.0), "auc": ("AUC on test slices", 1.0)}
_DIFFERENCES = {"accuracy": ("accuracy minus random, points", 100.0), "auc": ("AUC minus random", 1.0)}
_BUDGETS = {"slices": "labelled slices", "patients": "labelled patients"}
_ASKING = Column("Asking by", words=True)
DELTAS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # nats; two classes have ln 2 = 0.69 at most


def strategy_title(curve: labelling.Curve) -> str:
    """`entropy`, `least confidence`: as in the file, with spaces."""
    if curve.strategy == "aift":
        return "aift, of one copy"  # what five pictures leave of it, see `active.acquisition.aift`
    return curve.strategy.replace("_", " ")


def _limits(bands: list[metrics.Band], scale: float, *, inside: tuple[float, float]) -> tuple[float, float]:
    """A y range that holds all bands within `inside`, with a little air."""
    values = np.concatenate([np.concatenate([b.mean, b.low, b.high]) for b in bands])
    values = np.clip(values[np.isfinite(values)], *inside)
    if not values.size:
        return inside[0] * scale, inside[1] * scale
    air = 0.04 * max(float(np.ptp(values)), 0.02)
    return scale * (float(values.min()) - air), scale * (float(values.max()) + air)


def _line(curve: labelling.Curve, budget: str, score: str, style_index: int) -> figures.Line:
    scale, band = _AXES[score][1], curve.bands[score]
    low, high = (scale * np.clip(end, 0, 1) for end in (band.low, band.high))  # a t-interval may leave the scale
    return figures.Line(strategy_title(curve), getattr(curve, budget), scale * band.mean, low, high, style_index)


def _figures(
    name: str, full: Any, curves: list[labelling.Curve], stops: list[labelling.Stop], styles: dict[str, int]
) -> list[Drawing]:
    """Figs 9-11's form: accuracy and AUC against labelled slices and against labelled patients."""
    result = []
    for score, (y_label, scale) in _AXES.items():
        limits = _limits([c.bands[score] for c in curves], scale, inside=(0.0, 1.0))
        value = full.get(score) if isinstance(full, dict) else None
        reference = ("all labels", scale * float(value)) if isinstance(value, int | float) else None
        if reference:
            limits = min(limits[0], reference[1]), max(limits[1], reference[1] + 0.03 * (limits[1] - limits[0]))
        for budget, x_label in _BUDGETS.items():
            mark = None
            if budget == "slices" and stops and stops[0].slices:
                mark = (f"δ: {stops[0].num_stopped} of {stops[0].num_runs} runs", stops[0].slices[1])
            caption = f"{score.upper() if score == 'auc' else 'Accuracy'} against {x_label}."
            if mark:
                caption += " Dotted upright: where the δ rule had stopped half of the runs that it stops."
            result.append(
                figures.lines(
                    f"{name}-{score}-{budget}",
                    caption,
                    x_label,
                    y_label,
                    [_line(c, budget, score, styles[c.strategy]) for c in curves],
                    limits=limits,
                    reference=reference,
                    mark=mark,
                )
            )
    return result


def _difference_figures(name: str, differences: list[labelling.Difference], styles: dict[str, int]) -> list[Drawing]:
    result = []
    for score, (y_label, scale) in _DIFFERENCES.items() if differences else ():
        bands = [d.bands[score] for d in differences]
        low, high = _limits(bands, scale, inside=(-1.0, 1.0))
        lines = [
            figures.Line(
                d.strategy.replace("_", " "),
                d.slices,
                scale * b.mean,
                scale * b.low,
                scale * b.high,
                styles[d.strategy],
            )
            for d, b in zip(differences, bands, strict=True)
        ]
        result.append(
            figures.lines(
                f"{name}-difference-{score}",
                f"{y_label[0].upper()}{y_label[1:]}, pairs of the same fold, seed and start.",
                _BUDGETS["slices"],
                y_label,
                lines,
                limits=(min(low, -0.02 * scale), max(high, 0.02 * scale)),
                reference=("random", 0.0),
            )
        )
    return result


def _bought(run: read.Labelling, curves: list[labelling.Curve], name: str) -> Table | None:
    """What labels bought, a row a strategy: areas, and the labels that reach a share of the score with all of them."""
    told = run.metrics.get("strategies")
    found = [(c, told[c.strategy]) for c in curves if isinstance(told, dict) and c.strategy in told]
    rows = [
        (
            text(strategy_title(c)),
            text(words.optional("accuracy", row["area"]["accuracy"])),
            text(words.optional("auc", row["area"]["auc"])),
            *(text(words.cost(row["needed"]["auc"][share])) for share in ("0.95", "0.99")),
        )
        for c, row in found
    ]
    columns = (
        _ASKING,
        Column("Accuracy, %"),
        Column("AUC"),
        Column("95 % of full AUC", words=True),
        Column("99 % of full AUC", words=True),
    )
    caption = f"What labels bought: {results.title(run.sequence)}"
    return Table(f"{name}-bought", caption, columns, rows) if rows else None


_STOPPED = (
    Column("Runs stopped"),
    Column("Labelled slices, median (range)"),
    Column("Accuracy gained by going on", words=True),
)


def _stopped(s: labelling.Stop) -> tuple[Cell, ...]:
    """How many runs a rule stops, after how many labels, and what that costs."""
    where, gained = Cell(words.MISSING), Cell(words.MISSING)
    if s.slices and s.regret:
        where = text(f"{s.slices[1]:.0f} ({s.slices[0]:.0f} to {s.slices[2]:.0f})")
        inside = ": the interval includes 0" if s.regret[1] <= 0 <= s.regret[2] else ""
        gained = text(words.change("accuracy", s.regret) + inside)
    return text(f"{s.num_stopped} of {s.num_runs}"), where, gained


def _stops(run: read.Labelling, stops: list[labelling.Stop], name: str) -> Table | None:
    rows = [(text(s.strategy.replace("_", " ")), text(words.RULES.get(s.rule, s.rule)), *_stopped(s)) for s in stops]
    columns = _ASKING, Column("Rule", words=True), *_STOPPED
    return Table(f"{name}-stops", f"When to stop: {results.title(run.sequence)}", columns, rows) if rows else None


def _deltas(run: read.Labelling, strategy: str, name: str) -> Table | None:
    """The ablation of δ: runs go on past it, so that every δ can be looked up in the same runs."""
    stops = [labelling.stop(run, strategy, delta) for delta in DELTAS]
    rows = [(text(f"{s.delta:g}"), *_stopped(s)) for s in stops if s]
    title = f"Every δ, asking by {strategy.replace('_', ' ')}: {results.title(run.sequence)}"
    return Table(f"{name}-deltas", title, (Column("δ, nats"), *_STOPPED), rows) if rows else None


def _budgets(run: read.Labelling, d: labelling.Difference, name: str) -> Table:
    """Every budget in numbers."""
    rows = []
    for i in range(len(d.slices)):
        cells: list[Cell] = []
        for score, band in d.bands.items():
            low, high = float(band.low[i]), float(band.high[i])
            verdict = words.versus_random(low, high).split(":")[0].replace("the interval ", "")
            cells += [change(score, (band.mean[i], low, high)), Cell(verdict)]
        rows.append((text(i), text(f"{d.slices[i]:.0f}"), *cells))
    columns = (
        Column("round", words=True),
        Column("labelled slices"),
        Column("accuracy, points"),
        Column("", words=True),
        Column("AUC"),
        Column("", words=True),
    )
    note = (
        "With this many budgets an interval or two may miss 0 by chance alone; the average over all budgets above is "
        "the one number fixed beforehand."
    )
    title = f"{d.strategy.replace('_', ' ')} minus random: {results.title(run.sequence)}"
    return Table(results.slug(name, d.strategy, "minus-random"), title, columns, rows, notes=(note,))


def section(run: read.Labelling) -> dict[str, Any]:
    """Everything that the report says about one sequence's labelling curves.

    Returns:
        A dict: run, sequence, title, curves, differences, stops, deltas and bought (Tables or None), delta, budgets
        [(strategy, Table)], by_patient, figures and difference_figures, same (the strategies that are one curve, or
        ()), published.
    """
    name = results.slug("labelling", run.sequence)
    curves = labelling.curves(run)
    others = iter(range(2, 2 + len(curves)))
    styles = {
        c.strategy: 1 if c.strategy == labelling.BASELINE else 0 if i == 0 else next(others) % len(LINE)
        for i, c in enumerate(curves)
    }
    found = [labelling.difference(run, c.strategy) for c in curves]
    differences = [d for d in found if d is not None]
    possible = [labelling.stop(run, c.strategy) for c in curves if c.strategy != labelling.BASELINE]
    stops = [s for s in possible if s is not None]
    more = [s for c in curves for s in labelling.other_stops(run, c.strategy)]
    return {
        "run": run,
        "sequence": run.sequence,
        "title": results.title(run.sequence),
        "curves": curves,
        "differences": differences,
        "stops": _stops(run, stops + more, name),
        "deltas": _deltas(run, stops[0].strategy, name) if stops else None,
        "delta": next((s.delta for s in stops + more), None),
        "bought": _bought(run, curves, name),
        "budgets": [(d.strategy.replace("_", " "), _budgets(run, d, name)) for d in differences],
        "by_patient": labelling.setting(run, "unit", "slice") == "patient",
        "figures": _figures(name, run.metrics.get("full_data"), curves, stops, styles),
        "difference_figures": _difference_figures(name, differences, styles),
        "same": next((c.names for c in curves if len(c.names) > 1), ()),
        "published": paper.LABELLING.get(run.sequence),
    }
