"""The report: one HTML file that opens offline and says what was run on whom, what came out and how sure that is."""

import os
import pathlib
from typing import Any

import jinja2
import markupsafe

from lesion.report import doctor, labelling, paper, read, results, words

FILE = "report.html"
_CLASSES = ("encephalitis", "glioma", "unlabeled")
_PHANTOM = "PHANTOM RESULTS: made by simulation, they say nothing about patients"
_MIXED = "PARTLY PHANTOM: simulated and real scans are mixed; these results say nothing about patients"
_UNKNOWN = "COHORT NOT RECORDED: the run does not say whether it used a phantom or patients"
_LEAKY = "LEAKY FOLDS: slices of one patient lie in training and test folds, which flatters every score"
_RANDOM = "RANDOM WEIGHTS: the backbone was never trained on ImageNet; this is a control, not the method"


def _runs(folder: read.Folder) -> list[tuple[str, str, dict[str, Any]]]:
    """(kind, sequence, config) of every experiment."""
    kinds = {"Transfer": folder.transfer, "Labelling": folder.labelling, "Doctor": folder.doctor}
    return [(kind, run.sequence, run.config) for kind, runs in kinds.items() for run in runs]  # type: ignore[attr-defined]


def _configs(folder: read.Folder) -> list[dict[str, Any]]:
    """Every config.json that there is, the top one first."""
    return [config for config in [folder.config, *(config for _, _, config in _runs(folder))] if config]


def banners(folder: read.Folder) -> list[str]:
    """What a reader must know before any number, loudest first."""
    flags = [d["phantom"] for d in [folder.cohort, *_configs(folder)] if d.get("phantom") is not None]
    result = []
    if not flags:
        result.append(_UNKNOWN)
    elif "mixed" in flags or len(set(flags)) > 1:
        result.append(_MIXED)
    elif flags[0]:
        result.append(_PHANTOM)
    if any(_part(config, "weights").get("pretrained") is False for config in _configs(folder)):
        result.append(_RANDOM)
    return result


def _cohort_rows(cohort: dict[str, Any]) -> list[dict[str, Any]]:
    """Table 1: our counts by sequence and class, the paper's slices beside them."""
    sequences = cohort.get("sequences")
    if not isinstance(sequences, dict):
        return []
    order = [s for s in paper.TITLES if s in sequences] + [s for s in sequences if s not in paper.TITLES]
    return [{"title": results.title(s), "ours": sequences[s] or {}, "paper": paper.SLICES.get(s, {})} for s in order]


def _who(folder: read.Folder, transfer: list[dict[str, Any]]) -> str:
    """How many patients the results stand on, in words."""
    noun = "simulated patient" if _PHANTOM in banners(folder) else "patient"
    patients = folder.cohort.get("patients")
    if isinstance(patients, dict) and {"encephalitis", "glioma"} <= patients.keys():
        e, g = int(patients["encephalitis"]), int(patients["glioma"])
        return f"{words.plural(e + g, noun)} ({e} with encephalitis, {g} with glioma)"
    if transfer:
        first = max(transfer, key=lambda s: s["scores"]["num_patients"])
        total, g = first["scores"]["num_patients"], first["num_glioma"]
        return f"{words.plural(total, noun)} ({total - g} with encephalitis, {g} with glioma)"
    for run in folder.doctor:
        slices, patients = (int(run.rounds[f"labeled_{what}"][-1]) for what in ("slices", "patients"))
        told = f"{words.plural(slices, 'slice')} of {words.plural(patients, noun)} labelled"
        return told if run.metrics else f"{told} so far"
    return "A cohort whose size the run does not record"


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    """An object inside a config, {} where there is none."""
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _method(config: dict[str, Any]) -> str:
    """The network in words, as far as the configuration says."""
    inner, weights = _part(config, "config"), _part(config, "weights")
    name = str(inner.get("backbone") or weights.get("model") or "not named by the run")
    modes = {
        "frozen": ", frozen, a new classifier trained on its features",
        "finetune": ", fine-tuned",
        "scratch": ", trained from scratch",
    }
    trained = {True: " with ImageNet weights", False: " with random weights"}
    return name + trained.get(weights.get("pretrained", ""), "") + modes.get(str(inner.get("mode")), "")


