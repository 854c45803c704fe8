"""Renders the sections, in their order, into one HTML page."""

import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import jinja2
import markupsafe

from lesion.classes import PAPER, Classes
from lesion.report import canvas, paper, tables, words
from lesion.report.records import KINDS, Experiment, Folder
from lesion.report.sections import (
    ablations,
    active,
    backbones,
    baselines,
    calibration,
    cohort,
    comparison,
    decisions,
    doctor,
    explain,
    external,
    fusion,
    leakage,
    provenance,
    roc,
    summary,
    transfer,
)

# {template: (module, id in the page, title in the contents, tables or figures of the paper)}, in the page's order
SECTIONS: dict[str, tuple[Any, str, str, str]] = {
    "summary": (summary, "summary", "Summary", ""),
    "cohort": (cohort, "cohort", "Cohort", ""),
    "transfer": (transfer, "transfer", "Transfer", "Tables 3–6"),
    "external": (external, "external", "Another cohort", ""),
    "roc": (roc, "roc", "ROC curves", "Figs 5–8"),
    "baselines": (baselines, "baselines", "Baselines", "Table 7"),
    "fusion": (fusion, "fusion", "Three sequences fused", ""),
    "comparison": (comparison, "comparison", "Comparisons", ""),
    "calibration": (calibration, "calibration", "Calibration", ""),
    "decisions": (decisions, "decisions", "What a threshold buys", ""),
    "leakage": (leakage, "leakage", "What leakage does", ""),
    "active": (active, "labelling", "Active-learning curves", "Figs 9–11"),
    "ablations": (ablations, "ablations", "Ablations", ""),
    "explain": (explain, "looks", "Where it looks", ""),
    "doctor": (doctor, "doctor", "A doctor's labels", ""),
    "backbones": (backbones, "backbones", "Backbones", "Table 2"),
    "reading": (None, "reading", "How to read this", ""),
    "provenance": (provenance, "run", "What was run", ""),
}


def contents(folder: Folder) -> dict[str, Any]:
    """Returns {section: values that its template prints}, without empty sections; figures bear the cohort's stamp."""
    found = {name: module.section(folder) if module else {} for name, (module, *_) in SECTIONS.items()}
    stamp = summary.stamp(folder)
    for drawing in find(found, canvas.Drawing):
        if stamp:
            canvas.stamp(drawing, stamp)
    return {name: values for name, values in found.items() if values is not None}


def find(value: Any, kind: type) -> Iterator[Any]:
    """Yields every object of one type, `canvas.Drawing` or `tables.Table`, in nested contents, in order."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from find(inner, kind)
    elif type(value) in (list, tuple):
        for inner in value:
            yield from find(inner, kind)


def section_html(
    name: str, found: dict[str, Any], runs: Iterable[Experiment] = (), classes: Classes = PAPER
) -> markupsafe.Markup:
    """Returns the inside of one section of `contents` as HTML, with the commands that repeat `runs`."""
    sections = dict.fromkeys(SECTIONS) | found
    template = _environment().get_template(f"{name}.html.j2")
    values = {"section": found[name], "sections": sections, "commands": provenance.commands(runs)}
    values["classes"] = classes
    return markupsafe.Markup(template.render(values))


def html(folder: Folder, found: dict[str, Any]) -> str:
    """Returns `contents` as one page with style sheet, figures, their data and pictures embedded.

    The same folder gives the same string.
    """
    classes, runs = folder.classes, {kind: getattr(folder, kind) for kind in KINDS}
    sections = [(*SECTIONS[name][1:], section_html(name, found, runs.get(name, ()), classes)) for name in found]
    style = markupsafe.Markup((pathlib.Path(__file__).parent / "report.css").read_text("utf-8"))
    template = _environment().get_template("template.html.j2")
    return template.render(style=style, banners=summary.banners(folder), sections=sections, classes=classes)


def _environment() -> jinja2.Environment:
    """Returns the environment that renders the templates; it escapes text, but not our own figures and tables."""
    loader = jinja2.PackageLoader("lesion.report", ".")
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([loader, jinja2.PackageLoader("lesion.report", "sections")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["svg"] = lambda drawing: markupsafe.Markup(canvas.svg(drawing))
    environment.filters["figure_data"] = lambda drawing: tables.data_uri(tables.frame_csv(drawing.data))
    environment.filters["table_html"] = tables.html
    environment.filters["table_data"] = lambda table: tables.data_uri(tables.csv(table))
    environment.globals |= {"words": words, "paper": paper}
    return environment
