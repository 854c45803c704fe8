"""Everything one report needs, run or resumed in one folder."""

import shutil
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from lesion import report
from lesion.active.experiment import run_active
from lesion.data import cohort
from lesion.train import rundir
from lesion.train.loop import check_config, cohort_folds, load_weights, run_transfer

PLAN_ONLY = ("transfer_sequences", "active")
COHORT_FILES = ("cohort.json", "cohort.png", "preprocessing.png")


def experiment_config(config: ConfigDict, sequence: str, extra: ConfigDict | None = None) -> ConfigDict:
    """The config of one experiment of the plan: the shared fields, the sequence, and `extra` over them."""
    fields = {k: v for k, v in config.items() if k not in PLAN_ONLY}
    fields |= {k: v for k, v in (extra or {}).items() if k != "sequences"}
    return ConfigDict(fields | {"sequence": sequence}).lock()


def _claim(config: ConfigDict, data_dir: Path, workdir: Path) -> None:
    """Writes config.json of the whole and brings the cohort's sheets along."""
    check_config(config)
    info = cohort.load_info(data_dir)
    folds = cohort_folds(data_dir, config.num_folds, config.seed)
    weights = load_weights(config)[1]
    rundir.open_run(workdir, rundir.identity(config, info, folds.hash, weights, jax.devices()[0].device_kind))
    (workdir / "cohort").mkdir(exist_ok=True)
    for name in COHORT_FILES:
        shutil.copyfile(data_dir / name, workdir / "cohort" / name)


def reproduce(config: ConfigDict, data_dir: Path, workdir: Path) -> Path:
    """Runs what is not finished yet, then writes the report.

    Args:
        config: of `configs/demo.py`.
        data_dir: what `launch/prepare` wrote.
        workdir: gets transfer/SEQUENCE/, active/SEQUENCE/, cohort/, config.json and report.html.

    Returns:
        The report's path.
    """
    _claim(config, data_dir, workdir)
    done: dict[str, Any] = {}
    for sequence in config.transfer_sequences:
        name = f"transfer/{sequence}"
        done[name] = run_transfer(experiment_config(config, sequence), data_dir, workdir / name)
    for sequence in config.active.sequences:
        name = f"active/{sequence}"
        done[name] = run_active(experiment_config(config, sequence, config.active), data_dir, workdir / name)
    for name, result in done.items():
        if result is None:
            print(f"{name}: finished before, kept")
    rundir.finish(workdir, {name: True for name in done})
    return report.write(workdir)
