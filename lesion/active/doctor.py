"""Algorithm 1 with a doctor as the oracle: queries slices, reads the answers of launch.annotate, fits, queries on."""

import collections
import functools
import io
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

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
from lesion.transfer.checks import check_fields
from lesion.transfer.loading import Setup
from lesion.worklist import CANNOT_TELL, CONTRADICTION, NO_CLASS, NOT_USABLE, answers, csv_file, labels, round_file

ROUNDS = ("round", "labeled_slices", "labeled_patients", "pseudo_slices", "max_entropy", "mean_entropy", "p95_entropy")
PREDICTIONS = ("patient", "slice", "label", "said_by", "probability")
MODEL = "checkpoints/model"
GIVEN_SHA256 = "given_labels_sha256"


class _Study(NamedTuple):
    """What a run with a doctor is about: its configuration, data and folder."""

    config: ConfigDict
    setup: Setup
    workdir: Path

    @property
    def patient_of(self) -> dict[str, str]:
        """{slice: patient} of the dataset."""
        return _patient_of(self.setup)

    def said(self, is_asked: Callable[[round_file.Round], bool]) -> dict[str, str]:
        """Returns what was said last of each slice, {slice: label}, in the rounds for which `is_asked`."""
        return labels.said(self.workdir, self.patient_of, is_asked)

    def settled(self, num_fits: int) -> dict[str, str]:
        """Returns {slice: label} that the first fits know; of a patient no two classes."""
        said = self.said(lambda round_: round_.fit < num_fits)
        return answers.settle(said, self.patient_of, self.config.contradictions)


def with_given(config: ConfigDict, setup: Setup) -> Setup:
    """Returns the setup whose run's identity has the labels that --config.given_labels names; checks them.

    Raises:
        UserError: if there is no such table, or it is wrong, see `labels.read`.
    """
    if not config.given_labels:
        return setup
    _read_given(config, setup)
    return setup._replace(run=setup.run | {GIVEN_SHA256: files.sha256(config.given_labels)})


def _read_given(config: ConfigDict, setup: Setup) -> list[labels.Label]:
    """Reads --config.given_labels, without what the dataset itself tells."""
    rows = labels.read(Path(config.given_labels), _patient_of(setup), setup.classes)
    known = set(setup.slices.slice_id[setup.slices.label != UNLABELED].tolist())
    return [row for row in rows if row.label == NOT_USABLE or row.slice not in known]


def _patient_of(setup: Setup) -> dict[str, str]:
    return dict(zip(setup.slices.slice_id.tolist(), setup.slices.patient.tolist(), strict=True))


def _open_study(config: ConfigDict, setup: Setup, workdir: Path) -> _Study:
    """Returns the study; keeps the labels that it is given, so that the folder tells all of it."""
    path = workdir / worklist.FOLDER / labels.GIVEN
    if config.given_labels and not path.exists():
        path.parent.mkdir(exist_ok=True)
        labels.write_table(path, _read_given(config, setup))
    return _Study(config, setup, workdir)


