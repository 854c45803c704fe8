"""Algorithm 1 with a doctor as the oracle: questions, answers from launch.annotate, a fit, the next questions."""

import functools
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from lesion import files, worklist
from lesion.active import curves, driver, experiment, lanes, rounds
from lesion.active.driver import PoolState
from lesion.active.program import RoundInfo, Run, asker
from lesion.dataset import LABELS, UNLABELED, Slices, store
from lesion.errors import UserError
from lesion.metrics import stopping
from lesion.runs import checkpoint, resume, rundir
from lesion.transfer import methods
from lesion.transfer.loading import Setup
from lesion.worklist import csv_file
from lesion.worklist import round_file as asked

ROUNDS = ("round", "labeled_slices", "labeled_patients", "pseudo_slices", "max_entropy", "mean_entropy", "p95_entropy")
PREDICTIONS = ("patient", "slice", "label", "said_by", "probability")
MODEL = "checkpoints/model"


def run_doctor(config: ConfigDict, setup: Setup, workdir: Path) -> str:
    """Goes on as far as the answers reach.

    Args:
        config: of `configs/doctor.py`.
        setup: of `loading.load` without folds; slices whose label is -1 are those to ask for.
        workdir: gets config.json, annotate/, rounds.csv, acquisitions.csv (what each round asked for, the last perhaps
            in vain), predictions.csv and, last, the model and metrics.json.

    Returns:
        What was done, and what to do now.

    Raises:
        UserError: if the round that waits is not complete.
    """
    check(config, setup.slices)
    if rundir.open_run(workdir, setup.run):
        shutil.rmtree(workdir / "rounds", ignore_errors=True)
        return f"{workdir}: the labelling is finished"
    slices, before = setup.slices, _waiting(workdir)
    reveal = functools.partial(_reveal, config, setup, workdir)
    with resume.heed_sigterm() as bell:
        plan, run = _plan(config, setup, bell, reveal)
        try:
            info, state = rounds.run_rounds(plan, run, f"doctor {config.sequence}", workdir / "rounds")
        except rounds.WaitingError as error:
            if before == _waiting(workdir):
                raise UserError(f"{error}; {_how(workdir)}") from error
            return f"{error}; {_how(workdir)}"
    done = [RoundInfo(*(x[i] for x in info)) for i in range(len(info.probs))]
    _write_tables(slices, workdir, done)
    variables = {"params": state.params} | ({"batch_stats": state.batch_stats} if state.batch_stats else {})
    provenance = {"backbone": setup.run["weights"]["sha256"], "config": setup.run["config"]}
    checkpoint.save_variables(workdir / MODEL, jax.tree.map(np.asarray, variables), provenance)
    counts = {name: int(getattr(done[-1], name)) for name in ROUNDS[1:4]}
    skipped = sum(label == worklist.SKIP for label in _said(workdir, len(done)).values())
    stopped = sorted(_stopped(config, done)) or ["rounds"]
    rundir.finish(workdir, {"rounds": len(done), "stopped_by": stopped, "skipped_slices": skipped} | counts)
    shutil.rmtree(workdir / "rounds", ignore_errors=True)
    told = f"stopped by {' and '.join(stopped)} after {len(done)} rounds, {counts['labeled_slices']} labelled slices"
    return f"{told}: {workdir}/predictions.csv, the model in {workdir}/{MODEL}"


def check(config: ConfigDict, slices: Slices) -> None:
    """Raises a one-line `UserError` for a value that cannot be run on this dataset."""
    experiment.check_asking(config)
    if len(config.strategies) != 1:
        raise UserError("a doctor answers one strategy: --config.strategies=\"('entropy',)\"")
    if jax.process_count() > 1:
        raise UserError("with a doctor, launch.active runs on one machine")
    hidden = int((slices.label == UNLABELED).sum())
    if hidden < config.num_acquire:
        raise UserError(
            f"{hidden} slices of {config.sequence} have no label, fewer than a round of {config.num_acquire}: "
            "empty labels in patients.csv and run launch.prepare again, or lower --config.num_acquire"
        )


def _waiting(workdir: Path) -> int:
    """Rounds asked so far."""
    return len(asked.numbers(workdir))


