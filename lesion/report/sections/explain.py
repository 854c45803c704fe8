"""Where the networks look: Grad-CAM sheets by backbone."""

from typing import Any

from lesion.report.records import Folder, GradCam


def section(folder: Folder) -> dict[str, Any] | None:
    """Returns the values that explain.html.j2 prints, or None if there are none."""
    sheets: dict[str, list[GradCam]] = {}
    for sheet in folder.explain:
        sheets.setdefault(sheet.title, []).append(sheet)
    failed = folder.failed_of("explain")
    return {"sheets": sheets, "failed": failed} if sheets or failed else None
