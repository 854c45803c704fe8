"""What a plan would do, told without doing it: nothing is written."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lesion.active.experiment import check
from lesion.errors import UserError
from lesion.experiments.plan import ACTIVE, FUSION, Experiment, as_recorded, identity, plan
from lesion.runs import rundir
from lesion.transfer import preview
from lesion.transfer.loading import Setup

FAILS = "WOULD FAIL: "


def dry_run(config: ConfigDict, data_dir: Path, workdir: Path) -> None:
    """Prints of every experiment of a plan whether it would run; arguments as of `reproduce`.

    Raises:
        UserError: if the plan cannot be run or `workdir` holds another one; after printing, if experiments would fail.
    """
    experiments, left_out = plan(config, data_dir)
    loaded = preview.load_all([(one.kind.load, one.config) for one in experiments if one.kind.shared], data_dir)
    found = [next(loaded) if one.kind.shared else None for one in experiments]
    rows: preview.Rows = [("would run", f"{len(experiments)} experiments, see below; these are of the first")]
    rundir.is_finished(workdir, as_recorded(workdir, identity(config, data_dir, keep=False)))
    if isinstance(found[0], Setup):
        rows += preview.about(experiments[0].config, found[0])
    seen: dict[str, str] = {}
    told = [(one.name, _told(one, setup, workdir, seen)) for one, setup in zip(experiments, found, strict=True)]
    lines = [f"{name}: {text}" for name, text in [*told, *((n, f"left out, {why}") for n, why in left_out.items())]]
    print(preview.render([*rows, ("into", f"{workdir}, with a report of all")], ["", *lines]))
    failing = [name for name, text in told if text.startswith(FAILS)]
    if failing:
        names = ", ".join(failing[:3]) + ", ..." * (len(failing) > 3)
        raise UserError(f"{len(failing)} of {len(experiments)} experiments would fail ({names}): see above")


def _told(one: Experiment, setup: Any, workdir: Path, seen: dict[str, str]) -> str:
    """State, slices, network, how much; `seen` are the runs told so far, by what makes them the same."""
    if isinstance(setup, UserError):
        return f"{FAILS}{setup}"
    if setup is None:
        done = (workdir / one.name / rundir.METRICS).exists()
        return "finished already" if done else f"of transfer{one.name[one.name.index('/') :]}, after it"
    try:
        if one.kind is FUSION:
            parts, finished = preview.fused_parts(one.config, setup, workdir / one.name)
            of = f"{len(setup.patients.patient)} patients, {', '.join(setup.slices)}"
            return f"{len(finished)} of {len(parts)} parts are finished: {of}"
        if one.kind is ACTIVE:
            check(one.config, setup)
        if rundir.is_finished(workdir / one.name, setup.run):
            return "finished already"
    except UserError as error:
        return f"{FAILS}{error}"
    same = seen.setdefault(json.dumps(setup.run, sort_keys=True), one.name)
    if same != one.name:
        return f"the same run as {same}"
    state = "goes on" if (workdir / one.name / rundir.CONFIG).exists() else "new"
    many = f"{one.config.num_epochs * sum(preview.steps_an_epoch(one.config, setup)):,} steps"
    if preview.is_svm(one.config):
        many = "a support vector machine a fold"
    if one.kind is ACTIVE:
        many = f"{one.config.num_rounds} rounds of {', '.join(one.config.strategies)}"
    network = preview.mode(one.config) + ("" if setup.run["weights"]["pretrained"] else ", RANDOM weights")
    return f"{state}: {len(setup.slices.label):,} slices of {one.config.sequence}, {network}, {many}"
