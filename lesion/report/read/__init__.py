"""Reads a run folder for the report: whatever is there, and in words what is not.

The folder is launch/reproduce's (see `read`), or a single RUN_DIR of launch/train (predictions.csv) or launch/active
(curves.csv, rounds.csv). A broken experiment never hides the others: it becomes a row of `Folder.missing`, and one
that left a failed.json a row of `Folder.failed`.
"""

import collections
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from lesion import errors
from lesion.report import paper
from lesion.report.read import files
from lesion.report.read.records import Ablation, Doctor, Failed, Folder, Labelling, Look, Reader, Run

__all__ = ["Ablation", "Doctor", "Failed", "Folder", "Labelling", "Look", "Reader", "Run", "read"]

_MARKS = ("predictions.csv", "curves.csv", "failed.json", "config.json")
_FUSION = ("early", "late", "attention", "best_single")
_ALONE = "only_"
_CELLS = ("patient_true", "patient_shuffled", "leaky_true", "leaky_shuffled")


def _order(known: tuple[str, ...]) -> Callable[[pathlib.Path], tuple[int, str]]:
    """Sorts folders: the known names in their order, then the others."""
    return lambda folder: (known.index(folder.name) if folder.name in known else len(known), folder.name)


def _folders(parent: pathlib.Path, known: tuple[str, ...] = ()) -> list[pathlib.Path]:
    there = [f for f in parent.iterdir() if f.is_dir() and not f.name.startswith(".")] if parent.is_dir() else []
    return sorted(there, key=_order(known))


def _natural(folder: pathlib.Path) -> tuple[str, list[tuple[int, float, str]]]:
    """Sorts settings by their numbers: 64 before 512."""
    found = re.findall(r"\d+(?:\.\d+)?|[^\d]+", folder.name)
    return folder.parent.name, [(0, float(t), "") if t[0].isdigit() else (1, 0.0, t) for t in found]


def _is_run(folder: pathlib.Path) -> bool:
    return any((folder / mark).is_file() for mark in _MARKS)


def _two_levels(parent: pathlib.Path, first: tuple[str, ...], second: tuple[str, ...]) -> Iterator[pathlib.Path]:
    """Runs of PARENT/A/B, A's and B's known names first; and those of PARENT/B, as they lay before there was an A."""
    for folder in _folders(parent, (*second, *first)):
        if folder.name in second or _is_run(folder):
            yield folder
        else:
            yield from _folders(folder, second)


def _try(
    source: files.Source, failed: list[Failed], folder: pathlib.Path, model: str, reader: Callable[[], Any]
) -> Iterator[Any]:
    """The run in `folder`, or nothing and a row of `failed` or `missing` that says why it cannot be shown."""
    if (folder / "failed.json").is_file():  # what lies beside it is an older run's: a success removes it
        failed.append(files.failed(source, folder, model))
        return
    try:
        yield reader()
    except (files.BrokenError, ValueError, TypeError) as error:  # not UTF-8, no number, a short row, not to be scored
        source.missing.append((source.name(folder), str(error)))


def _networks(source: files.Source, failed: list[Failed], kind: str) -> list[Run]:
    """Runs of `transfer/BACKBONE/SEQUENCE`, or of `baselines/NAME/SEQUENCE`."""
    parent = source.root / kind
    runs: list[Run] = []
    for folder in _two_levels(parent, tuple(source.titles), tuple(paper.TITLES)):
        model = folder.parent.name if folder.parent != parent else None
        runs += _try(source, failed, folder, model or "", lambda f=folder, m=model: files.scored(source, f, m))  # type: ignore[misc]
    return runs


def _labellings(source: files.Source, failed: list[Failed]) -> list[Labelling]:
    runs: list[Labelling] = []
    for folder in _folders(source.root / "active", tuple(paper.TITLES)):
        runs += _try(source, failed, folder, "", lambda f=folder: files.labelling(source, f))  # type: ignore[misc]
    return runs


def _is_fusion(folder: pathlib.Path) -> bool:
    """Whether it is a run of one way of fusing, or of a sequence alone beside them."""
    return (folder.name in _FUSION or folder.name.startswith(_ALONE)) and _is_run(folder)


