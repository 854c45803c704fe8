"""Describes how the runs of a section were trained; sections of one page may differ in this."""

from collections.abc import Iterable

from lesion.report import words
from lesion.report.records import Experiment

_MODES = {"frozen": "frozen features", "finetune": "fine-tuned", "scratch": "trained from scratch"}


def describe(runs: Iterable[Experiment]) -> str:
    """Returns the distinct modes, numbers of epochs and numbers of augmented copies of `runs`, in words.

    Returns:
        E.g. `frozen features or fine-tuned, 20 epochs, 1 copy`; "" if no configuration names any.
    """
    fields = [run.fields for run in runs]
    modes = dict.fromkeys(str(own["mode"]) for own in fields if "mode" in own)
    epochs, copies = (sorted({int(own[key]) for own in fields if key in own}) for key in ("num_epochs", "num_copies"))
    options = [
        [_MODES.get(mode, mode) for mode in modes],
        [f"{number:,}" for number in epochs[:-1]] + [words.plural(number, "epoch") for number in epochs[-1:]],
        [str(number) for number in copies[:-1]] + ["1 copy" if n == 1 else f"{n} copies" for n in copies[-1:]],
    ]
    return ", ".join(" or ".join(texts) for texts in options if texts)
