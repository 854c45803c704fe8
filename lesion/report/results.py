"""The results sections: transfer (Tables 3-5, Fig. 5) and labelling curves (Figs 9-11), as data for the page."""

from typing import Any

import numpy as np

from lesion import metrics
from lesion.report import figures, labelling, paper, read, words

LEVELS = ("slice", "patient")


def title(sequence: str) -> str:
    """The sequence as the paper writes it."""
    return paper.TITLES.get(sequence, sequence)


def style(sequence: str) -> int:
    """The line style of a sequence, the same in every figure."""
    known = list(paper.TITLES)
    return known.index(sequence) if sequence in known else len(known)


def _fold_rows(run: read.Transfer) -> list[dict[str, Any]]:
    """One row a fold; an AUC that a fold with one class does not define is NaN."""
    rows = []
    for fold in sorted(set(run.fold), key=lambda f: (len(f), f)):
        mask = run.fold == fold
        scores = metrics.evaluate(run.label[mask], run.probability[mask], run.patient[mask], num_resamples=0)
        rows.append(
            {
                "fold": fold,
                "num_patients": scores["num_patients"],
                "num_slices": scores["num_slices"],
                "accuracy": scores["slice"]["accuracy"]["value"],
                "slice": scores["slice"]["auc"]["value"],
                "patient": scores["patient"]["auc"]["value"],
            }
        )
    return rows


def _shared(run: read.Transfer) -> int:
    """0 where every patient is tested in one fold; else slices of the same patient were trained on."""
    return len(set(zip(run.patient, run.fold, strict=True))) - len(set(run.patient))


def summarise(run: read.Transfer) -> dict[str, Any]:
    """Everything that the report says about one sequence.

    Args:
        run: its predictions.

    Returns:
        A dict: sequence, title, scores (of `metrics.evaluate`), folds, majority (accuracy of always naming the
        commoner class, at both levels), certain (whether an interval has no width), shared (0 where no patient
        straddles folds), published, table.
    """
    scores = metrics.evaluate(run.label, run.probability, run.patient)
    label, _, _ = metrics.patient_means(run.label, run.probability, run.patient)
    share = {"slice": float(run.label.mean()), "patient": float(label.mean())}
    certain = any(entry["low"] == entry["high"] for level in LEVELS for entry in scores[level].values())
    return {
        "sequence": run.sequence,
        "title": title(run.sequence),
        "style": min(style(run.sequence), 4),
        "scores": scores,
        "num_glioma": int(label.sum()),
        "folds": _fold_rows(run),
        "majority": {level: max(p, 1 - p) for level, p in share.items()},
        "certain": certain,
        "shared": _shared(run),
        "published": paper.TRANSFER.get(run.sequence),
        "table": paper.TABLE_NUMBER.get(run.sequence),
    }