def _fusion(source: files.Source, failed: list[Failed]) -> list[Run]:
    """Runs of `fusion/HOW`, or of `HOW` in a folder of launch/train that fuses."""
    parent = source.root / "fusion" if (source.root / "fusion").is_dir() else source.root
    runs: list[Run] = []
    whole_failed = parent != source.root and (parent / "failed.json").is_file()
    if whole_failed:
        failed.append(files.failed(source, parent))
    for folder in filter(_is_fusion, _folders(parent, (*_FUSION, *(_ALONE + s for s in paper.TITLES)))):
        if whole_failed and not (folder / "failed.json").is_file():
            source.missing.append((source.name(folder), "not shown: fusion failed, it may be an older run's"))
            continue
        sequence = folder.name.removeprefix(_ALONE) if folder.name.startswith(_ALONE) else ""
        runs += _try(
            source,
            failed,
            folder,
            folder.name,
            lambda f=folder, s=sequence: files.scored(source, f, f.name, s),  # type: ignore[misc]
        )
    return runs


def _leakage(source: files.Source, failed: list[Failed]) -> list[Run]:
    runs: list[Run] = []
    for folder in _two_levels(source.root / "leakage", tuple(paper.TITLES), _CELLS):
        # Labels may be shuffled slice by slice: a patient may carry both.
        runs += _try(
            source,
            failed,
            folder,
            folder.name,
            lambda f=folder: files.predictions(source, f, f.name, f.parent.name),  # type: ignore[misc]
        )
    return runs


def _ablations(source: files.Source, failed: list[Failed]) -> list[Ablation]:
    result: list[Ablation] = []
    for folder in sorted(_two_levels(source.root / "ablations", (), ()), key=_natural):
        reader = files.labelling if (folder / "curves.csv").is_file() else files.scored
        runs = _try(source, failed, folder, folder.name, lambda f=folder, r=reader: r(source, f))  # type: ignore[misc]
        result += [Ablation(folder.parent.name, folder.name, run) for run in runs]
    return result


def _looks(source: files.Source, failed: list[Failed]) -> list[Look]:
    result = []
    parent, transfer = source.root / "explain", source.root / "transfer"  # the maps are of the run of the same name
    for folder in _two_levels(parent, tuple(source.titles), tuple(paper.TITLES)):
        model = folder.parent.name if folder.parent != parent else ""
        if (folder / "failed.json").is_file():
            failed.append(files.failed(source, folder, model))
            continue
        uri = files.picture(source, folder / "gradcam.png")
        if uri:
            run = folder if (folder / "config.json").is_file() else transfer / folder.relative_to(parent)
            config = files.json_object(source, run / "config.json", wanted=False)
            result.append(Look(model, files.called(source.titles.get(model, model), config), folder.name, uri))
    return result


def _plan(source: files.Source, plan: dict[str, Any], config: dict[str, Any]) -> None:
    """Adds to `missing` what launch/reproduce was to run and did not come to, and what it left out."""
    inner = files.part(config, "config")
    names = [str(name) for name in plan.get("experiments") or ()]
    if not plan:  # as it was before there were plans
        names += [f"transfer/{s}" for s in inner.get("transfer_sequences") or ()]
        names += [f"active/{s}" for s in files.part(inner, "active").get("sequences") or ()]
    source.missing.extend((name, f"left out: {why}") for name, why in files.part(plan, "left_out").items())
    source.missing.extend((name, "not run") for name in dict.fromkeys(names) if not (source.root / name).is_dir())
    for kind in ("transfer", "active"):
        if not plan and not (source.root / kind).is_dir() and not any(name.startswith(kind) for name in names):
            source.missing.append((kind, "not run"))


def _titles(models: dict[str, Any], specs: dict[str, Any], plan: dict[str, Any]) -> dict[str, str]:
    """Names as tables write them, the plan's in its order first: a backbone's without its variant where one is run."""
    rows = models | specs
    titles = {name: str(files.part(rows, name).get("title") or name) for name in rows}
    run = [str(name).split("/")[1] for name in plan.get("experiments") or () if str(name).count("/") == 2]
    short = {
        name: titles[name] if name in specs else titles[name].split(",")[0]  # CNN-F's are no variants of one network
        for name in dict.fromkeys(run)
        if name in titles
    }
    counts = collections.Counter(short.values())
    return {name: title if counts[title] == 1 else titles[name] for name, title in short.items()} | {
        name: title for name, title in titles.items() if name not in short
    }


