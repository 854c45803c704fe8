"""The report: one HTML file that opens offline and says what was run on whom, the results and how sure they are.

Beside it a folder `paper` with the same tables as LaTeX and the same figures as PDF.
"""

import os
import pathlib
import shutil

from lesion import files
from lesion.report import canvas, manuscript, page, read, tables
from lesion.report.sections import summary

__all__ = ["FILE", "write"]

FILE = "report.html"


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
    contents = page.contents(folder)
    text = page.html(folder, contents)
    stamp = summary.stamp(folder)
    pages = {f"{drawing.name}.pdf": canvas.pdf(drawing) for drawing in page.find(contents, canvas.Drawing)}
    pages |= {f"{t.name}.tex": tables.latex(t, stamp).encode() for t in page.find(contents, tables.Table)}
    path = workdir / FILE
    new = manuscript.stage(workdir, pages)
    try:
        with files.replacing(path) as temporary:
            temporary.write_text(text, "utf-8")
            manuscript.swap(workdir, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return path
