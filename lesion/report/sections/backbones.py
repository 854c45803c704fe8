"""The backbones (Table 2): our numbers of parameters and the paper's."""

from typing import Any

from lesion.report import paper, words
from lesion.report.records import Folder
from lesion.report.tables import FIRST, Cell, Table


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that backbones.html.j2 prints, or None if there are none."""
    if not folder.models:
        return None
    configs = [folder.config, *(run.config for run in folder.active)]
    used = {run.model for run in folder.transfer} | {config.get("config", {}).get("backbone") for config in configs}
    ours = [
        {
            "Backbone": Cell(spec["title"], style="strong" if name in used else ""),
            "Parameters": f"{spec['num_params']:,}",
            "Trained at, pixels": spec["input_size"],
            "Features": words.MISSING if spec["feature_width"] is None else spec["feature_width"],
        }
        for name, spec in folder.models.items()
    ]
    same = {title: name for name, title in paper.SAME_PARAMETERS.items()}
    theirs = [
        {FIRST: title, "Parameters, millions": millions, "Reproduced by": same.get(title, "nothing")}
        for title, millions in paper.PARAMETERS.items()
    ]
    name, caption = "table-2-published", "Table 2 of the paper"
    return {
        "ours": Table("table-2", "Table 2: at 1000 classes, as built here; bold: used in this run", ours),
        "theirs": Table(name, caption, theirs, left=["Reproduced by"], published="PUBLISHED"),
    }