def _whole(workdir: pathlib.Path) -> Folder:
    """A folder of launch/reproduce, or of launch/train where it fuses."""
    missing: list[tuple[str, str]] = []
    source = files.Source(workdir, missing, {})
    alone = any(map(_is_fusion, _folders(workdir)))
    cohort, config, models = (
        files.json_object(source, workdir / name, wanted=not alone)
        for name in ("cohort/cohort.json", "config.json", "models.json")
    )
    pictures = () if alone else ("preprocessing", "cohort")
    uris = {name: files.picture(source, workdir / "cohort" / f"{name}.png") for name in pictures}
    specs = files.json_object(source, workdir / "baselines.json", wanted=False)
    plan = files.json_object(source, workdir / "plan.json", wanted=False)
    source = source._replace(titles=_titles(models, specs, plan))
    failed: list[Failed] = []
    if not alone:
        _plan(source, plan, config)
    readers: list[Reader] = []
    try:
        readers += files.readers(workdir / "readers.csv")
    except (files.BrokenError, ValueError, TypeError) as error:
        missing.append(("readers.csv", str(error)))
    return Folder(
        config,
        cohort,
        {name: uri for name, uri in uris.items() if uri},
        _networks(source, failed, "transfer"),
        _labellings(source, failed),
        missing,
        models,
        baselines=tuple(_networks(source, failed, "baselines")),
        fusion=tuple(_fusion(source, failed)),
        leakage=tuple(_leakage(source, failed)),
        ablations=tuple(_ablations(source, failed)),
        looks=tuple(_looks(source, failed)),
        readers=tuple(readers),
        failed=tuple(failed),  # evaluated last: the readers above add to it
        specs=specs,
    )


def _single(workdir: pathlib.Path, names: list[str]) -> Folder:
    """A folder that is one run of launch/train or launch/active."""
    source = files.Source(workdir, [], {})
    if (workdir / "failed.json").is_file():
        raise errors.UserError(
            f"{workdir} failed: {files.failed(source, workdir).error}; run it again, then the report"
        )
    found: dict[str, list[Any]] = {name: [] for name in ("predictions.csv", "curves.csv", "rounds.csv")}
    readers: dict[str, Callable[..., Any]] = dict(
        zip(found, (files.scored, files.labelling, files.doctor), strict=True)
    )
    failed: list[Failed] = []
    for name in names:
        found[name] += _try(source, failed, workdir / name, "", lambda n=name: readers[n](source, workdir))  # type: ignore[misc]
    transfer, labelling, doctor = found.values()
    if source.missing and not (transfer or labelling or doctor):
        told = "; ".join(f"{what}: {why}" for what, why in source.missing)
        raise errors.UserError(f"{workdir} cannot be shown: {told}")
    config = [*transfer, *labelling, *doctor][0].config
    return Folder(config, {}, {}, transfer, labelling, source.missing, {}, tuple(doctor))


def read(workdir: pathlib.Path) -> Folder:
    """Reads a folder of launch/reproduce, or a single run of launch/train or launch/active.

        transfer/BACKBONE/SEQUENCE, or transfer/SEQUENCE where there was one backbone; baselines/NAME/SEQUENCE;
        fusion/HOW, or HOW alone; leakage/SEQUENCE/CELL; ablations/SWEEP/SETTING; active/SEQUENCE;
        explain/BACKBONE/SEQUENCE; cohort/, models.json, baselines.json, readers.csv, plan.json, config.json

    Args:
        workdir: the folder.

    Returns:
        A `Folder`; at least one experiment, a failed one or a cohort is in it.

    Raises:
        UserError: no such folder, or nothing in it to report.
    """
    if not workdir.is_dir():
        raise errors.UserError(f"{workdir}: no such folder; give --workdir the folder of a finished run")
    single = [name for name in ("predictions.csv", "curves.csv") if (workdir / name).is_file()]
    if (workdir / "rounds.csv").is_file():  # its predictions.csv is of slices that were trained on
        single = ["rounds.csv"]
    if single:
        return _single(workdir, single)
    folder = _whole(workdir)
    if not (
        folder.cohort
        or folder.transfer
        or folder.labelling
        or folder.baselines
        or folder.fusion
        or folder.leakage
        or folder.ablations
        or folder.failed
    ):
        raise errors.UserError(
            f"{workdir}: nothing to report: no predictions.csv, curves.csv, transfer/, active/ or cohort/ that can be "
            "read; run launch/reproduce, launch/train or launch/active with this --workdir first"
        )
    return folder
