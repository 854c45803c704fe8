"""What a run would do, told without doing it: nothing is written."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lesion.dataset import LABELS, UNLABELED, splits, store
from lesion.errors import UserError
from lesion.runs import rundir
from lesion.transfer.folds import Cases, cases_of, fold_masks
from lesion.transfer.fusion import FusionSetup, parts_of
from lesion.transfer.loading import Setup

Rows = list[tuple[str, str]]
Load = Callable[..., Any]  # `loading.load` or `fusion.load`
# What `load` does not look at; a field that is not known here is taken to matter.
NOT_LOADED = {"num_epochs", "batch_size", "num_copies", "checkpoint_every", "optim", "head", "data_on"}


def transfer(config: ConfigDict, setup: Setup, workdir: Path) -> str:
    """Of `loading.run_transfer`.

    Args:
        config: resolved.
        setup: of `loading.load(..., keep=False)`.
        workdir: where the run would go; need not exist.

    Raises:
        UserError: if `workdir` holds another run.
    """
    steps = [config.num_epochs * n for n in steps_an_epoch(config, setup)]
    what = f"feature transfer on {config.sequence}, {mode(config)}, {config.num_folds} folds"
    told = f"{sum(steps):,} of at most {config.batch_size} examples: {config.num_epochs} epochs a fold, "
    told += " + ".join(f"{n:,}" for n in steps) + ", fewer where patience ends" * bool(config.patience)
    if is_svm(config):
        told = "none: a support vector machine a fold"
    return render(
        [("would run", what), *about(config, setup), ("steps", told), ("into", _into(config, setup, workdir))]
    )


def fused(config: ConfigDict, setup: FusionSetup, workdir: Path) -> str:
    """Of `fusion.run_fusion`; arguments and errors as of `transfer`, of `fusion.load(..., keep=False)`."""
    patients, folds = setup.patients, setup.folds
    parts, done = fused_parts(config, setup, workdir)
    counts = ", ".join(f"{len(one.label):,} of {name}" for name, one in setup.slices.items())
    rows = [
        ("would run", f"fusion of {', '.join(setup.slices)}: {', '.join(parts)}"),
        ("dataset", f"{setup.data_dir}: {len(patients.patient)} patients; slices: {counts}{_phantom(setup)}"),
        ("folds", f"{folds.num_folds}, patients kept together; split {folds.hash[:12]}, seed {config.seed}"),
        *((name, weights(record)) for name, record in setup.weights.items()),
        ("devices", _devices()),
        ("into", f"{workdir}: {len(done)} of {len(parts)} parts are finished {', '.join(done)}".rstrip()),
    ]
    return render(rows)


def fused_parts(config: ConfigDict, setup: FusionSetup, workdir: Path) -> tuple[list[str], list[str]]:
    """What fusion runs, and what of it is finished; a `UserError` if a folder holds another run."""
    label = setup.patients.label
    parts = [part.name for part in parts_of(config, setup, Cases(label, label, label), workdir)]
    return parts, [name for name in parts if rundir.is_finished(workdir / name, setup.run | {"part": name})]


def is_svm(config: ConfigDict) -> bool:
    """Whether there are no steps: a support vector machine is fitted at once."""
    return "svm" in config and config.mode == "frozen"


def mode(config: ConfigDict) -> str:
    """Which network is trained how."""
    start = f" from {config.finetune_from} on" if config.finetune_from else ""
    how = {"frozen": "frozen", "finetune": f"fine-tuned{start}", "scratch": "trained from random weights"}
    return f"{config.backbone} {how[config.mode]}"


def about(config: ConfigDict, setup: Setup) -> Rows:
    """Dataset, folds, weights, devices."""
    slices = setup.slices
    counts = [f"{_patients(setup, slices.label == value)} {name}" for name, value in LABELS.items()]
    if (hidden := slices.label == UNLABELED).any():
        counts.append(f"{_patients(setup, hidden)} without label")
    rows = [("dataset", f"{setup.data_dir}: {len(slices.label):,} slices of {config.sequence}{_phantom(setup)}")]
    rows.append(("slices", "; ".join(counts)))
    if setup.folds.num_folds:
        kept = {"patient": "patients kept together", "leaky": "LEAKY: slices of a patient on both sides"}[config.split]
        sizes = ", ".join(str(n) for n in fold_masks(config, setup.folds, cases_of(slices))[1].sum(axis=1))
        rows.append(("folds", f"{kept}; test slices {sizes}; split {setup.folds.hash[:12]}, seed {config.seed}"))
    return [*rows, ("weights", weights(setup.run["weights"])), ("devices", _devices())]


def _phantom(setup: Setup | FusionSetup) -> str:
    return ", PHANTOM patients" if store.load_info(setup.data_dir)["phantom"] else ""


def _devices() -> str:
    kinds = sorted({device.device_kind for device in jax.devices()})
    return f"{jax.device_count()} × {' and '.join(kinds)}"


def _patients(setup: Setup, which: np.ndarray) -> str:
    return f"{int(which.sum()):,} slices of {len(np.unique(setup.slices.patient[which]))} patients with"


def weights(record: dict[str, Any]) -> str:
    """Where a backbone's weights come from."""
    if not record["pretrained"]:
        return f"RANDOM, seed {record['seed']}: --config.weights names no folder"
    return f"{record['model']}, {record['source']}'s {record['file']}, sha256 {record['sha256'][:12]}"


def steps_an_epoch(config: ConfigDict, setup: Setup) -> list[int]:
    """Of each fold."""
    slices, found = setup.slices, []
    for train in fold_masks(config, setup.folds, cases_of(slices))[0]:
        if config.patience:
            train = train & ~splits.hold_out(slices.patient, slices.label, train, config.validation, config.seed)
        found.append(-(-int(train.sum()) * (1 + config.num_copies) // config.batch_size))
    return found


def _into(config: ConfigDict, setup: Setup, workdir: Path) -> str:
    if rundir.is_finished(workdir, setup.run):
        return f"{workdir}: finished already, nothing would be done"
    folds = [k for k in range(config.num_folds) if (workdir / "checkpoints" / f"fold_{k}").exists()]
    begun = [k for k in range(config.num_folds) if (workdir / "checkpoints" / f"fold_{k}_training").exists()]
    told = f"; fold {begun[0] + 1} is begun" if begun else ""
    return f"{workdir}: {place(workdir)}{len(folds)} of {config.num_folds} folds are finished{told}"


def place(workdir: Path) -> str:
    """Whether there is anything yet."""
    return "" if (workdir / rundir.CONFIG).exists() else "new, "


def render(rows: Rows, lines: Iterable[str] = ()) -> str:
    """Two columns, then lines."""
    width = max(len(left) for left, _ in rows) + 2
    return "\n".join(["dry run: nothing is written", *(left.ljust(width) + right for left, right in rows), *lines])


def load_all(wanted: Iterable[tuple[Load, ConfigDict]], data_dir: Path) -> Iterator[Any]:
    """What each loads for its config, or the `UserError`; writes nothing, and reads once what several share."""
    known: dict[str, Any] = {}
    for load, config in wanted:
        fields = json.loads(config.to_json())
        same = {name: value for name, value in fields.items() if name not in NOT_LOADED}
        key = json.dumps([load.__module__, same], sort_keys=True)
        if key not in known:
            try:
                known[key] = load(config, data_dir, keep=False)
            except UserError as error:
                known[key] = error
        found = known[key]
        yield found if isinstance(found, UserError) else found._replace(run=found.run | {"config": fields})
