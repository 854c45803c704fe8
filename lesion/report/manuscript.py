"""The same tables and figures for a paper: LaTeX with booktabs to be \\input, and PDF figures."""

import os
import pathlib
import shutil
import tempfile

from lesion.report import canvas, tables

FOLDER = "paper"
LIST = "files.txt"  # what the report wrote there: everything else in the folder is the author's
PROSE = 60  # of a cell, characters: longer ones are set as paragraphs
_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "δ": r"$\delta$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "½": r"$\frac12$",
    "–": "--",
    "→": r"$\to$",
    "²": "$^2$",
    "±": r"$\pm$",
    "\u00a0": "~",
    "\u202f": "~",
}


def escape(text: str) -> str:
    """Text as LaTeX prints it; letters beyond Latin-1 that pdflatex does not know become a question mark."""
    return "".join(_SPECIAL.get(c, c if " " <= c <= "~" or "\u00a1" <= c <= "\u00ff" else "?") for c in text)


def _cell(cell: tables.Cell, side: str) -> str:
    """A cell; what is small stands below, so that six intervals fit a page."""
    inside = escape(cell.text)
    if cell.look:
        inside = rf"\textbf{{{inside}}}" if cell.look == "strong" else rf"\emph{{{inside}}}"
    if cell.small:
        small = rf"{{\scriptsize {escape(cell.small)}}}"
        inside = rf"\begin{{tabular}}[t]{{@{{}}{side}@{{}}}}{inside}\\{small}\end{{tabular}}"
    return rf"\multicolumn{{{cell.span}}}{{l}}{{{inside}}}" if cell.span > 1 else inside


def _is_prose(table: tables.Table, at: int) -> bool:
    """Whether a column's cells are too long for a line."""
    return any(len(row[at].text) > PROSE for row in table.rows if len(row) == len(table.columns))


def latex(table: tables.Table, stamp: str = "") -> str:
    """A floating table; wants \\usepackage{booktabs}, and the widest a landscape page.

    Args:
        table: what stands in it.
        stamp: what its caption says of the data first.

    Returns:
        LaTeX, one line a row.
    """
    told = table.tag if table.published else stamp
    caption = ". ".join(escape(part.rstrip(".")) for part in (told, table.caption, *table.notes) if part)
    sides = ["l" if column.words else "r" for column in table.columns]
    prose = [_is_prose(table, i) for i in range(len(sides))]
    paragraph = rf"p{{{min(0.4, 0.5 / max(sum(prose), 1)):.2f}\linewidth}}"
    kinds = [paragraph if long else side for long, side in zip(prose, sides, strict=True)]
    lines = [
        "% made by launch.report, which writes it anew",
        r"\begin{table}",
        r"\centering\small\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{caption}.}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{''.join(kinds)}}}",
        r"\toprule",
    ]
    groups, at, rules = table.groups(), 1, []
    for title, width in groups:
        if title:
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    if groups:
        lines.append(" & ".join(rf"\multicolumn{{{w}}}{{c}}{{{escape(title)}}}" for title, w in groups) + r" \\")
        lines.append(" ".join(rules))
    lines += [" & ".join(escape(column.title) for column in table.columns) + r" \\", r"\midrule"]
    lines += [" & ".join(_cell(*both) for both in zip(row, sides, strict=False)) + r" \\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def files(found_tables: list[tables.Table], drawings: list[canvas.Drawing], stamp: str) -> dict[str, bytes]:
    """{name: content} of everything for a paper.

    Args:
        found_tables: each becomes NAME.tex.
        drawings: each becomes NAME.pdf.
        stamp: what captions say of the data first, "" of patients'.
    """
    pages = {f"{drawing.name}.pdf": canvas.pdf(drawing) for drawing in drawings}
    return {f"{table.name}.tex": latex(table, stamp).encode() for table in found_tables} | pages


def stage(workdir: pathlib.Path, contents: dict[str, bytes]) -> pathlib.Path:
    """Writes a new folder beside `WORKDIR/paper`, with what the author put into the old one; returns it."""
    new = pathlib.Path(tempfile.mkdtemp(prefix=f".{FOLDER}.{os.getpid()}.", dir=workdir))
    try:
        new.chmod(0o755)
        for name, content in contents.items():
            (new / name).write_bytes(content)
        (new / LIST).write_text("\n".join(sorted(contents)) + "\n", "utf-8")
        old = workdir / FOLDER
        ours = {LIST, *((old / LIST).read_text("utf-8").split("\n") if (old / LIST).is_file() else ())}
        for path in old.iterdir() if old.is_dir() else ():
            if path.name in ours or (new / path.name).exists():
                continue
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, new / path.name)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return new


def swap(workdir: pathlib.Path, new: pathlib.Path) -> None:
    """Puts a staged folder in the old one's place, or leaves the old one."""
    old = workdir / FOLDER
    aside = new.with_name(f"{new.name}.old")
    if old.exists():
        old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        if aside.exists():
            aside.rename(old)
        raise
    shutil.rmtree(aside, ignore_errors=True)
