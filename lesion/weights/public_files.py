"""Public weight files: the table in third_party/ and their download."""

import tomllib
from pathlib import Path
from typing import NamedTuple

import pooch
import requests

from lesion import files
from lesion.errors import UserError

TABLE = Path(__file__).parents[2] / "third_party" / "imagenet_weights" / "files.toml"


class PublicFile(NamedTuple):
    """A row of the table of public files.

    Attributes:
        models: backbones that the file fits.
        source: source of the names and layout, as in `rules.RULES`.
        address: URL of the file.
        hash: `sha256:` or `md5:`, followed by the hash or its first digits.
        licence: licence, as published.
        top1: top-1 accuracy on ImageNet in per cent, as published.
    """

    models: tuple[str, ...]
    source: str
    address: str
    hash: str
    licence: str
    top1: float

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.address.rpartition("/")[2]

    def matches(self, path: Path) -> bool:
        """Tells whether the file at `path` has this row's hash."""
        kind, _, digits = self.hash.partition(":")
        return pooch.file_hash(str(path), alg=kind).startswith(digits)


def load_table() -> list[PublicFile]:
    """Returns all rows of the table."""
    rows = tomllib.loads(TABLE.read_text())["file"]
    return [PublicFile(**row | {"models": tuple(row["models"])}) for row in rows]


def find(model: str, source: str) -> PublicFile | None:
    """Returns the public file of a backbone from a source, None if there is none."""
    return next((row for row in load_table() if model in row.models and row.source == source), None)


def fetch(row: PublicFile, folder: Path | None = None) -> Path:
    """Downloads a file unless it is in the folder; resumes an interrupted download.

    Args:
        row: row of the table.
        folder: folder of the file; None for the user's cache folder.

    Returns:
        The path of the file, whose hash was checked.

    Raises:
        UserError: if the download fails or the file has another hash.
    """
    folder = folder or Path(pooch.os_cache("lesion"))
    with files.locked(folder / row.name, wait=True):
        return _fetch(row, folder / row.name)


def _fetch(row: PublicFile, path: Path) -> Path:
    partial = path.with_name(f"{path.name}.part")
    if path.exists() and row.matches(path):
        return path
    by_hand = f"download it elsewhere, put it at {path} and run the same command again, or name it with --input"
    try:
        resumed = partial.exists() and partial.stat().st_size > 0
        if not (resumed and row.matches(partial)):
            _download(row.address, partial)
        if resumed and not row.matches(partial):  # the server ignored the range, or the file has changed there
            partial.unlink()
            _download(row.address, partial)
    except (requests.RequestException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"cannot download {row.address} ({reason}): {by_hand}") from error
    if not row.matches(partial):
        partial.unlink()
        raise UserError(f"what {row.address} sends does not have the hash {row.hash}: {by_hand}")
    partial.replace(path)
    return path


def _download(address: str, partial: Path) -> None:
    """Appends the missing bytes to `partial`."""
    size = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={size}-"} if size else {}
    with open(partial, "ab") as file:
        pooch.HTTPDownloader(progressbar=True, headers=headers, timeout=30)(address, file, None)