def _provenance(folder: read.Folder) -> dict[str, Any]:
    """What was run: the facts of the whole, one row an experiment, and whether all stand on the same split."""
    rows = [
        {
            "name": f"{kind} {results.title(sequence)}",
            "command": config.get("command"),
            "finished": words.stamp(config.get("finished")),
            "took": words.minutes(config.get("started"), config.get("finished")),
            "split": config.get("split_hash") or words.MISSING,
            "fields": words.flat(_part(config, "config")),
        }
        for kind, sequence, config in _runs(folder)
    ]
    config = next(iter(_configs(folder)), {})
    facts = {
        "Command": config.get("command"),
        "Started": words.stamp(config.get("started")),
        "Finished": words.stamp(config.get("finished")),
        "Data, fingerprint": _part(config, "data").get("fingerprint") or folder.cohort.get("fingerprint"),
        "Split, hash": config.get("split_hash"),
        "Device": config.get("device"),
    } | {f"Weights, {name.replace('_', ' ')}": value for name, value in words.flat(_part(config, "weights"))}
    return {
        "facts": [(name, value) for name, value in facts.items() if value],
        "rows": rows,
        "versions": words.flat(_part(config, "versions")),
        "fields": words.flat(_part(config, "config")),
        "one_split": len({c["split_hash"] for c in _configs(folder) if c.get("split_hash")}) <= 1,
    }


def _context(folder: read.Folder) -> dict[str, Any]:
    """All that the template prints."""
    transfer = [results.summarise(run) for run in folder.transfer]
    config = next(iter(_configs(folder)), {})
    rows = _cohort_rows(folder.cohort)
    return {
        "banners": banners(folder) + ([_LEAKY] if any(s["shared"] for s in transfer) else []),
        "who": _who(folder, transfer),
        "method": _method(config),
        "transfer": transfer,
        "roc": results.roc_figures(folder.transfer, transfer),
        "spread": results.spread_figure(transfer),
        "labelling": [results.labelling_section(run, f"labelling-{i}") for i, run in enumerate(folder.labelling)],
        "doctor": [doctor.section(run, f"doctor-{i}") for i, run in enumerate(folder.doctor)],
        "cohort": folder.cohort,
        "models": [(row, _part(folder.models, row)) for row in folder.models],
        "backbone": _part(config, "config").get("backbone"),
        "cohort_rows": rows,
        "classes": [c for c in _CLASSES if c != "unlabeled" or any(_part(r["ours"], c).get("slices") for r in rows)],
        "sheets": folder.sheets,
        "missing": folder.missing,
        "provenance": _provenance(folder),
        "paper": paper,
        "words": words,
        "levels": results.LEVELS,
        "baseline": labelling.BASELINE,
    }


def render(folder: read.Folder) -> str:
    """The page as one string; the same folder gives the same string.

    Args:
        folder: what `read.read` found.

    Returns:
        HTML with style sheet, figures and pictures inside.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lesion.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["svg"] = markupsafe.Markup  # our own figures; all other text is escaped
    style = (pathlib.Path(__file__).parent / "report.css").read_text("utf-8")
    template = environment.get_template("template.html.j2")
    return template.render(style=markupsafe.Markup(style), **_context(folder))


def write(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes `WORKDIR/report.html` from what is in the folder, whole or not at all.

    Args:
        workdir: of launch/reproduce, or of a single launch/train or launch/active.

    Returns:
        The report's path.

    Raises:
        UserError: no such folder, or nothing in it to report.
        OSError: the report cannot be written.
    """
    path = pathlib.Path(workdir) / FILE
    page = render(read.read(pathlib.Path(workdir)))
    temporary = path.with_name(f".{FILE}.{os.getpid()}")
    try:
        temporary.write_text(page, "utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
