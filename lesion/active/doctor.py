"""Algorithm 1 with a doctor as the oracle: queries slices, reads the answers of launch.annotate, fits, queries on."""

import functools
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from lesion import files, worklist
from lesion.active import curves, parallel, rounds
from lesion.active.driver import PoolState
from lesion.active.experiment import check_active, query_config
from lesion.active.program import RoundInfo, Run, make_query
from lesion.dataset import UNLABELED, Slices, store
from lesion.errors import UserError
from lesion.metrics import stopping
from lesion.runs import checkpoint, rundir
from lesion.runs.processes import StopSignal, handle_sigterm
from lesion.transfer import methods
from lesion.transfer.loading import Setup
from lesion.worklist import csv_file, round_file

ROUNDS = ("round", "labeled_slices", "labeled_patients", "pseudo_slices", "max_entropy", "mean_entropy", "p95_entropy")
PREDICTIONS = ("patient", "slice", "label", "said_by", "probability")
MODEL = "checkpoints/model"


def run_doctor(config: ConfigDict, setup: Setup, workdir: Path) -> str:
    """Runs rounds until answers are missing or the labelling is over.

    Args:
        config: configuration, as of `configs/doctor.py`.
        setup: from `loading.load` without folds; slices with label -1 are those to ask about.
        workdir: folder of the run; gets config.json, annotate/, rounds.csv, acquisitions.csv (the slices that each
            round queried, with or without answers), predictions.csv and, last, the model and metrics.json.

    Returns:
        A message: what was done, and the next step.

    Raises:
        UserError: if `config` cannot be run, or a round queried by an earlier call still lacks answers.
    """
    check_doctor(config)
    check_unlabeled(config, setup)
    if rundir.open_run(workdir, setup.run):
        shutil.rmtree(workdir / "rounds", ignore_errors=True)
        return f"{workdir}: the labelling is finished"
    num_queried = len(round_file.numbers(workdir))
    with handle_sigterm() as stop:
        spec, run = _spec(config, setup, workdir, stop)
        try:
            info, state = rounds.run_rounds(spec, run, f"doctor {config.sequence}", workdir / "rounds")
        except rounds.WaitingError as error:
            if num_queried == len(round_file.numbers(workdir)):
                raise UserError(f"{error}; {_how_to_answer(workdir)}") from error
            return f"{error}; {_how_to_answer(workdir)}"
    done = [RoundInfo(*(x[i] for x in info)) for i in range(len(info.probs))]
    _write_tables(setup, workdir, done)
    variables = {"params": state.params} | ({"batch_stats": state.batch_stats} if state.batch_stats else {})
    provenance = {"backbone": setup.weights_sha256, "config": setup.run["config"]}
    checkpoint.save_variables(workdir / MODEL, jax.tree.map(np.asarray, variables), provenance)
    counts = {name: int(getattr(done[-1], name)) for name in ROUNDS[1:4]}
    skipped = sum(label == worklist.SKIP for label in _closed_answers(workdir, len(done)).values())
    stopped = sorted(_stopped(config, done)) or ["rounds"]
    rundir.finish(workdir, {"rounds": len(done), "stopped_by": stopped, "skipped_slices": skipped} | counts)
    shutil.rmtree(workdir / "rounds", ignore_errors=True)
    outcome = f"stopped by {' and '.join(stopped)} after {len(done)} rounds, {counts['labeled_slices']} labelled slices"
    return f"{outcome}: {workdir}/predictions.csv, the model in {workdir}/{MODEL}"


def check_doctor(config: ConfigDict) -> None:
    """Raises a one-line `UserError` for a value that cannot be run on any dataset."""
    check_active(config)
    if len(config.strategies) != 1:
        raise UserError("a doctor answers one strategy: --config.strategies=entropy")
    if jax.process_count() > 1:
        raise UserError("with a doctor, launch.active runs on one machine")


def check_unlabeled(config: ConfigDict, setup: Setup) -> None:
    """Raises a one-line `UserError` where fewer slices lack a label than a round queries."""
    hidden = int((setup.slices.label == UNLABELED).sum())
    if hidden < config.num_acquire:
        raise UserError(
            f"{hidden} slices of {config.sequence} have no label, fewer than a round of {config.num_acquire}: "
            "empty labels in patients.csv and run launch.prepare again, or lower --config.num_acquire"
        )


