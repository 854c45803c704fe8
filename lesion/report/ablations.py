"""Ablations: one table and one figure a sweep, with the default marked."""

from typing import Any

import numpy as np

from lesion import metrics
from lesion.report import figures, labelling, provenance, read, recipe, results, words
from lesion.report.canvas import Drawing
from lesion.report.read.files import RANDOM, part
from lesion.report.tables import Cell, Column, Table, instead, score, text

_DEFAULT = "default"
_PARTS = ("transfer", "leakage", "active", "ablations", "baselines", "fusion", "explain")  # of a plan
_LABELLING = (
    results.FIRST,
    Column("Slices at the start"),
    Column("at the end"),
    Column("AUC, mean over rounds", "slices"),
    Column("AUC, last round", "slices"),
    Column("δ would have stopped at", words=True),
)


def _settings(inner: dict[str, Any], weights: bool) -> dict[str, str]:
    """What makes a difference; of `weights` whether there are any, where that is what a setting varies.

    Else they do not count: a plan may name a folder of folders that holds none for this backbone.
    """
    told = {k: v for k, v in inner.items() if k not in ("sequence", "sequences", "backbones", "weights")}
    return dict(words.flat(told | ({"weights": bool(inner.get("weights"))} if weights else {})))


def _is_default(folder: read.Folder, one: read.Ablation) -> bool:
    """Whether its configuration is the plan's shared one, or without a plan a main run's, in all that both have."""
    if one.setting == _DEFAULT:
        return True
    active = isinstance(one.run, read.Labelling)
    varied = provenance.ablates(one, "weights")
    whole, own = part(folder.config, "config"), _settings(part(one.run.config, "config"), varied)
    shared = {k: v for k, v in whole.items() if k not in _PARTS} | (part(whole, "active") if active else {})
    mains = [part(main.config, "config") for main in (folder.labelling if active else folder.transfer)]
    for main in [shared] if part(whole, "ablations") else mains:
        theirs = _settings(main, varied)
        if own and theirs and all(own[k] == theirs[k] for k in own.keys() & theirs.keys()):
            return True
    return False


def _labels(settings: list[str]) -> dict[str, str]:
    """{setting, as its folder is called: what it alone says}, without what all of a sweep's have in common."""
    parts = {setting: setting.split(",") for setting in settings}
    common = set.intersection(*map(set, parts.values())) if len(parts) > 1 else set()
    return {s: ", ".join(p for p in told if p not in common) or s.replace(",", ", ") for s, told in parts.items()}


def _row(one: read.Ablation, label: str, default: bool) -> tuple[tuple[Cell, ...], figures.Dots]:
    assert isinstance(one.run, read.Run)
    found = metrics.evaluate(one.run.label, one.run.probability, one.run.patient)
    marks = []
    for level in results.LEVELS:
        auc = found[level]["auc"]
        marks.append(figures.Mark(auc["value"], auc["low"], auc["high"], 0, hollow=level == "patient"))
    return (Cell(label, look="strong" if default else ""), *results.cells(found)), figures.Dots(
        label, tuple(marks), bold=default
    )


def _band(values: np.ndarray, folds: np.ndarray) -> dict[str, float]:
    band = metrics.mean_band(values[:, None], folds)
    return {"value": float(band.mean[0]), "low": float(band.low[0]), "high": float(band.high[0])}


def _labelling_row(one: read.Ablation, label: str, default: bool) -> tuple[tuple[Cell, ...], figures.Dots]:
    """Of the strategy that asks; random choice where that is the only one."""
    run = one.run
    assert isinstance(run, read.Labelling)
    strategy = min(run.runs, key=lambda s: (s == labelling.BASELINE, s not in labelling.SAME, s))
    runs = run.runs[strategy]
    folds = np.array([fold for fold, _ in runs])
    area = _band(np.array([metrics_["auc"].mean() for metrics_ in runs.values()]), folds)
    last = _band(np.array([metrics_["auc"][-1] for metrics_ in runs.values()]), folds)
    ends = [np.mean([columns["labeled_slices"][i] for columns in runs.values()]) for i in (0, -1)]
    stop = labelling.stop(run, strategy)
    told = words.MISSING
    if stop is not None:
        where = f"{stop.slices[1]:.0f} slices, " if stop.slices else ""
        told = f"{where}{stop.num_stopped} of {stop.num_runs} runs"
    cells = (Cell(label, look="strong" if default else ""), *(text(f"{end:.0f}") for end in ends))
    marks = tuple(
        figures.Mark(b["value"], max(b["low"], 0.0), min(b["high"], 1.0), 0, hollow=b is last) for b in (area, last)
    )
    return (*cells, score("auc", area), score("auc", last), text(told)), figures.Dots(label, marks, bold=default)