def run_doctor(config: ConfigDict, setup: Setup, workdir: Path) -> str:
    """Runs rounds until answers are missing or the labelling is over.

    Args:
        config: configuration, as of `configs/doctor.py`.
        setup: from `loading.load` without folds; slices with label -1 are those to ask about.
        workdir: folder of the run; gets config.json, annotate/, labels.csv, rounds.csv, acquisitions.csv (the slices
            that each round queried, with or without answers), predictions.csv and, last, the model and metrics.json.

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
    study = _open_study(config, setup, workdir)
    with handle_sigterm() as stop:
        spec, run = _spec(study, stop)
        try:
            info, state = rounds.run_rounds(spec, run, f"doctor {config.sequence}", workdir / "rounds")
        except rounds.WaitingError as error:
            labels.write(workdir)
            if num_queried == len(round_file.numbers(workdir)):
                raise UserError(f"{error}; {_how_to_answer(workdir)}") from error
            return f"{error}; {_how_to_answer(workdir)}"
    done = [RoundInfo(*(x[i] for x in info)) for i in range(len(info.probs))]
    _write_tables(study, done)
    labels.write(workdir)
    variables = {"params": state.params} | ({"batch_stats": state.batch_stats} if state.batch_stats else {})
    provenance = {"backbone": setup.weights_sha256, "config": setup.run["config"]}
    checkpoint.save_variables(workdir / MODEL, jax.tree.map(np.asarray, variables), provenance)
    counts = {name: int(getattr(done[-1], name)) for name in ROUNDS[1:4]}
    said = list(study.settled(len(done)).values())
    left_out = {f"{label}_slices": said.count(label) for label in NO_CLASS}
    stopped = sorted(_stopped(config, done[: config.num_rounds])) or ["rounds"]
    rundir.finish(workdir, {"rounds": len(done), "stopped_by": stopped} | left_out | counts)
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
    check_fields(config, {"contradictions": answers.SETTLED_BY})


def check_unlabeled(config: ConfigDict, setup: Setup) -> None:
    """Raises a one-line `UserError` where fewer slices lack a label than a round queries."""
    hidden = int((setup.slices.label == UNLABELED).sum())
    hidden -= len({row.slice for row in _read_given(config, setup)}) if config.given_labels else 0
    if hidden < config.num_acquire:
        raise UserError(
            f"{hidden} slices of {config.sequence} have no label, fewer than a round of {config.num_acquire}: "
            "empty labels in patients.csv and run launch.prepare again, or lower --config.num_acquire"
        )


def _how_to_answer(workdir: Path) -> str:
    folder = round_file.folder_of(workdir, round_file.numbers(workdir)[-1])
    command = shlex.join(["python", "-m", "launch.annotate", f"--workdir={workdir}"])
    return f"read them by {command}, or fill in {folder / csv_file.FILE}, then run the same command again"


def _spec(study: _Study, stop: StopSignal) -> tuple[rounds.RoundsSpec, Run]:
    config, setup = study.config, study.setup
    slices, strategies = setup.slices, tuple(config.strategies)
    label, left_out = _labels(study, 0)
    known = label != UNLABELED
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
        config.num_rounds + 1,  # the last one is for what could not be told at first
        query,
        functools.partial(_reveal, study),
        jnp.asarray(patient),
        stop,
        known,
        is_over=lambda done: _has_ended(config, done) and not _to_ask_at_the_end(study, len(done)),
    )
    initial = jnp.int32(max(config.initial_labeled - int(known.sum()), 0))
    return spec, Run(jax.random.key(config.seed), jnp.asarray(~left_out), initial, jnp.int32(0))


def _has_ended(config: ConfigDict, done: Sequence[RoundInfo]) -> bool:
    """Returns whether nothing new is queried any more."""
    return len(done) >= config.num_rounds or bool(_stopped(config, done))


def _to_ask_at_the_end(study: _Study, num_fits: int) -> list[str]:
    """Returns the slices that could not be told, to be asked again after the last round; none once they were."""
    earlier = (round_file.read(path) for path in round_file.folders(study.workdir))
    if any(round_.again == CANNOT_TELL and round_.fit < num_fits for round_ in earlier):
        return []
    return [slice_ for slice_, label in study.settled(num_fits).items() if label == CANNOT_TELL]


def _stopped(config: ConfigDict, done: Sequence[RoundInfo]) -> dict[str, int]:
    """Returns {rule: round} of the stopping rules that apply."""
    if not done:
        return {}
    info = RoundInfo(*(np.stack(column) for column in zip(*done, strict=True)))
    everything = np.ones(info.probs.shape[1], bool)
    return stopping.stops(curves.trace(info, everything), curves.limits(config))


def _reveal(
    study: _Study, pool: PoolState, done: Sequence[RoundInfo], label: np.ndarray
) -> tuple[PoolState, np.ndarray]:
    """Returns pool and labels once all queried slices are answered (`rounds.Reveal`).

    A slice without a class, because it cannot be told or used, leaves the pool.
    """
    slices, index = study.setup.slices, len(done)
    if done and (_labels(study, index)[0] != label).any():
        raise UserError(
            f"{study.workdir}: answers that were trained on have been changed: undo that, or name a new --workdir"
        )
    if _has_ended(study.config, done):
        _ask(study, np.isin(slices.slice_id, _to_ask_at_the_end(study, index)), done, CANNOT_TELL)
    else:
        was_answered = np.isin(slices.slice_id, list(study.settled(index)))
        _ask(study, np.asarray(pool.labeled) & (slices.label == UNLABELED) & ~was_answered, done)
    if study.config.contradictions == "ask":
        said = study.said(lambda round_: round_.fit < index or (round_.fit == index and round_.again != CONTRADICTION))
        last = [of_patient[-1] for of_patient in answers.contradictions(said, study.patient_of).values()]
        _ask(study, np.isin(slices.slice_id, last), done, CONTRADICTION)
    label, left_out = _labels(study, index + 1)
    return pool._replace(labeled=jnp.asarray(label != UNLABELED), in_pool=jnp.asarray(~left_out)), label


def _labels(study: _Study, num_fits: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels int32 [N], from the dataset or the answers of the first fits, and what left the pool, bool [N]."""
    slices, classes, settled = study.setup.slices, study.setup.classes, study.settled(num_fits)
    answer = np.array([settled.get(slice_id, "") for slice_id in slices.slice_id])
    known = slices.label != UNLABELED
    label = np.select([known, *(answer == name for name in classes)], [slices.label, *range(len(classes))], UNLABELED)
    # A disease is told by the dataset whether a doctor sees it or not; a bad picture is one all the same.
    left_out = (answer == NOT_USABLE) | ((answer == CANNOT_TELL) & ~known)
    return np.where(left_out, UNLABELED, label).astype(np.int32), left_out


