"""What was run, on whom, and how to run it again."""

from collections.abc import Iterable
from typing import Any

from lesion.report import paper, read, results, words
from lesion.report.read.files import RANDOM, is_random, part
from lesion.report.tables import Column, Table, text

PHANTOM = "PHANTOM RESULTS: made by simulation, they say nothing about patients"
_MIXED = "PARTLY PHANTOM: simulated and real scans are mixed; these results say nothing about patients"
_UNKNOWN = "COHORT NOT RECORDED: the run does not say whether it used a phantom or patients"
LEAKY = "LEAKY FOLDS: slices of one patient lie in training and test folds, which flatters every score"
_SHUFFLED = "SHUFFLED LABELS"
_RANDOM = "RANDOM WEIGHTS"
_CLASSES = ("encephalitis", "glioma", "unlabeled")
_ONE_SPLIT = ("Transfer", "Baseline", "Labelling", "Doctor")  # the leakage panel's split and labels are by intent


def experiments(folder: read.Folder) -> list[tuple[str, Any]]:
    """(kind, run) of every experiment."""
    kinds: dict[str, Iterable[Any]] = {
        "Transfer": folder.transfer,
        "Baseline": folder.baselines,
        "Labelling": folder.labelling,
        "Doctor": folder.doctor,
        "Fusion": folder.fusion,
        "Leakage": folder.leakage,
        "Ablation": [one.run for one in folder.ablations],
    }
    return [(kind, run) for kind, runs in kinds.items() for run in runs]


def _main(folder: read.Folder) -> list[dict[str, Any]]:
    """The configurations of the method itself, the top one first."""
    runs: list[Any] = [*folder.transfer, *folder.labelling, *folder.doctor]
    return [config for config in [folder.config, *(run.config for run in runs)] if config]


def _is_shuffled(config: dict[str, Any]) -> bool:
    return part(config, "config").get("label_control") == "shuffled"


def _cohort(folder: read.Folder) -> list[str]:
    """What a reader must know of the cohort: one banner, or none where it is of patients."""
    places = [folder.cohort, folder.config, *(run.config for _, run in experiments(folder))]
    flags = [place["phantom"] for place in places if place.get("phantom") is not None]
    if not flags:
        return [_UNKNOWN]
    if "mixed" in flags or len(set(flags)) > 1:
        return [_MIXED]
    return [PHANTOM] if flags[0] else []


def banners(folder: read.Folder) -> list[str]:
    """What a reader must know before any number, loudest first."""
    result = _cohort(folder)
    dealt = [run for kind, run in experiments(folder) if kind in _ONE_SPLIT and _is_shuffled(run.config)]
    if dealt:
        names = words.listed(list(dict.fromkeys(run.name or results.title(run.sequence) for run in dealt)))
        result.append(f"{_SHUFFLED}: those of {names} were dealt at random; their scores say nothing about any disease")
    who = _untaught(folder)
    if who:
        result.append(f"{_RANDOM}: those of {who} were never trained on ImageNet; this is a control, not the method")
    return result


def _untaught(folder: read.Folder) -> str:
    """Whose weights are random though they should not be, in words; "" where none are."""
    on_purpose = {one.run.name for one in folder.ablations if ablates(one, "weights")}
    runs = [(kind, run) for kind, run in experiments(folder) if is_random(run.config) and run.name not in on_purpose]
    if not runs:
        return "the backbone" if is_random(folder.config) and not experiments(folder) else ""
    named = [run.title.removesuffix(RANDOM) for kind, run in runs if kind in ("Transfer", "Baseline")]
    others = dict.fromkeys(f"{kind.lower()} runs" for kind, _ in runs if kind not in ("Transfer", "Baseline"))
    return words.listed([name or "the backbone" for name in dict.fromkeys(named)] + list(others))


def ablates(one: read.Ablation, field: str) -> bool:
    """Whether a setting's name says that this very field is varied."""
    return f",{field}=" in f",{one.setting}"