def _sweep(folder: read.Folder, sweep: str, active: bool) -> dict[str, Any] | None:
    own = [a for a in folder.ablations if a.sweep == sweep and isinstance(a.run, read.Labelling) == active]
    lost = [one for one in folder.failed if one.name.startswith(f"ablations/{sweep}/")]
    if any(a.sweep == sweep for a in folder.ablations):
        if not own:
            return None
        if any(a.sweep == sweep and isinstance(a.run, read.Labelling) for a in folder.ablations) != active:
            lost = []  # a sweep of both kinds: shown once
    elif active:
        return None
    columns = _LABELLING if active else (results.FIRST, *results.COLUMNS)
    rows, dots = [], []
    labels = _labels([*(one.setting for one in own), *(one.name.rpartition("/")[2] for one in lost)])
    for one in own:
        default = _is_default(folder, one)
        label = labels[one.setting] + (" (default)" if default and one.setting != _DEFAULT else "")
        row, dot = (_labelling_row if active else _row)(one, label, default)
        rows.append(row)
        dots.append(dot)
    rows += [instead(labels[one.name.rpartition("/")[2]], f"FAILED: {one.error}", len(columns)) for one in lost]
    name, heading = results.slug("ablation", sweep, *(["rounds"] if active else [])), sweep.replace("_", " ")
    titles = dict.fromkeys(one.run.title for one in own)
    sequences = dict.fromkeys(results.title(one.run.sequence) for one in own)
    where = [" or ".join(titles).replace(RANDOM, " (random weights)"), *sequences, recipe.told(one.run for one in own)]
    caption = heading[:1].upper() + heading[1:] + (f": {', '.join(w for w in where if w)}" if any(where) else "")
    return {
        "title": heading[:1].upper() + heading[1:],
        "table": Table(name, caption, columns, rows, notes=() if active else (results.WEIGHTED,)),
        "figure": _figure(name, heading, dots, active),
        "active": active,
    }


def _figure(name: str, heading: str, dots: list[figures.Dots], active: bool) -> Drawing | None:
    shown = [dot for dot in dots if any(np.isfinite(mark.value) for mark in dot.marks)]
    if not shown:
        return None
    solid, hollow = ("mean over rounds", "last round") if active else ("slices", "patients")
    caption = f"{heading[:1].upper()}{heading[1:]}: AUC with 95 % interval; bold: the default."
    return figures.dots(f"figure-{name}", caption, "AUC", shown, solid=solid, hollow=hollow)


def standing(folder: read.Folder) -> str:
    """What bold settings are, and what the main runs stand on, in words."""
    planned = bool(part(part(folder.config, "config"), "ablations"))
    main = recipe.told(folder.transfer)
    told = "bold: the plan's shared setting, from which the main runs may differ" if planned else "bold: a main run's"
    return f"{told}. {f'The main runs of transfer: {main}; each' if main else 'Each'} table here says its own."


def section(folder: read.Folder) -> list[dict[str, Any]]:
    """What the page shows of ablations: a list of {title, table, figure (or None), active}, one a sweep."""
    lost = [one.name.split("/")[1] for one in folder.failed if one.name.startswith("ablations/")]
    sweeps = dict.fromkeys([*(a.sweep for a in folder.ablations), *lost])
    found = [_sweep(folder, sweep, active) for sweep in sweeps for active in (False, True)]
    return [one for one in found if one is not None]