def _ask(study: _Study, is_asked: np.ndarray, done: Sequence[RoundInfo], again: str = "") -> None:
    """Writes the round that asks about slices, bool [N], unless it exists, reads its answers and closes it.

    Raises:
        WaitingError: if some slices have no answer yet.
    """
    workdir, rows, index = study.workdir, np.flatnonzero(is_asked), len(done)
    if not len(rows):
        return
    asked = [round_file.read(path) for path in round_file.folders(workdir)]
    current = next((round_ for round_ in asked if (round_.fit, round_.again) == (index, again)), None)
    if current is None:
        _write_tables(study, done)
        (workdir / worklist.FOLDER).mkdir(exist_ok=True)
        rank = {int(row): r for r, row in enumerate(done[-1].indices)} if done else {}
        ordered = sorted(rows.tolist(), key=lambda row: (rank.get(row, 0), study.setup.slices.patient[row]))
        current = _make_round(study, len(asked), ordered)._replace(fit=index, again=again)
        round_file.write(workdir, current)
    path = round_file.folder_of(workdir, current.number)
    if {item.slice for item in current.items} != set(study.setup.slices.slice_id[rows]):
        raise UserError(f"{path} asks for other slices than this run: name another --workdir")
    filled = path / csv_file.FILE
    if filled.exists() and round_file.closed_answers(workdir, current.number) is None:
        round_file.import_worklist(workdir, current, filled)
    if round_file.close(workdir, current) is None:
        left = f"{round_file.num_open(workdir, current)} of {len(current.items)} slices to answer"
        raise rounds.WaitingError(f"{current.title} waits for the doctor: {left}")


def _make_round(study: _Study, number: int, rows: list[int]) -> round_file.Round:
    """Makes a round: patients in order of their most informative slice, slices of each in anatomical order."""
    config, setup, workdir, slices = study.config, study.setup, study.workdir, study.setup.slices
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
    said = collections.defaultdict[str, collections.Counter[str]](collections.Counter)
    for slice_id, label in study.said(lambda round_: True).items():
        said[study.patient_of[slice_id]][label] += 1
    return round_file.Round(
        number,
        config.sequence,
        info["phantom"],
        command,
        [str(patient) for patient in patients],
        stacks,
        [round_file.Item(str(slice_id), number, position) for number, position, slice_id in items],
        setup.classes,
        said=[dict(said[patient]) for patient in patients],
        contradictions=config.contradictions,
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


def _write_tables(study: _Study, done: Sequence[RoundInfo]) -> None:
    """Writes rounds.csv, acquisitions.csv and predictions.csv, the last model's; nothing before the first round."""
    if not done:
        return
    setup, workdir, slices = study.setup, study.workdir, study.setup.slices
    round_rows = ((r, *(getattr(info, name).item() for name in ROUNDS[1:])) for r, info in enumerate(done))
    files.write_csv(workdir / "rounds.csv", ROUNDS, round_rows)
    queried = (
        (r, rank, str(slices.patient[row]), str(slices.slice_id[row]), float(score))
        for r, info in enumerate(done)
        for rank, (row, score) in enumerate(zip(info.indices, info.scores, strict=True))
        if score > -np.inf
    )
    files.write_csv(workdir / "acquisitions.csv", curves.ACQUISITIONS[3:], queried)
    settled = study.settled(len(done))

    def label_and_source(label: int, slice_id: str) -> tuple[str, str]:
        if label != UNLABELED:
            return setup.classes[label], "table"
        return settled.get(slice_id, ""), "doctor" if slice_id in settled else ""

    columns = slices.patient, slices.slice_id, slices.label.tolist(), done[-1].probs.tolist()
    predictions = (
        (patient, slice_id, *label_and_source(label, slice_id), prob)
        for patient, slice_id, label, prob in zip(*columns, strict=True)
    )
    files.write_csv(workdir / "predictions.csv", PREDICTIONS, predictions)