def stamp(folder: read.Folder) -> str:
    """What every table and figure that leaves the page says of its data, "" of patients'."""
    return "".join(_cohort(folder)).split(":")[0]


def cohort_tables(cohort: dict[str, Any]) -> tuple[Table, Table] | None:
    """Table 1: our counts by sequence and class, and the paper's slices; None where nothing was counted."""
    sequences = cohort.get("sequences")
    if not isinstance(sequences, dict) or not sequences:
        return None
    order = [s for s in paper.TITLES if s in sequences] + [s for s in sequences if s not in paper.TITLES]
    counts = {s: {c: part(part(sequences, s), c) for c in _CLASSES} for s in order}
    shown = [c for c in _CLASSES if c != "unlabeled" or any(counts[s][c].get("slices") for s in order)]
    columns = (Column("Sequence", words=True), *(Column(what, c) for c in shown for what in ("slices", "patients")))
    rows = [
        (
            text(results.title(s)),
            *(text(counts[s][c].get(w, words.MISSING)) for c in shown for w in ("slices", "patients")),
        )
        for s in order
    ]
    theirs = [
        (text(results.title(s)), *(text(n) for n in paper.SLICES[s].values())) for s in order if s in paper.SLICES
    ]
    heads = (Column("Sequence", words=True), *(Column(f"{c} ({n} patients)") for c, n in paper.PATIENTS.items()))
    return (
        Table("table-1", "Table 1, this cohort", columns, rows),
        Table("table-1-published", "Table 1 of the paper: slices", heads, theirs, published=True),
    )


def who(folder: read.Folder, transfer: list[dict[str, Any]]) -> str:
    """How many patients the results stand on, in words."""
    noun = "simulated patient" if PHANTOM in banners(folder) else "patient"
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


def method(folder: read.Folder) -> str:
    """The networks in words, as far as the configuration says."""
    names = {run.model: run.title for run in folder.transfer if run.model}
    names = {name: title.removesuffix(RANDOM) for name, title in names.items()} if len(names) == 1 else names
    config = next(iter(_main(folder)), {})
    inner, baseline = part(config, "config"), part(config, "baseline")
    weights = next(iter(_weights(folder)), {})
    modes = {
        "frozen": ", frozen, a new classifier trained on its features",
        "finetune": ", fine-tuned",
        "scratch": ", trained from scratch",
    }
    trained = {True: " with ImageNet weights", False: " with random weights"}
    if len(names) > 1:
        found = dict.fromkeys(str(part(run.config, "config").get("mode")) for run in folder.transfer)
        mode = modes.get(next(iter(found)), "").replace("its features", "their features") if len(found) == 1 else ""
        listed = ", ".join(title.replace(RANDOM, " (random weights)") for title in names.values())
        return f"Networks: {listed}{mode}"
    name = next(iter(names.values()), "") or inner.get("backbone") or weights.get("model") or "not named by the run"
    name = str(baseline.get("title") or name)
    told = f"Network: {name}{trained.get(weights.get('pretrained', ''), '')}{modes.get(str(inner.get('mode')), '')}"
    return f"{told}. What is assumed: {str(baseline['guesses']).rstrip('.')}" if "guesses" in baseline else told


def beside(folder: read.Folder) -> list[str]:
    """What else was run beside transfer and labelling, in words."""
    baselines, sequences = {run.model for run in folder.baselines}, {run.sequence for run in folder.leakage}
    ways = [run for run in folder.fusion if not run.model.startswith("only_") and run.model != "best_single"]
    sweeps = {one.sweep for one in folder.ablations}
    told = [
        words.plural(len(baselines), "baseline") if baselines else "",
        f"the three sequences fused in {words.plural(len(ways), 'way')}" if ways else "",
        f"leaky folds on {' and '.join(results.title(s) for s in sorted(sequences))}" if sequences else "",
        f"{words.plural(len(sweeps), 'sweep')} of settings ({words.plural(len(folder.ablations), 'run')})"
        if sweeps
        else "",
        "pictures of where the networks look" if folder.looks else "",
    ]
    return [text for text in told if text]


