"""The report: one HTML file that opens offline and says what was run on whom, what came out and how sure that is.

Beside it a folder `paper` with the same tables as LaTeX and the same figures as PDF.
"""

import os
import pathlib
import shutil

from lesion import files
from lesion.report import canvas, manuscript, page, provenance, read, tables
from lesion.report.provenance import banners

__all__ = ["FILE", "banners", "render", "write"]

FILE = "report.html"


def render(folder: read.Folder) -> str:
    """The page as one string; the same folder gives the same string.

    Args:
        folder: what `read.read` found.

    Returns:
        HTML with style sheet, figures, their data and pictures inside.
    """
    return page.html(page.context(folder))


def write(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes `WORKDIR/report.html` and `WORKDIR/paper/` from what is in the folder, whole or not at all.

    Args:
        workdir: of launch/reproduce, or of a single launch/train or launch/active.

    Returns:
        The report's path.

    Raises:
        UserError: no such folder, or nothing in it to report.
        OSError: the report cannot be written.
    """
    workdir = pathlib.Path(workdir)
    folder = read.read(workdir)
    values = page.context(folder)
    text = page.html(values)
    found, drawings = (list(page.find(values, kind)) for kind in (tables.Table, canvas.Drawing))
    contents = manuscript.files(found, drawings, provenance.stamp(folder))
    path = workdir / FILE
    new = manuscript.stage(workdir, contents)
    try:
        with files.replacing(path) as temporary:
            temporary.write_text(text, "utf-8")
            manuscript.swap(workdir, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return path
