"""Runs a plan: what is finished is kept, what fails is told and does not stop the rest."""

import json
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lesion import files, models, report
from lesion.dataset import store
from lesion.errors import Interrupted, UserError
from lesion.experiments.plan import Experiment, as_recorded, identity, plan
from lesion.runs import rundir

COHORT_FILES = ("cohort.json", "cohort.png", "preprocessing.png")
PLAN = "plan.json"


def reproduce(config: ConfigDict, data_dir: Path, workdir: Path) -> Path:
    """Runs what is not finished yet, then writes the report.

    Args:
        config: of `configs/demo.py`, `configs/paper.py` or `configs/paper_small.py`.
        data_dir: what `launch/prepare` wrote.
        workdir: gets a folder for each experiment, cohort/, models.json, plan.json, config.json, report.html and,
            last, metrics.json.

    Returns:
        The report's path.

    Raises:
        UserError: if the plan cannot be run; or, after the report is written, if experiments failed.
    """
    experiments, left_out = plan(config, data_dir)
    _open(workdir, identity(config, data_dir))
    (workdir / "cohort").mkdir(exist_ok=True)
    for name in COHORT_FILES:
        shutil.copyfile(data_dir / name, workdir / "cohort" / name)
    if (data_dir / store.READERS_FILE).exists():
        shutil.copyfile(data_dir / store.READERS_FILE, workdir / store.READERS_FILE)
    files.write_json(workdir / "models.json", models.table())
    files.write_json(workdir / "baselines.json", models.baseline_table())
    files.write_json(workdir / PLAN, {"experiments": [one.name for one in experiments], "left_out": left_out})
    for name, why in left_out.items():
        print(f"{name}: {why}, left out")
    failed = []
    for number, one in enumerate(experiments, 1):
        told = _run(one, data_dir, workdir)
        print(f"{number} of {len(experiments)}, {one.name}: {told}", flush=True)
        if (workdir / one.name / rundir.FAILED).exists():
            failed.append(one.name)
    path = report.write(workdir)
    if failed:
        names = ", ".join(failed[:3]) + ", ..." * (len(failed) > 3)
        told = f"{len(failed)} of {len(experiments)} experiments failed ({names})"
        raise UserError(f"{told}: {path} says why; the same command tries them again")
    rundir.finish(workdir, {one.name: True for one in experiments})
    return path


def _open(workdir: Path, whole: dict[str, Any]) -> None:
    """Claims `workdir`; a plan that has grown or shrunk there takes the place of the one before."""
    known = as_recorded(workdir, whole)
    rundir.open_run(workdir, known)
    if known["config"] != whole["config"]:
        (workdir / rundir.METRICS).unlink(missing_ok=True)
        there = json.loads((workdir / rundir.CONFIG).read_text())
        files.write_json(workdir / rundir.CONFIG, there | {"config": whole["config"]})


def _run(one: Experiment, data_dir: Path, workdir: Path) -> str:
    """One experiment; what becomes of it, in words. A failure is left in its folder, as one line for the report."""
    folder = workdir / one.name
    (folder / rundir.FAILED).unlink(missing_ok=True)
    try:
        setup = one.kind.load(one.config, data_dir)
        if one.kind.shared:
            _link_finished(setup.run, workdir, folder)
        return "finished before, kept" if one.kind.run(one.config, setup, folder) is None else "done"
    except (Interrupted, OSError):  # to be stopped, or no disk to write on: not this experiment's fault
        raise
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc(file=sys.stderr)
        return f"FAILED: {rundir.fail(folder, error)}"


def _link_finished(run: dict[str, Any], workdir: Path, folder: Path) -> None:
    """Makes `folder` a second name of a finished run like `run` elsewhere under `workdir`, if there is one."""
    if folder.exists():
        return
    for path in sorted(workdir.rglob(rundir.METRICS)):
        found = path.parent
        if found == workdir or any(part.startswith(".") for part in found.relative_to(workdir).parts):
            continue  # the whole, or a copy that was not completed
        config = found / rundir.CONFIG
        if config.exists() and not rundir.differences(json.loads(config.read_text()), run):
            partial = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            # Files of a run are replaced, never changed: both names may share them.
            shutil.copytree(found, partial, copy_function=_link)
            partial.replace(folder)
            return


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # not on this file system
        shutil.copy2(source, target)
    return target
