"""The report: one HTML file that opens offline, with cohort, methods, results and their uncertainty.

A folder `paper` beside it holds the same tables as LaTeX and the same figures as PDF.
"""

import dataclasses
import os
import pathlib
import shutil

from lesion import files
from lesion.report import canvas, manuscript, page, read, tables
from lesion.report.sections import summary

__all__ = ["FILE", "write"]

FILE = "report.html"


def write(workdir: str | os.PathLike, prevalence: float | None = None) -> pathlib.Path:
    """Writes `WORKDIR/report.html` and `WORKDIR/paper/` from the runs in a folder; on an error the old ones stay.

    Args:
        workdir: folder of launch/reproduce, or of a single run of launch/train or launch/active.
        prevalence: share of the positive class for which predictive values and net benefit are told; None is the
            cohort's.

    Returns:
        Path of the HTML file.

    Raises:
        UserError: the folder does not exist or holds nothing to report.
        OSError: the report cannot be written.
    """
    workdir = pathlib.Path(workdir)
    folder = dataclasses.replace(read.read(workdir), prevalence=prevalence)
    contents = page.contents(folder)
    text = page.html(folder, contents)
    stamp = summary.stamp(folder)
    pages = {f"{drawing.name}.pdf": canvas.pdf(drawing) for drawing in page.find(contents, canvas.Drawing)}
    pages |= {f"{t.name}.tex": tables.latex(t, stamp).encode() for t in page.find(contents, tables.Table)}
    path = workdir / FILE
    with files.locked(path, wait=True):
        new = manuscript.stage(workdir, pages)
        try:
            with files.replacing(path) as temporary:
                temporary.write_text(text, "utf-8")
                manuscript.swap(workdir, new)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return path
