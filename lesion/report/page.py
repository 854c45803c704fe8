"""The page: everything that the template prints, put together from the sections."""

import pathlib
from collections.abc import Iterator
from typing import Any

import jinja2
import markupsafe

from lesion.report import (
    ablations,
    calibration,
    canvas,
    comparison,
    curves,
    doctor,
    fusion,
    labelling,
    labelling_section,
    leakage,
    overview,
    paper,
    provenance,
    read,
    results,
    tables,
    words,
)
from lesion.report.read.files import part

# Folders whose results are no rows of a table: a failed one is named by itself.
_FIGURES_ONLY = ("active", "explain")


def _statistics(folder: read.Folder) -> dict[str, Any]:
    """The sections on calibration and on comparisons, of all networks."""
    runs = [run._replace(model=run.title) for run in (*folder.transfer, *folder.baselines)]
    return {"calibration": calibration.section(runs), "comparison": comparison.section(runs, folder.readers)}


def _backbones(folder: read.Folder) -> tuple[tables.Table, tables.Table] | None:
    """Table 2, ours and the paper's; None where the run has no registry."""
    if not folder.models:
        return None
    used = {run.model for run in folder.transfer}
    used |= {str(part(c, "config").get("backbone")) for c in [folder.config, *(r.config for r in folder.labelling)]}
    rows = []
    for name in folder.models:
        row = part(folder.models, name)
        count = row.get("num_params")
        title = tables.Cell(str(row.get("title", name)), look="strong" if name in used else "")
        values = (
            f"{count:,}" if isinstance(count, int) else None,
            row.get("input_size"),
            row.get("feature_width"),
        )
        rows.append((title, *(tables.text(words.MISSING if v is None else v) for v in values)))
    heads = ("Parameters", "Trained at, pixels", "Features")
    theirs = [
        (
            tables.text(title),
            tables.text(millions),
            tables.text(next((n for n, same in paper.SAME_PARAMETERS.items() if same == title), "nothing")),
        )
        for title, millions in paper.PARAMETERS.items()
    ]
    columns = (results.FIRST, tables.Column("Parameters, millions"), tables.Column("Reproduced by", words=True))
    return (
        tables.Table(
            "table-2",
            "Table 2: at 1000 classes, as built here; bold: used in this run",
            (tables.Column("Backbone", words=True), *map(tables.Column, heads)),
            rows,
        ),
        tables.Table("table-2-published", "Table 2 of the paper", columns, theirs, published=True, tag="PUBLISHED"),
    )


def _looks(folder: read.Folder) -> dict[str, list[read.Look]]:
    """Grad-CAM sheets by backbone."""
    result: dict[str, list[read.Look]] = {}
    for look in folder.looks:
        result.setdefault(look.title.removeprefix(", ") or "The network", []).append(look)
    return result


def context(folder: read.Folder) -> dict[str, Any]:
    """All that the template prints; figures are drawn and bear the cohort's stamp.

    Args:
        folder: what `read.read` found.

    Returns:
        Names of the template to tables, figures and texts.
    """
    transfer, baselines = ([results.summarise(run) for run in runs] for runs in (folder.transfer, folder.baselines))
    styles = results.model_styles(folder)
    result = {
        "banners": provenance.banners(folder) + ([provenance.LEAKY] if any(s["shared"] for s in transfer) else []),
        "who": provenance.who(folder, transfer),
        "method": provenance.method(folder),
        "beside": provenance.beside(folder),
        "transfer": transfer,
        "several": len({s["model"] for s in transfer}) > 1,
        "results": results.section(folder, transfer),
        "means": overview.means_table(transfer) if len(folder.transfer) > 1 else None,
        "published_means": results.published("table-6-published", "Table 6 of the paper", paper.MEANS),
        "table7": overview.section(folder, baselines, transfer, styles),
        "published_baselines": results.published("table-7-published", "Table 7 of the paper", paper.BASELINES),
        "roc": curves.by_sequence(transfer, styles),
        "roc_models": curves.by_model(folder, transfer),
        "fusion": fusion.section(folder),
        "leakage": leakage.section(folder),
        "labelling": [labelling_section.section(run) for run in folder.labelling],
        "ablations": ablations.section(folder),
        "ablations_stand": ablations.standing(folder),
        "looks": _looks(folder),
        "doctor": [doctor.section(run) for run in folder.doctor],
        "cohort": folder.cohort,
        "cohort_tables": provenance.cohort_tables(folder.cohort),
        "backbones": _backbones(folder),
        "sheets": folder.sheets,
        "missing": folder.missing,
        "failed": folder.failed,
        "lost": {kind: [one for one in folder.failed if one.name.startswith(f"{kind}/")] for kind in _FIGURES_ONLY},
        "provenance": provenance.facts(folder),
        "commands": provenance.all_commands(folder),
        "baseline": labelling.BASELINE,
        **_statistics(folder),
    }
    told = provenance.stamp(folder)
    for drawing in find(result, canvas.Drawing):
        if told:
            canvas.stamp(drawing, told)
    return result


def find(value: Any, kind: type) -> Iterator[Any]:
    """Every `canvas.Drawing` or `tables.Table` in a context, in order."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from find(inner, kind)
    elif type(value) in (list, tuple):
        for inner in value:
            yield from find(inner, kind)


def html(values: dict[str, Any]) -> str:
    """The page as one string; the same context gives the same string.

    Args:
        values: of `context`.

    Returns:
        HTML with style sheet, figures, their data and pictures inside.
    """
    style = (pathlib.Path(__file__).parent / "report.css").read_text("utf-8")
    return environment().get_template("template.html.j2").render(style=markupsafe.Markup(style), **values)


def environment() -> jinja2.Environment:
    """Where the templates are rendered: text is escaped, figures and tables bring their data."""
    result = jinja2.Environment(
        loader=jinja2.PackageLoader("lesion.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    # Our own figures are markup; all other text is escaped.
    result.filters["svg"] = lambda drawing: markupsafe.Markup(canvas.svg(drawing))
    result.filters["figure_data"] = lambda d: tables.link(tables.comma_separated(d.header, d.rows))
    result.filters["table_data"] = lambda table: tables.link(tables.data(table))
    result.globals |= {"words": words, "paper": paper}
    return result
