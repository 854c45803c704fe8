"""Replaces the folder for a paper, WORKDIR/paper, as a whole; the author's own files in it are kept."""

import pathlib
import shutil

FOLDER = "paper"
ASIDE = ".paper.old"  # the old folder while it is replaced
LIST = "files.txt"  # names the files that the report wrote; all others are the author's


def stage(workdir: pathlib.Path, contents: dict[str, bytes]) -> pathlib.Path:
    """Writes a new folder beside `WORKDIR/paper`, and returns it; restores or removes what a killed call left.

    Args:
        workdir: folder that holds `paper`.
        contents: {name: content} of the report's files; the author's files in the old folder are copied beside them.
    """
    new, aside = workdir / f".{FOLDER}.new", workdir / ASIDE
    if aside.exists() and not (workdir / FOLDER).exists():  # killed between the two steps of `swap`
        aside.rename(workdir / FOLDER)
    for left in (new, aside):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir()
    try:
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
    """Puts a staged folder in the place of `WORKDIR/paper`; on an error the old one is restored."""
    old = workdir / FOLDER
    aside = workdir / ASIDE
    if old.exists():
        old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        if aside.exists():
            aside.rename(old)
        raise
    shutil.rmtree(aside, ignore_errors=True)
