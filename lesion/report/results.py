"""Transfer (Tables 3 to 5): every backbone on every sequence, as tables for the page."""

from typing import Any

import numpy as np

from lesion import metrics
from lesion.report import figures, paper, read, words
from lesion.report.canvas import LINE, Drawing
from lesion.report.tables import Cell, Column, Table, instead, score, text

LEVELS = ("slice", "patient")
SHOWN = {"accuracy": "Accuracy, %", "auc": "AUC", "f1_weighted": "F1, %"}
COLUMNS = tuple(Column(heading, f"{level}s") for level in LEVELS for heading in SHOWN.values())
FIRST = Column("", words=True)
WEIGHTED = "F1 is that of both classes, weighted by their size."


def title(sequence: str) -> str:
    """The sequence as the paper writes it."""
    return paper.TITLES.get(sequence, sequence)


def style(sequence: str) -> int:
    """The line style of a sequence, the same in every figure."""
    known = list(paper.TITLES)
    return known.index(sequence) if sequence in known else len(known)


def model_styles(folder: read.Folder) -> dict[str, int]:
    """The line style of every model: by its turn, the same in every figure."""
    names = dict.fromkeys(run.model for run in (*folder.transfer, *folder.baselines))
    return {name: i % len(LINE) for i, name in enumerate(names)}


def slug(*parts: str) -> str:
    """A name for ids and files, of letters, digits and hyphens."""
    return "-".join(
        "".join(c if c.isascii() and c.isalnum() else "-" for c in part).strip("-") or "x" for part in parts
    )


def _fold_rows(run: read.Run) -> list[dict[str, Any]]:
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


def _shared(run: read.Run) -> int:
    """0 where every patient is tested in one fold; else slices of the same patient were trained on."""
    return len(set(zip(run.patient, run.fold, strict=True))) - len(set(run.patient))


def summarise(run: read.Run) -> dict[str, Any]:
    """Everything that the report says about one network on one sequence.

    Args:
        run: its predictions.

    Returns:
        A dict: run, sequence, title (the sequence's), model (as a table writes it), scores (of `metrics.evaluate`),
        num_glioma, folds, majority (accuracy of always naming the commoner class, at both levels), certain (whether
        an interval has no width), shared (0 where no patient straddles folds).
    """
    scores = metrics.evaluate(run.label, run.probability, run.patient)
    label, _, _ = metrics.patient_means(run.label, run.probability, run.patient)
    share = {"slice": float(run.label.mean()), "patient": float(label.mean())}
    certain = any(entry["low"] == entry["high"] for level in LEVELS for entry in scores[level].values())
    return {
        "run": run,
        "sequence": run.sequence,
        "title": title(run.sequence),
        "model": run.title,
        "style": style(run.sequence),
        "scores": scores,
        "num_glioma": int(label.sum()),
        "folds": _fold_rows(run),
        "majority": {level: max(p, 1 - p) for level, p in share.items()},
        "certain": certain,
        "shared": _shared(run),
    }


def gaps(folder: read.Folder, kind: str, sequence: str) -> list[tuple[str, str]]:
    """(model, what became of it) of every run of `kind` on `sequence` that failed or cannot be shown."""
    titles = {run.model: run.title for run in (*folder.transfer, *folder.baselines)}
    titles |= {name: str(row.get("title", name)) for name, row in folder.specs.items() if isinstance(row, dict)}
    told = [(one.name, f"FAILED: {one.error}") for one in folder.failed]
    told += [(name, f"NOT SHOWN: {why}") for name, why in folder.missing]
    result = []
    for name, what in told:
        parts = name.split("/")
        if parts[0] == kind and parts[-1] == sequence and 1 < len(parts) < 4:
            model = parts[1] if len(parts) == 3 else "the run"
            result.append((titles.get(model, model), what))
    return result


def cells(scores: dict[str, Any], names: dict[str, str] = SHOWN) -> tuple[Cell, ...]:
    """The cells of `COLUMNS`."""
    return tuple(score(name, scores[level][name]) for level in LEVELS for name in names)


