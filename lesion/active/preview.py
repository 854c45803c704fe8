"""What active labelling would do, told without doing it: nothing is written."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from lesion.active import doctor, experiment
from lesion.dataset import UNLABELED
from lesion.runs import rundir
from lesion.transfer.loading import Setup
from lesion.transfer.preview import about, mode, place, render
from lesion.worklist import round_file as asked


def active(config: ConfigDict, setup: Setup, workdir: Path) -> str:
    """Of `experiment.run_active`.

    Args:
        config: resolved.
        setup: of `loading.load(..., keep=False)`.
        workdir: where the run would go; need not exist.

    Raises:
        UserError: if it cannot be run on this dataset, or `workdir` holds another run.
    """
    experiment.check(config, setup)
    names = ", ".join(config.strategies)
    runs = config.num_folds * config.num_repeats * len(config.strategies)
    what = f"active labelling on {config.sequence}, {mode(config)}: {names}"
    told = f"{runs:,} ({config.num_folds} folds, {config.num_repeats} repeats, {len(config.strategies)} strategies) of "
    told += f"{config.num_rounds} rounds, {config.num_epochs} epochs each; and {config.num_folds} with all labels"
    rows = [("would run", what), *about(config, setup), ("runs", told), ("steps", _steps(config, setup))]
    if rundir.is_finished(workdir, setup.run):
        return render([*rows, ("into", f"{workdir}: finished already, nothing would be done")])
    kept = len(list((workdir / "rounds").rglob("*.npz")))  # of programs side by side, one file
    return render([*rows, ("into", f"{workdir}: {place(workdir)}{kept} results of runs are kept there")])


def _steps(config: ConfigDict, setup: Setup) -> str:
    """A set of whole patients is a little larger than `initial_labeled`, so that it is about."""
    pool = setup.folds.masks(setup.slices.patient, setup.slices.label)[0].sum(axis=1)
    labeled = config.initial_labeled + config.num_acquire * np.arange(config.num_rounds)
    copies, size = 1 + config.num_copies, config.batch_size
    asking = sum(int((-(-np.minimum(labeled, n) * copies // size)).sum()) for n in pool)
    full = config.num_rounds * int((-(-pool * copies // size)).sum())
    total = config.num_epochs * (asking * config.num_repeats * len(config.strategies) + full)
    return f"about {total:,} of at most {size} examples"


def with_doctor(config: ConfigDict, setup: Setup, workdir: Path) -> str:
    """Of `doctor.run_doctor`; arguments and errors as of `active`."""
    doctor.check(config, setup.slices)
    hidden = int((setup.slices.label == UNLABELED).sum())
    what = f"active labelling of {config.sequence} with a doctor, {mode(config)}, by {config.strategies[0]}"
    told = f"{config.num_acquire} of {hidden:,} slices a round, at most {config.num_rounds} rounds"
    rows = [("would run", what), *about(config, setup), ("asks for", told)]
    if rundir.is_finished(workdir, setup.run):
        return render([*rows, ("into", f"{workdir}: finished already, nothing would be done")])
    numbers = asked.numbers(workdir)
    waits = ""
    if numbers:
        this = asked.read(asked.folder_of(workdir, numbers[-1]))
        waits = f", {asked.num_open(workdir, this)} of {len(this.items)} slices of the last to answer"
    return render([*rows, ("into", f"{workdir}: {place(workdir)}{len(numbers)} rounds asked so far{waits}")])
