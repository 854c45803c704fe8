"""Runs a plan and writes its report: finished experiments are kept, failed ones reported without stopping the rest."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lesion import files, models, report
from lesion.dataset import store
from lesion.errors import UserError
from lesion.experiments.board import FAILED
from lesion.experiments.executors import Executor
from lesion.experiments.plan import as_recorded, identity, plan
from lesion.experiments.preview import preview_all
from lesion.experiments.runner import run_all
from lesion.runs import rundir

COHORT_FILES = ("cohort.json", "cohort.png", "preprocessing.png")
PLAN = "plan.json"


def reproduce(config: ConfigDict, data_dir: Path, workdir: Path, make_executor: Callable[[Path], Executor]) -> Path:
    """Runs what is not finished yet, then writes the report.

    Args:
        config: a plan, as of `configs/demo.py`, `configs/paper.py` or `configs/paper_small.py`.
        data_dir: dataset folder written by launch.prepare.
        workdir: gets a folder per experiment, cohort/, models.json, baselines.json, plan.json, config.json, report.html
            and, last, metrics.json.
        make_executor: see `runner.run_all`.

    Returns:
        Path of the report.

    Raises:
        UserError: if the plan cannot be run; or, after the report is written, if experiments failed.
    """
    experiments, left_out = plan(config, data_dir)
    _open(workdir, identity(config, data_dir))
    (workdir / "cohort").mkdir(exist_ok=True)
    for name in COHORT_FILES:
        shutil.copyfile(data_dir / name, workdir / "cohort" / name)
    store.copy_readers(data_dir, workdir)
    files.write_json(workdir / "models.json", models.table())
    files.write_json(workdir / "baselines.json", models.baseline_table())
    files.write_json(workdir / PLAN, {"experiments": [e.name for e in experiments], "left_out": left_out})
    for name, why in left_out.items():
        print(f"{name}: {why}, left out")
    rows = run_all(experiments, data_dir, workdir, make_executor)
    path = report.write(workdir)
    failed = [row.name for row in rows if row.state == FAILED]
    if failed:
        count = f"{len(failed)} of {len(experiments)} experiments failed ({_first(failed)})"
        raise UserError(f"{count}: {path} says why; the same command tries them again")
    rundir.finish(workdir, {e.name: True for e in experiments})
    return path


def _open(workdir: Path, whole: dict[str, Any]) -> None:
    """Opens `workdir` as a run of the plan; a plan that has grown or shrunk replaces the recorded one."""
    recorded = as_recorded(workdir, whole)
    rundir.open_run(workdir, recorded)
    if recorded["config"] != whole["config"]:
        (workdir / rundir.METRICS).unlink(missing_ok=True)
        record = files.read_json(workdir / rundir.CONFIG)
        files.write_json(workdir / rundir.CONFIG, record | {"config": whole["config"]})


def dry_run(config: ConfigDict, data_dir: Path, workdir: Path) -> None:
    """Prints for every experiment of a plan whether it would run; takes the arguments of `reproduce`.

    Raises:
        UserError: if the plan cannot be run or `workdir` holds another one; after printing, if experiments would fail.
    """
    experiments, left_out = plan(config, data_dir)
    rundir.is_finished(workdir, as_recorded(workdir, identity(config, data_dir, keep=False)))
    title = f"{len(experiments)} experiments and a report of all; dataset and weights are of the first"
    text, failing = preview_all(title, experiments, data_dir, workdir)
    print("\n".join([text, *(f"{name}: left out, {why}" for name, why in left_out.items())]))
    if failing:
        raise UserError(f"{len(failing)} of {len(experiments)} experiments would fail ({_first(failing)}): see above")


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)
