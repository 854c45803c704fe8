"""Ablations: a table and a figure for each sweep, with the default marked."""

from collections.abc import Mapping, Sequence
from typing import Any

from lesion.metrics import active_runs
from lesion.report import figures, recipe, tables, words
from lesion.report.records import KINDS, RANDOM, Failed, Folder, Predictions, Rounds
from lesion.report.sections import active, transfer
from lesion.report.sections.summary import is_varied
from lesion.report.tables import FAILED, FIRST, Cell, Table

_DEFAULT = "default"
_PARTS = (*KINDS, "explain")  # fields of a plan that hold the fields of one kind of experiment
_STOPS = "δ would have stopped at"
_AUCS = [("slices", "AUC, mean over rounds"), ("slices", "AUC, last round")]
_ACTIVE_COLUMNS = [FIRST, "Slices at the start", "at the end", *_AUCS, _STOPS]


def _settings(fields: Mapping[str, Any], *, weights: bool) -> dict[str, str]:
    """Returns {dotted name: value} of the fields in which settings may differ, with `weights` whether there are any.

    Unvaried weights do not count, because a plan may name a folder that holds none for this backbone.
    """
    varied = {k: v for k, v in fields.items() if k not in ("sequence", "sequences", "backbones", "weights")}
    return dict(words.flatten(varied | ({"weights": bool(fields.get("weights"))} if weights else {})))


def _is_default(folder: Folder, run: Predictions | Rounds) -> bool:
    """Returns whether a run agrees with the plan's shared fields, or without a plan with a main run's fields."""
    weights, plan = is_varied(run, "weights"), folder.config.get("config", {})
    is_active = isinstance(run, Rounds)
    mains: list[Mapping[str, Any]] = [main.fields for main in (folder.active if is_active else folder.transfer)]
    if plan.get("ablations"):
        shared = {k: v for k, v in plan.items() if k not in _PARTS}
        mains = [shared | (plan.get("active", {}) if is_active else {})]
    own = _settings(run.fields, weights=weights)
    others = [_settings(fields, weights=weights) for fields in mains]
    same = any(own and main and all(own[k] == main[k] for k in own.keys() & main.keys()) for main in others)
    return same or run.levels[2] == _DEFAULT


def _labels(settings: Sequence[str]) -> dict[str, str]:
    """Returns {setting, which names its folder: label} for a sweep; labels leave out what all settings share."""
    parts = {setting: setting.split(",") for setting in settings}
    common = set.intersection(*map(set, parts.values())) if len(parts) > 1 else set()
    return {s: ", ".join(p for p in own if p not in common) or s.replace(",", ", ") for s, own in parts.items()}


def _active_row(run: Rounds) -> tuple[dict[Any, Any], list[figures.Mark]]:
    """Returns cells and marks of a setting of active learning, for the first of `active_runs.strategies`."""
    strategy = active_runs.strategies(run.rounds)[0]
    runs = active_runs.rows_of(run.rounds, strategy).groupby(["fold", "seed"])
    first, last = runs.head(1), runs.tail(1)
    aucs = [active_runs.run_mean(auc.to_numpy(), last["fold"]) for auc in (runs["auc"].mean(), last["auc"])]
    marks = [figures.Mark(auc[0], max(auc[1], 0), min(auc[2], 1), hollow=i == 1) for i, auc in enumerate(aucs)]
    stop = active.stop_at_delta(run, strategy, active.criteria(run).entropy)
    where = f"{stop.costs['slices'][1]:.0f} slices, " if stop and stop.num_stopped else ""
    text = f"{where}{stop.num_stopped} of {stop.num_runs} runs" if stop else words.MISSING
    ends = [f"{rows['labeled_slices'].mean():.0f}" for rows in (first, last)]
    cells = [*ends, *(tables.score("auc", auc) for auc in aucs), text]
    return dict(zip(_ACTIVE_COLUMNS[1:], cells, strict=True)), marks


def _sweep(
    folder: Folder, sweep: str, runs: Sequence[Predictions | Rounds], failed: Sequence[Failed], is_active: bool
) -> dict[str, Any]:
    """Returns title, table and figure of the settings of one sweep, either all of transfer or all `is_active`."""
    labels = _labels([run.levels[2] for run in [*runs, *failed]])
    rows: list[dict[Any, Any]] = []
    dots = []
    for run in runs:
        default, label = _is_default(folder, run), labels[run.levels[2]]
        label += " (default)" if default and label != _DEFAULT else ""
        if isinstance(run, Rounds):
            cells, marks = _active_row(run)
        else:
            cells, marks = transfer.score_row("", run.scores), transfer.auc_marks(run, 0)
        rows.append(cells | {FIRST: Cell(label, style="strong" if default else "")})
        dots.append(figures.Dots(label, marks, bold=default))
    rows += [{FIRST: labels[run.levels[2]], FAILED: f"FAILED: {run.error}"} for run in failed]
    name = words.identifier("ablation", sweep, *(["rounds"] if is_active else []))
    title = words.capital(sweep.replace("_", " "))
    models = " or ".join(dict.fromkeys(run.title for run in runs)).replace(RANDOM, " (random weights)")
    details = [models, *dict.fromkeys(run.sequence_title for run in runs), recipe.describe(runs)]
    columns, notes = (_ACTIVE_COLUMNS, []) if is_active else (transfer.COLUMNS, [words.INTERVALS, transfer.WEIGHTED])
    solid, hollow = ("mean over rounds", "last round") if is_active else ("slices", "patients")
    caption = f"{title}: {', '.join(filter(None, details))}" if any(details) else title
    drawn = f"{title}: AUC with 95 % interval; bold: the default."
    return {
        "title": title,
        "table": Table(name, caption, rows, columns, left=[_STOPS], notes=notes),
        "figure": figures.dots(f"figure-{name}", drawn, "AUC", dots, solid=solid, hollow=hollow),
    }


def _introduction(folder: Folder) -> str:
    """Returns the meaning of bold settings and the training of the main runs, in words."""
    planned = bool(folder.config.get("config", {}).get("ablations"))
    main = recipe.describe(folder.transfer)
    text = "bold: the plan's shared setting, from which the main runs may differ" if planned else "bold: a main run's"
    return f"{text}. {f'The main runs of transfer: {main}; each' if main else 'Each'} table here says its own."


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that ablations.html.j2 prints, or None if there are none."""
    sweeps: list[dict[str, Any]] = []
    lost = folder.failed_of("ablations")
    for sweep in dict.fromkeys(run.levels[1] for run in [*folder.ablations, *lost]):
        own = [run for run in folder.ablations if run.levels[1] == sweep]
        failed = [run for run in lost if run.levels[1] == sweep]
        kinds = sorted({isinstance(run, Rounds) for run in own}) or [False]
        for is_active in kinds:
            runs = [run for run in own if isinstance(run, Rounds) == is_active]
            sweeps.append(_sweep(folder, sweep, runs, failed if is_active == kinds[0] else [], is_active))
    return {"introduction": _introduction(folder), "sweeps": sweeps} if sweeps else None