def _how(workdir: Path) -> str:
    folder = asked.folder_of(workdir, asked.numbers(workdir)[-1])
    return (
        f"read them by python -m launch.annotate --workdir={workdir}, or fill in {folder / csv_file.FILE}, "
        "then run the same command again"
    )


def _plan(config: ConfigDict, setup: Setup, bell: resume.Bell, reveal: rounds.Reveal) -> tuple[rounds.Plan, Run]:
    slices, group = setup.slices, tuple(config.strategies)
    built = setup.data_dir, slices, setup.variables, setup.run["weights"]["sha256"]
    known = slices.label != UNLABELED
    patient = np.unique(slices.patient, return_inverse=True)[1].astype(np.int32)
    largest = int(np.bincount(patient[~known]).max(initial=0)) if config.unit == "patient" else 0
    asking = driver.Asking(config.num_acquire, config.unit, config.aggregate, config.max_per_patient, largest)
    samples = {"num_samples": config.dropout_samples}
    if config.mode == "frozen":
        model = rounds.of_learner(*methods.frozen_learner(config, *built, **samples))
    else:
        model = rounds.of_engine(methods.finetune_engine(config, *built, **samples), bell, config.checkpoint_every)
    ask = lanes.compiled(asker(group, asking))

    def over(done: Sequence[RoundInfo]) -> bool:
        return bool(_stopped(config, done))

    plan = rounds.Plan(model, group, config.num_rounds, ask, reveal, jnp.asarray(patient), bell, known, over)
    initial = jnp.int32(max(config.initial_labeled - int(known.sum()), 0))
    return plan, Run(jax.random.key(config.seed), jnp.ones(len(known), bool), initial, jnp.int32(0))


def _stopped(config: ConfigDict, done: Sequence[RoundInfo]) -> dict[str, int]:
    """The rules that say to stop."""
    if not done:
        return {}
    info = RoundInfo(*(np.stack(column) for column in zip(*done, strict=True)))
    return stopping.stops(
        curves.trace(info, np.ones(info.probs.shape[1], bool), config.entropy_statistic), curves.limits(config)
    )


def _said(workdir: Path, num_rounds: int) -> dict[str, str]:
    """What the first rounds were closed with, by slice id; a round may have had nothing to ask."""
    found = (asked.closed(workdir, number) or {} for number in range(num_rounds))
    return {slice_: label for answers in found for slice_, label in answers.items()}


def _reveal(
    config: ConfigDict, setup: Setup, workdir: Path, pool: PoolState, done: Sequence[RoundInfo], told: np.ndarray
) -> tuple[PoolState, np.ndarray]:
    """The answers for all that is asked; what was skipped leaves the pool. See `rounds.Reveal`."""
    slices, index = setup.slices, len(done)
    before = _said(workdir, index)
    label, _ = _labels(slices, before)
    if done and (label != told).any():
        raise UserError(
            f"{workdir}: answers that were trained on have been changed: undo that, or name a new --workdir"
        )
    open_ = np.asarray(pool.labeled) & (slices.label == UNLABELED) & ~np.isin(slices.slice_id, list(before))
    if open_.any():
        _ask(config, setup, workdir, np.flatnonzero(open_), done)
    label, skipped = _labels(slices, _said(workdir, index + 1))
    return pool._replace(labeled=pool.labeled & ~skipped, askable=pool.askable & ~skipped), label