def _how_to_answer(workdir: Path) -> str:
    folder = round_file.folder_of(workdir, round_file.numbers(workdir)[-1])
    return (
        f"read them by python -m launch.annotate --workdir={workdir}, or fill in {folder / csv_file.FILE}, "
        "then run the same command again"
    )


def _spec(config: ConfigDict, setup: Setup, workdir: Path, stop: StopSignal) -> tuple[rounds.RoundsSpec, Run]:
    slices, strategies = setup.slices, tuple(config.strategies)
    known = slices.label != UNLABELED
    patient = np.unique(slices.patient, return_inverse=True)[1].astype(np.int32)
    if config.mode == "frozen":
        built = methods.learner_on_features(config, setup, num_samples=config.dropout_samples)
        model = rounds.frozen_model(*built)
    else:
        trainer = methods.make_trainer(config, setup, num_samples=config.dropout_samples)
        model = rounds.finetuned_model(trainer, stop, config.checkpoint_every)
    query = parallel.compiled(make_query(strategies, query_config(config, patient, ~known)))
    spec = rounds.RoundsSpec(
        model,
        strategies,
        config.num_rounds,
        query,
        functools.partial(_reveal, config, setup, workdir),
        jnp.asarray(patient),
        stop,
        known,
        is_over=lambda done: bool(_stopped(config, done)),
    )
    initial = jnp.int32(max(config.initial_labeled - int(known.sum()), 0))
    return spec, Run(jax.random.key(config.seed), jnp.ones(len(known), bool), initial, jnp.int32(0))


def _stopped(config: ConfigDict, done: Sequence[RoundInfo]) -> dict[str, int]:
    """Returns {rule: round} of the stopping rules that apply."""
    if not done:
        return {}
    info = RoundInfo(*(np.stack(column) for column in zip(*done, strict=True)))
    everything = np.ones(info.probs.shape[1], bool)
    return stopping.stops(curves.trace(info, everything, config.entropy_statistic), curves.limits(config))


def _closed_answers(workdir: Path, num_rounds: int) -> dict[str, str]:
    """Returns {slice id: answer} of the first rounds, as they were closed; a round may have had nothing to query."""
    closed = (round_file.closed_answers(workdir, number) or {} for number in range(num_rounds))
    return {slice_id: label for answers in closed for slice_id, label in answers.items()}


def _reveal(
    config: ConfigDict, setup: Setup, workdir: Path, pool: PoolState, done: Sequence[RoundInfo], label: np.ndarray
) -> tuple[PoolState, np.ndarray]:
    """Returns pool and labels once all queried slices are answered; skipped ones leave the pool (`rounds.Reveal`)."""
    slices, index = setup.slices, len(done)
    answers = _closed_answers(workdir, index)
    if done and (_labels(setup, answers)[0] != label).any():
        raise UserError(
            f"{workdir}: answers that were trained on have been changed: undo that, or name a new --workdir"
        )
    is_open = np.asarray(pool.labeled) & (slices.label == UNLABELED) & ~np.isin(slices.slice_id, list(answers))
    if is_open.any():
        _query_doctor(config, setup, workdir, np.flatnonzero(is_open), done)
    label, skipped = _labels(setup, _closed_answers(workdir, index + 1))
    return pool._replace(labeled=pool.labeled & ~skipped, in_pool=pool.in_pool & ~skipped), label


