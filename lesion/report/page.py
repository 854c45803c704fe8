"""The page: the sections in their order, rendered into one HTML file."""

import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import jinja2
import markupsafe

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
    doctor,
    explain,
    fusion,
    leakage,
    provenance,
    roc,
    summary,
    transfer,
)

# In the order of the page: {name of the template: (module, id in the page, title in the contents, where in the paper)}
SECTIONS: dict[str, tuple[Any, str, str, str]] = {
    "summary": (summary, "summary", "Summary", ""),
    "cohort": (cohort, "cohort", "Cohort", ""),
    "transfer": (transfer, "transfer", "Transfer", "Tables 3–6"),
    "roc": (roc, "roc", "ROC curves", "Figs 5–8"),
    "baselines": (baselines, "baselines", "Baselines", "Table 7"),
    "fusion": (fusion, "fusion", "Three sequences fused", ""),
    "comparison": (comparison, "comparison", "Comparisons", ""),
    "calibration": (calibration, "calibration", "Calibration", ""),
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
    """Returns the values that each section's template prints, without sections that show nothing.

    Figures are drawn and bear the cohort's stamp.
    """
    found = {name: module.section(folder) if module else {} for name, (module, *_) in SECTIONS.items()}
    stamp = summary.stamp(folder)
    for drawing in find(found, canvas.Drawing):
        if stamp:
            canvas.stamp(drawing, stamp)
    return {name: values for name, values in found.items() if values is not None}


def find(value: Any, kind: type) -> Iterator[Any]:
    """Yields every `canvas.Drawing` or `tables.Table` in what sections show, in order."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from find(inner, kind)
    elif type(value) in (list, tuple):
        for inner in value:
            yield from find(inner, kind)


def section_html(name: str, found: dict[str, Any], runs: Iterable[Experiment] = ()) -> markupsafe.Markup:
    """Returns one section of `contents` as HTML, with the commands to run `runs` again."""
    sections = dict.fromkeys(SECTIONS) | found
    template = _environment().get_template(f"{name}.html.j2")
    values = {"section": found[name], "sections": sections, "commands": provenance.commands(runs)}
    return markupsafe.Markup(template.render(values))


def html(folder: Folder, found: dict[str, Any]) -> str:
    """Returns the page as one string, `contents` with style sheet, figures, their data and pictures inside.

    The same folder gives the same string.
    """
    runs = {kind: getattr(folder, kind) for kind in KINDS}
    sections = [(*SECTIONS[name][1:], section_html(name, found, runs.get(name, ()))) for name in found]
    style = markupsafe.Markup((pathlib.Path(__file__).parent / "report.css").read_text("utf-8"))
    template = _environment().get_template("template.html.j2")
    return template.render(style=style, banners=summary.banners(folder), sections=sections)


def _environment() -> jinja2.Environment:
    """Returns where the templates are rendered: text is escaped, figures and tables bring their data."""
    loader = jinja2.PackageLoader("lesion.report", ".")
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([loader, jinja2.PackageLoader("lesion.report", "sections")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    # Our own figures and tables are markup; all other text is escaped.
    environment.filters["svg"] = lambda drawing: markupsafe.Markup(canvas.svg(drawing))
    environment.filters["figure_data"] = lambda drawing: tables.data_uri(tables.frame_csv(drawing.data))
    environment.filters["table_html"] = tables.html
    environment.filters["table_data"] = lambda table: tables.data_uri(tables.csv(table))
    environment.globals |= {"words": words, "paper": paper}
    return environment
