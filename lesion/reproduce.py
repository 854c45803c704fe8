"""Everything one report needs, run or resumed in one folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lesion import models, report
from lesion.active.experiment import check, run_active
from lesion.train import checkpoint, rundir
from lesion.train.loop import Setup, load, run_transfer

PLAN_ONLY = ("transfer_sequences", "active")
COHORT_FILES = ("cohort.json", "cohort.png", "preprocessing.png")


def experiment_config(config: ConfigDict, sequence: str, extra: ConfigDict | None = None) -> ConfigDict:
    """The config of one experiment of the plan: the shared fields, the sequence, and `extra` over them."""
    fields = {k: v for k, v in config.items() if k not in PLAN_ONLY}
    fields |= {k: v for k, v in (extra or {}).items() if k != "sequences"}
    return ConfigDict(fields | {"sequence": sequence}).lock()


class Experiment(NamedTuple):
    """One experiment of a plan: its folder's name, its config, what it starts from, and how to run it."""

    name: str
    config: ConfigDict
    setup: Setup
    run: Callable[[ConfigDict, Setup, Path], dict[str, Any] | None]


def plan(config: ConfigDict, data_dir: Path) -> list[Experiment]:
    """Everything `config` asks for, loaded and checked before anything is written.

    Raises:
        UserError: if any of it cannot be run on this dataset.
    """
    experiments = []
    for sequence in config.transfer_sequences:
        one = experiment_config(config, sequence)
        experiments.append(Experiment(f"transfer/{sequence}", one, load(one, data_dir), run_transfer))
    for sequence in config.active.sequences:
        one = experiment_config(config, sequence, config.active)
        experiments.append(Experiment(f"active/{sequence}", one, load(one, data_dir), run_active))
        check(one, experiments[-1].setup)
    return experiments


def reproduce(config: ConfigDict, data_dir: Path, workdir: Path) -> Path:
    """Runs what is not finished yet, then writes the report.

    Args:
        config: of `configs/demo.py`.
        data_dir: what `launch/prepare` wrote.
        workdir: gets transfer/SEQUENCE/, active/SEQUENCE/, cohort/, models.json, config.json and report.html.

    Returns:
        The report's path.
    """
    experiments = plan(config, data_dir)
    whole = load(experiment_config(config, config.sequence), data_dir).run
    rundir.open_run(workdir, whole | {"config": json.loads(config.to_json())})
    (workdir / "cohort").mkdir(exist_ok=True)
    for name in COHORT_FILES:
        shutil.copyfile(data_dir / name, workdir / "cohort" / name)
    checkpoint.write_json(workdir / "models.json", models.table())
    for name, one, setup, run in experiments:
        if run(one, setup, workdir / name) is None:
            print(f"{name}: finished before, kept")
    rundir.finish(workdir, {name: True for name, *_ in experiments})
    return report.write(workdir)