def _labels(setup: Setup, answers: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels int32 [N], from the dataset or the answers, and which slices were skipped, bool [N]."""
    slices, classes = setup.slices, setup.classes
    answer = np.array([answers.get(slice_id, "") for slice_id in slices.slice_id])
    known = slices.label != UNLABELED
    label = np.select([known, *(answer == name for name in classes)], [slices.label, *range(len(classes))], UNLABELED)
    return label.astype(np.int32), answer == worklist.SKIP


def _query_doctor(config: ConfigDict, setup: Setup, workdir: Path, rows: np.ndarray, done: Sequence[RoundInfo]) -> None:
    """Writes the round that queries the slices of `rows` unless it exists, reads its answers and closes it.

    Raises:
        WaitingError: if some slices have no answer yet.
    """
    index = len(done)
    path = round_file.folder_of(workdir, index)
    if not path.exists():
        _write_tables(setup, workdir, done)
        (workdir / worklist.FOLDER).mkdir(exist_ok=True)
        rank = {int(row): r for r, row in enumerate(done[-1].indices)} if done else {}
        ordered = sorted(rows.tolist(), key=lambda row: (rank.get(row, 0), setup.slices.patient[row]))
        round_file.write(workdir, _make_round(config, setup, workdir, index, ordered))
    current = round_file.read(path)
    if {item.slice for item in current.items} != set(setup.slices.slice_id[rows]):
        raise UserError(f"{path} asks for other slices than this run: name another --workdir")
    filled = path / csv_file.FILE
    if filled.exists() and round_file.closed_answers(workdir, index) is None:
        round_file.import_worklist(workdir, current, filled)
    if round_file.close(workdir, current) is None:
        left = f"{round_file.num_open(workdir, current)} of {len(current.items)} slices to answer"
        raise rounds.WaitingError(f"round {index + 1} waits for the doctor: {left}")


def _make_round(config: ConfigDict, setup: Setup, workdir: Path, index: int, rows: list[int]) -> round_file.Round:
    """Makes the round: patients in order of their most informative slice, slices of each in anatomical order."""
    slices = setup.slices
    patients = list(dict.fromkeys(slices.patient[row] for row in rows))
    info = store.load_info(setup.data_dir)
    by_name = {name: store.load_slices(setup.data_dir, name) for name, counts in info["sequences"].items() if counts}
    stacks = [
        {name: _stack(workdir, name, s, np.flatnonzero(s.patient == patient)) for name, s in by_name.items()}
        for patient in patients
    ]
    positions = {
        stack_slice.picture: (number, position)
        for number, stack in enumerate(stacks)
        for position, stack_slice in enumerate(stack[config.sequence])
    }
    items = sorted((*positions[_file_name(config.sequence, slices, row)], slices.slice_id[row]) for row in rows)
    command = files.read_json(workdir / rundir.CONFIG)["command"]
    return round_file.Round(
        index,
        config.sequence,
        info["phantom"],
        command,
        [str(patient) for patient in patients],
        stacks,
        [round_file.Item(str(slice_id), number, position) for number, position, slice_id in items],
        setup.classes,
    )


def _file_name(sequence: str, slices: Slices, row: int) -> str:
    return f"{sequence}_{slices.slice_id[row]}.png"


def _stack(workdir: Path, sequence: str, slices: Slices, rows: np.ndarray) -> list[round_file.StackSlice]:
    """Saves a patient's pictures of a sequence and returns the stack, lowest slice first."""
    stack = []
    for row in sorted(rows, key=lambda row: (slices.position_mm[row], slices.slice_id[row])):
        name, stream, position = _file_name(sequence, slices, row), io.BytesIO(), float(slices.position_mm[row])
        Image.fromarray(slices.image[row]).save(stream, "PNG")
        round_file.save_picture(workdir, name, stream.getvalue())
        stack.append(round_file.StackSlice(name, round(position, 1) if np.isfinite(position) else None))
    return stack


def _write_tables(setup: Setup, workdir: Path, done: Sequence[RoundInfo]) -> None:
    """Writes rounds.csv, acquisitions.csv and predictions.csv, the last model's; nothing before the first round."""
    if not done:
        return
    slices = setup.slices
    round_rows = ((r, *(getattr(info, name).item() for name in ROUNDS[1:])) for r, info in enumerate(done))
    files.write_csv(workdir / "rounds.csv", ROUNDS, round_rows)
    queried = (
        (r, rank, str(slices.patient[row]), str(slices.slice_id[row]), float(score))
        for r, info in enumerate(done)
        for rank, (row, score) in enumerate(zip(info.indices, info.scores, strict=True))
        if score > -np.inf
    )
    files.write_csv(workdir / "acquisitions.csv", curves.ACQUISITIONS[3:], queried)
    answers = _closed_answers(workdir, len(done))

    def label_and_source(label: int, slice_id: str) -> tuple[str, str]:
        if label != UNLABELED:
            return setup.classes[label], "table"
        return answers.get(slice_id, ""), "doctor" if slice_id in answers else ""

    columns = slices.patient, slices.slice_id, slices.label.tolist(), done[-1].probs.tolist()
    predictions = (
        (patient, slice_id, *label_and_source(label, slice_id), prob)
        for patient, slice_id, label, prob in zip(*columns, strict=True)
    )
    files.write_csv(workdir / "predictions.csv", PREDICTIONS, predictions)