def _labels(slices: Slices, said: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 [N], the dataset's and those said, and which slices were skipped, bool [N]."""
    answers = np.array([said.get(slice_, "") for slice_ in slices.slice_id])
    known = slices.label != UNLABELED
    label = np.select([known, *(answers == name for name in LABELS)], [slices.label, *LABELS.values()], UNLABELED)
    return label.astype(np.int32), answers == worklist.SKIP


def _ask(config: ConfigDict, setup: Setup, workdir: Path, which: np.ndarray, done: Sequence[RoundInfo]) -> None:
    """Returns when the slices `which`, indices, are answered in this round, and closes it.

    Raises:
        WaitingError: if some are not.
    """
    index = len(done)
    path = asked.folder_of(workdir, index)
    if not path.exists():
        _write_tables(setup.slices, workdir, done)
        (workdir / worklist.FOLDER).mkdir(exist_ok=True)
        rank = {int(i): r for r, i in enumerate(done[-1].indices)} if done else {}
        ordered = sorted(which.tolist(), key=lambda i: (rank.get(i, 0), setup.slices.patient[i]))
        asked.write(workdir, _round(config, setup, workdir, index, ordered))
    this = asked.read(path)
    if {item.slice for item in this.items} != set(setup.slices.slice_id[which]):
        raise UserError(f"{path} asks for other slices than this run: name another --workdir")
    filled = path / csv_file.FILE
    if filled.exists() and asked.closed(workdir, index) is None:
        asked.take(workdir, this, filled)
    if asked.close(workdir, this) is None:
        left = f"{asked.num_open(workdir, this)} of {len(this.items)} slices to answer"
        raise rounds.WaitingError(f"round {index + 1} waits for the doctor: {left}")


def _round(config: ConfigDict, setup: Setup, workdir: Path, index: int, which: list[int]) -> asked.Round:
    """What is asked: patients by their most informative slice, of each in anatomical order."""
    slices = setup.slices
    patients = list(dict.fromkeys(slices.patient[i] for i in which))
    info = store.load_info(setup.data_dir)
    every = {name: store.load_slices(setup.data_dir, name) for name, counts in info["sequences"].items() if counts}
    stacks = [
        {name: _stack(workdir, name, some, np.flatnonzero(some.patient == patient)) for name, some in every.items()}
        for patient in patients
    ]
    places = {
        shown.picture: (number, place)
        for number, stack in enumerate(stacks)
        for place, shown in enumerate(stack[config.sequence])
    }
    items = sorted((*places[_name(config.sequence, slices, i)], slices.slice_id[i]) for i in which)
    command = json.loads((workdir / rundir.CONFIG).read_text())["command"]
    return asked.Round(
        index,
        config.sequence,
        info["phantom"],
        command,
        [str(p) for p in patients],
        stacks,
        [asked.Item(str(slice_), number, place) for number, place, slice_ in items],
    )


def _name(sequence: str, slices: Slices, i: int) -> str:
    return f"{sequence}_{slices.slice_id[i]}.png"


def _stack(workdir: Path, sequence: str, slices: Slices, which: np.ndarray) -> list[asked.Shown]:
    """The patient's pictures, from below."""
    shown = []
    for i in sorted(which, key=lambda i: (slices.position_mm[i], slices.slice_id[i])):
        stream, position = io.BytesIO(), float(slices.position_mm[i])
        Image.fromarray(slices.image[i]).save(stream, "PNG")
        asked.save_picture(workdir, _name(sequence, slices, i), stream.getvalue())
        shown.append(asked.Shown(_name(sequence, slices, i), round(position, 1) if np.isfinite(position) else None))
    return shown


def _write_tables(slices: Slices, workdir: Path, done: Sequence[RoundInfo]) -> None:
    """How the rounds went, what was asked, what is labelled by whom, and what the last model says of every slice."""
    if not done:
        return
    rows = ((r, *(getattr(one, name).item() for name in ROUNDS[1:])) for r, one in enumerate(done))
    files.write_csv(workdir / "rounds.csv", ROUNDS, rows)
    rows = (
        (r, rank, str(slices.patient[i]), str(slices.slice_id[i]), float(value))
        for r, one in enumerate(done)
        for rank, (i, value) in enumerate(zip(one.indices, one.scores, strict=True))
        if value > -np.inf
    )
    files.write_csv(workdir / "acquisitions.csv", curves.ACQUISITIONS[3:], rows)
    said, names = _said(workdir, len(done)), {number: name for name, number in LABELS.items()}
    doctor = ((said.get(s, ""), "doctor" if s in said else "") for s in slices.slice_id)
    tables = ((names[n], "table") if n != UNLABELED else None for n in slices.label.tolist())
    labels = (table or answer for table, answer in zip(tables, doctor, strict=True))
    ids = zip(slices.patient, slices.slice_id, labels, done[-1].probs.tolist(), strict=True)
    files.write_csv(workdir / "predictions.csv", PREDICTIONS, ((p, s, *how, prob) for p, s, how, prob in ids))