def roc_figures(runs: list[read.Transfer], summaries: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Fig. 5's form, once for slices and once for patients: (caption, svg); sequences with one class are left out."""
    result = []
    for level in LEVELS:
        curves = []
        for run, summary in zip(runs, summaries, strict=True):
            label, probability = run.label, run.probability
            if level == "patient":
                label, probability, _ = metrics.patient_means(label, probability, run.patient)
            if np.unique(label).size < 2:
                continue
            auc = summary["scores"][level]["auc"]
            text = f"{summary['title']} {words.number('auc', auc['value'])}"
            if auc["low"] < auc["high"]:
                text += f" ({words.interval('auc', auc['low'], auc['high'])})"
            curves.append(figures.Roc(text, *metrics.roc_points(label, probability), style(run.sequence)))
        if curves:
            caption = f"ROC curves of {level}s, all test folds pooled; beside each name its AUC with 95 % interval."
            result.append((caption, figures.roc(f"roc-{level}", curves)))
    return result


def spread_figure(summaries: list[dict[str, Any]]) -> str | None:
    """Pooled AUC with interval and each fold's AUC, by sequence and level."""
    rows = []
    for summary in summaries:
        for level in LEVELS:
            auc = summary["scores"][level]["auc"]
            folds = np.array([row[level] for row in summary["folds"]])
            if np.isfinite(auc["value"]):
                rows.append(
                    (
                        f"{summary['title']}, {level}s",
                        auc["value"],
                        auc["low"],
                        auc["high"],
                        folds[np.isfinite(folds)],
                        style(summary["sequence"]),
                    )
                )
    return figures.spread("spread", "AUC", rows) if rows else None


_AXES = {"accuracy": ("accuracy on test slices, %", 100.0), "auc": ("AUC on test slices", 1.0)}
_DIFFERENCES = {"accuracy": ("accuracy minus random, points", 100.0), "auc": ("AUC minus random", 1.0)}
_BUDGETS = {"slices": "labelled slices", "patients": "labelled patients"}


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


def _labelling_figures(
    name: str, full: Any, curves: list[labelling.Curve], stops: list[labelling.Stop], styles: dict[str, int]
) -> list[tuple[str, str]]:
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
            svg = figures.lines(
                f"{name}-{score}-{budget}",
                x_label,
                y_label,
                [_line(c, budget, score, styles[c.strategy]) for c in curves],
                limits=limits,
                reference=reference,
                mark=mark,
            )
            caption = f"{score.upper() if score == 'auc' else 'Accuracy'} against {x_label}."
            if mark:
                caption += " Dotted upright: where the δ rule had stopped half of the runs that it stops."
            result.append((caption, svg))
    return result


def _difference_figures(
    name: str, differences: list[labelling.Difference], styles: dict[str, int]
) -> list[tuple[str, str]]:
    result = []
    for score, (y_label, scale) in _DIFFERENCES.items() if differences else ():
        bands = [d.bands[score] for d in differences]
        low, high = _limits(bands, scale, inside=(-1.0, 1.0))
        svg = figures.lines(
            f"{name}-difference-{score}",
            _BUDGETS["slices"],
            y_label,
            [
                figures.Line(
                    d.strategy.replace("_", " "),
                    d.slices,
                    scale * b.mean,
                    scale * b.low,
                    scale * b.high,
                    styles[d.strategy],
                )
                for d, b in zip(differences, bands, strict=True)
            ],
            limits=(min(low, -0.02 * scale), max(high, 0.02 * scale)),
            reference=("random", 0.0),
        )
        result.append((f"{y_label[0].upper()}{y_label[1:]}, pairs of the same fold, seed and start.", svg))
    return result


def _bought(run: read.Labelling, curves: list[labelling.Curve]) -> list[dict[str, Any]]:
    """What labels bought, a row a strategy: areas, and the labels that reach a share of the score with all of them."""
    told = run.metrics.get("strategies")
    rows = [(c, told[c.strategy]) for c in curves if isinstance(told, dict) and c.strategy in told]
    return [{"title": strategy_title(c), **row} for c, row in rows]


def labelling_section(run: read.Labelling, name: str) -> dict[str, Any]:
    """Everything that the report says about one sequence's labelling curves; `name` starts its figures' ids.

    Returns:
        A dict: sequence, title, curves, differences, stops, bought, by_patient, figures and difference_figures
        [(caption, svg)], same (the strategies that are one curve, or ()), published.
    """
    curves = labelling.curves(run)
    others = iter(range(2, 2 + len(curves)))
    styles = {
        c.strategy: 1 if c.strategy == labelling.BASELINE else 0 if i == 0 else next(others)
        for i, c in enumerate(curves)
    }
    found = [labelling.difference(run, c.strategy) for c in curves]
    differences = [d for d in found if d is not None]
    possible = [labelling.stop(run, c.strategy) for c in curves if c.strategy != labelling.BASELINE]
    stops = [s for s in possible if s is not None]
    more = [s for c in curves for s in labelling.other_stops(run, c.strategy)]
    return {
        "sequence": run.sequence,
        "title": title(run.sequence),
        "curves": curves,
        "differences": differences,
        "stops": stops + more,
        "bought": _bought(run, curves),
        "by_patient": labelling.setting(run, "unit", "slice") == "patient",
        "figures": _labelling_figures(name, run.metrics.get("full_data"), curves, stops, styles),
        "difference_figures": _difference_figures(name, differences, styles),
        "same": next((c.names for c in curves if len(c.names) > 1), ()),
        "published": paper.LABELLING.get(run.sequence),
    }
