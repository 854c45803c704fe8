"""How long and on what the runs of a section were trained, in words: sections of one page may differ in it."""

from collections.abc import Iterable
from typing import Any

from lesion.report import words
from lesion.report.read.files import part

_MODES = {"frozen": "frozen features", "finetune": "fine-tuned", "scratch": "trained from scratch"}


def told(runs: Iterable[Any]) -> str:
    """Mode, epochs and augmented copies of `runs`, records with a `config`, each different one once.

    Returns:
        E.g. `frozen features or fine-tuned, 20 epochs, 1 copy`; "" where no configuration says.
    """
    inners = [part(run.config, "config") for run in runs]
    modes = [_MODES.get(str(inner["mode"]), str(inner["mode"])) for inner in inners if "mode" in inner]
    epochs, copies = (sorted({int(i[key]) for i in inners if key in i}) for key in ("num_epochs", "num_copies"))
    found = [
        list(dict.fromkeys(modes)),
        [f"{n:,}" for n in epochs[:-1]] + [words.plural(n, "epoch") for n in epochs[-1:]],
        [str(n) for n in copies[:-1]] + [_copies(n) for n in copies[-1:]],
    ]
    return ", ".join(" or ".join(options) for options in found if options)


def _copies(count: int) -> str:
    return "1 copy" if count == 1 else f"{count} copies"