def sequence_table(folder: read.Folder, sequence: str, summaries: list[dict[str, Any]]) -> Table:
    """Our Table 3, 4 or 5: a row a backbone, failed ones too."""
    own = [s for s in summaries if s["sequence"] == sequence]
    rows = [(Cell(s["model"]), *cells(s["scores"])) for s in own]
    rows += [instead(model, what, 1 + len(COLUMNS)) for model, what in gaps(folder, "transfer", sequence)]
    if own:
        common = [Cell(words.number("accuracy", own[0]["majority"][level])) for level in LEVELS]
        nothing = (Cell(""),) * (len(SHOWN) - 1)
        rows.append((Cell("always the commoner disease"), common[0], *nothing, common[1], *nothing))
    counts = dict.fromkeys(
        f"{words.plural(s['scores']['num_slices'], 'slice')} of {words.plural(s['scores']['num_patients'], 'patient')}"
        for s in own
    )
    number = paper.TABLE_NUMBER.get(sequence)
    caption = f"{f'Table {number}, this cohort: ' if number else ''}{title(sequence)}"
    notes = [", or ".join(counts) + ".", WEIGHTED] if counts else []
    if any(s["certain"] for s in own):
        notes.append(
            "A dash: all resamples agree, so there is no interval. That is too few errors to judge by, not certainty."
        )
    for s in own:
        if s["scores"]["num_degenerate"]:
            few, total = s["scores"]["num_degenerate"], s["scores"]["num_resamples"]
            notes.append(f"{few} of {total} resamples held one class only and were left out.")
            break
    return Table(
        slug(f"table-{number}" if number else "transfer", sequence),
        caption,
        (FIRST, *COLUMNS),
        rows,
        notes=tuple(notes),
    )


def published(name: str, caption: str, rows: tuple[paper.Row, ...]) -> Table:
    """A table of the paper: accuracy, AUC and F1."""
    columns = (FIRST, Column("Acc., %"), Column("AUC"), Column("F1, %"))
    body = [
        (text(row.name + (" *" if row.note else "")), text(row.accuracy), text(row.auc), text(row.f1)) for row in rows
    ]
    notes = tuple(f"* {note}" for note in dict.fromkeys(row.note for row in rows) if note)
    return Table(name, caption, columns, body, published=True, notes=notes)


def detail_tables(summary: dict[str, Any]) -> tuple[Table, Table]:
    """All scores of one run, and its folds one by one."""
    where = f"{summary['model']}, {summary['title']}"
    name = slug("scores", summary["run"].model or "network", summary["sequence"])
    columns = (FIRST, *(Column(f"{level}s ({summary['scores'][f'num_{level}s']})") for level in LEVELS))
    rows = [
        (text(heading), *(score(key, summary["scores"][level][key]) for level in LEVELS))
        for key, heading in words.SCORE_NAMES.items()
    ]
    folds = [
        (
            text(f["fold"]),
            text(f["num_patients"]),
            text(f["num_slices"]),
            text(words.number("accuracy", f["accuracy"])),
            text(words.number("auc", f["slice"])),
            text(words.number("auc", f["patient"])),
        )
        for f in summary["folds"]
    ]
    headings = ("patients", "slices", "slice accuracy, %", "slice AUC", "patient AUC")
    return (
        Table(name, f"All scores: {where}", columns, rows),
        Table(f"{name}-folds", f"By fold: {where}", (Column("fold", words=True), *map(Column, headings)), folds),
    )


def spread_figures(summaries: list[dict[str, Any]]) -> list[Drawing]:
    """Pooled AUC with interval and each fold's AUC, by backbone and sequence, one figure a level."""
    several = len({s["model"] for s in summaries}) > 1
    result = []
    for level in LEVELS:
        rows = []
        for summary in summaries:
            auc = summary["scores"][level]["auc"]
            ticks = np.array([row[level] for row in summary["folds"]])
            if np.isfinite(auc["value"]):
                mark = figures.Mark(auc["value"], auc["low"], auc["high"], summary["style"])
                label = f"{summary['model']}, {summary['title']}" if several else summary["title"]
                rows.append(figures.Dots(label, (mark,), ticks[np.isfinite(ticks)]))
        caption = (
            f"Spread of {level}s over folds. Dot and bar: all folds pooled, with 95 % interval over patients; ticks "
            "above it: each fold alone."
        )
        if rows:
            result.append(figures.dots(f"spread-{level}", caption, f"AUC of {level}s", rows))
    return result


def section(folder: read.Folder, summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page shows of transfer.

    Returns:
        A dict: sequences (a list of {title, ours, theirs (a Table or None), details [(summary line, tables)]}), spread
        (figures).
    """
    known = [s for s in paper.TITLES if any(x["sequence"] == s for x in summaries) or gaps(folder, "transfer", s)]
    others = [s["sequence"] for s in summaries if s["sequence"] not in paper.TITLES]
    result = []
    for sequence in dict.fromkeys([*known, *others]):
        rows, number = paper.TRANSFER.get(sequence), paper.TABLE_NUMBER.get(sequence)
        theirs = published(f"table-{number}-published", f"Table {number} of the paper", rows) if rows else None
        details = [(s["model"], detail_tables(s)) for s in summaries if s["sequence"] == sequence]
        ours = sequence_table(folder, sequence, summaries)
        result.append({"title": title(sequence), "ours": ours, "theirs": theirs, "details": details})
    return {"sequences": result, "spread": spread_figures(summaries)}