def commands(runs: Any) -> list[tuple[str, str]]:
    """(what it made, command) to run each again; runs of one command stand together."""
    by_command: dict[str, list[str]] = {}
    for run in runs:
        command = run.config.get("command")
        if command:
            by_command.setdefault(str(command), []).append(run.name or run.sequence)
    return [(", ".join(dict.fromkeys(names)), command) for command, names in by_command.items()]


def all_commands(folder: read.Folder) -> dict[str, list[tuple[str, str]]]:
    """`commands` of each kind of experiment."""
    result: dict[str, list[Any]] = {}
    for kind, run in experiments(folder):
        result.setdefault(kind, []).append(run)
    return {kind: commands(runs) for kind, runs in result.items()}


def _weights(folder: read.Folder) -> list[dict[str, Any]]:
    """What is recorded of the weights, each once; those of the method first."""
    known: dict[Any, dict[str, Any]] = {}
    for config in [*_main(folder), *(run.config for _, run in experiments(folder))]:
        record = part(config, "weights")
        for one in part(record, "sequences").values() or [record]:  # of fusion by different networks
            if one:
                known.setdefault((one.get("model"), one.get("sha256")), one)
    return list(known.values())


def _weights_facts(records: list[dict[str, Any]]) -> dict[str, str]:
    """All that is recorded where all ran on the same; else a line each."""
    if len(records) == 1:
        return {f"Weights, {name.replace('_', ' ')}": value for name, value in words.flat(records[0])}
    told = {}
    for one in records:
        random = f"random, seed {one.get('seed', words.MISSING)}"
        parts = [one.get("file"), one.get("licence"), one.get("sha256") and f"sha256 {one['sha256']}"]
        known = ", ".join([str(one.get("source", "")), *(str(p) for p in parts if p)]).lstrip(", ")
        told[f"Weights, {str(one.get('model', '')).replace('_', ' ')}"] = known if one.get("pretrained") else random
    return told


def facts(folder: read.Folder) -> dict[str, Any]:
    """What was run: the facts of the whole, one row an experiment, and whether all stand on the same split."""
    config = next(iter([c for c in [folder.config] if c] or [run.config for _, run in experiments(folder)]), {})
    whole = dict(words.flat(part(config, "config")))
    rows = []
    for kind, run in experiments(folder):
        own, what = run.config, getattr(run, "title", "") if kind != "Leakage" else run.model
        fields = words.flat(part(own, "config"))
        setting = ", ".join(run.name.split("/")[1:]) if kind == "Ablation" else ""
        name = " ".join(p for p in (kind, what.replace("_", " "), results.title(run.sequence)) if p)
        rows.append(
            {
                "name": f"{name}, {setting.replace(',', ', ')}" if setting else name,
                "folder": run.name,
                "command": own.get("command"),
                "finished": words.stamp(own.get("finished")),
                "took": words.minutes(own.get("started"), own.get("finished")),
                "split": own.get("split_hash") or words.MISSING,
                # What the whole run's configuration says already is not said again.
                "fields": [(k, v) for k, v in fields if not folder.config or whole.get(k) != v],
            }
        )
    told = {
        "Command": config.get("command"),
        "Started": words.stamp(config.get("started")),
        "Finished": words.stamp(config.get("finished")),
        "Data, fingerprint": part(config, "data").get("fingerprint") or folder.cohort.get("fingerprint"),
        "Split, hash": config.get("split_hash"),
        "Device": config.get("device"),
    } | _weights_facts(_weights(folder))
    splits = {run.config.get("split_hash") for kind, run in experiments(folder) if kind in _ONE_SPLIT}
    return {
        "facts": [(name, value) for name, value in told.items() if value],
        "rows": rows,
        "versions": words.flat(part(config, "versions")),
        "fields": list(whole.items()),
        "one_split": len((splits | {config.get("split_hash")}) - {None}) <= 1,
    }
