"""The summary: warnings, cohort, method and main results."""

from collections.abc import Mapping
from typing import Any

from lesion.report import words
from lesion.report.records import KINDS, RANDOM, Folder, Predictions, Rounds, has_random_weights
from lesion.report.sections import fusion, transfer
from lesion.report.sections.provenance import ONE_SPLIT, weights_records

PHANTOM = "PHANTOM RESULTS: made by simulation, they say nothing about patients"
_MIXED = "PARTLY PHANTOM: simulated and real scans are mixed; these results say nothing about patients"
_UNKNOWN = "COHORT NOT RECORDED: the run does not say whether it used a phantom or patients"
_LEAKY = "LEAKY FOLDS: slices of one patient lie in training and test folds, which flatters every score"
_MODES = {
    "frozen": ", frozen, a new classifier trained on its features",
    "finetune": ", fine-tuned",
    "scratch": ", trained from scratch",
}


def cohort_banners(folder: Folder) -> list[str]:
    """Returns the one banner of a simulated, mixed or unrecorded cohort; none for a cohort of patients."""
    configs = [folder.cohort, folder.config, *(run.config for _, run in folder.experiments())]
    flags = [config["phantom"] for config in configs if config.get("phantom") is not None]
    if not flags:
        return [_UNKNOWN]
    if "mixed" in flags or len(set(flags)) > 1:
        return [_MIXED]
    return [PHANTOM] if flags[0] else []


def stamp(folder: Folder) -> str:
    """Returns the mark of the cohort on every figure and LaTeX table, "" for a cohort of patients."""
    return "".join(cohort_banners(folder)).split(":")[0]


def banners(folder: Folder) -> list[str]:
    """Returns the warnings at the head of the page, the most serious first."""
    result = cohort_banners(folder)
    shuffled = dict.fromkeys(
        run.name or run.sequence_title
        for kind, run in folder.experiments()
        if kind in ONE_SPLIT and run.fields.get("label_control") == "shuffled"
    )
    if shuffled:
        names = words.join(list(shuffled))
        result.append(
            f"SHUFFLED LABELS: those of {names} were dealt at random; their scores say nothing about any disease"
        )
    random = _random_weights(folder)
    if random:
        result.append(
            f"RANDOM WEIGHTS: those of {random} were never trained on ImageNet; this is a control, not the method"
        )
    return result + [_LEAKY] * any(run.splits_patients for run in folder.transfer)


def is_varied(run: Predictions | Rounds, field: str) -> bool:
    """Returns whether an ablation varies a field, according to the name of the setting's folder."""
    return f",{field}=" in f",{run.levels[2]}"


def _random_weights(folder: Folder) -> str:
    """Returns the networks whose weights are random but not on purpose, in words; "" if there are none."""
    on_purpose = [run for run in folder.ablations if is_varied(run, "weights")]
    experiments = list(folder.experiments())
    runs = [(kind, run) for kind, run in experiments if has_random_weights(run.config) and run not in on_purpose]
    if not runs:
        return "the backbone" if has_random_weights(folder.config) and not experiments else ""
    networks = [run.title.removesuffix(RANDOM) for kind, run in runs if kind in ("transfer", "baselines")]
    others = dict.fromkeys(f"{KINDS[kind].lower()} runs" for kind, _ in runs if kind not in ("transfer", "baselines"))
    return words.join([name or "the backbone" for name in dict.fromkeys(networks)] + list(others))


def _tested(folder: Folder) -> tuple[Predictions, ...]:
    """Returns the runs whose scores head the page: on their own test folds, or on another cohort."""
    return (*folder.transfer, *folder.external)


def _patients(folder: Folder) -> str:
    """Returns the number of patients behind the results, in words."""
    noun = "simulated patient" if PHANTOM in cohort_banners(folder) else "patient"
    counts = folder.cohort.get("patients", {})
    if set(folder.classes) <= counts.keys():
        negative, positive = (counts[name] for name in folder.classes)
    elif _tested(folder):
        label, _, _ = max((run.columns("patient") for run in _tested(folder)), key=lambda columns: columns[0].size)
        negative, positive = int((label == 0).sum()), int((label == 1).sum())
    elif folder.doctor:
        (run,) = folder.doctor
        slices, patients = (int(run.rounds[f"labeled_{unit}"].iloc[-1]) for unit in ("slices", "patients"))
        text = f"{words.plural(slices, 'slice')} of {words.plural(patients, noun)} labelled"
        return text if run.metrics else f"{text} so far"
    else:
        return "A cohort whose size the run does not record"
    total = words.plural(negative + positive, noun)
    return f"{total} ({negative} with {folder.classes.negative}, {positive} with {folder.classes.positive})"


def _method(folder: Folder) -> str:
    """Returns the networks and their training in words, as far as the configuration names them."""
    titles = {run.model: run.title for run in _tested(folder) if run.model}
    if len(titles) > 1:
        modes = list(dict.fromkeys(str(run.fields.get("mode")) for run in _tested(folder)))
        mode = _MODES.get(modes[0], "").replace("its features", "their features") if len(modes) == 1 else ""
        names = ", ".join(title.replace(RANDOM, " (random weights)") for title in titles.values())
        return f"Networks: {names}{mode}"
    runs = (*_tested(folder), *folder.active, *folder.doctor)
    configs = [config for config in (folder.config, *(run.config for run in runs)) if config]
    config: Mapping[str, Any] = next(iter(configs), {})
    others = [run.config for _, run in folder.experiments()]
    weights: Mapping[str, Any] = next(iter(weights_records([*configs, *others])), {})
    fields, baseline = config.get("config", {}), config.get("baseline", {})
    name = next((title.removesuffix(RANDOM) for title in titles.values()), "") or fields.get("backbone")
    name = baseline.get("title") or name or weights.get("model") or "not named by the run"
    trained = {True: " with ImageNet weights", False: " with random weights"}.get(weights.get("pretrained", ""), "")
    text = f"Network: {name}{trained}{_MODES.get(str(fields.get('mode')), '')}"
    return f"{text}. What is assumed: {str(baseline['guesses']).rstrip('.')}" if "guesses" in baseline else text


def _beside(folder: Folder) -> list[str]:
    """Returns the experiments beside transfer and active learning, in words."""
    baselines = {run.model for run in folder.baselines}
    fused = [run for run in folder.fusion if not fusion.is_single(run)]
    leaky = " and ".join(dict.fromkeys(run.sequence_title for run in folder.leakage))
    sweeps = {run.levels[1] for run in folder.ablations}
    runs = words.plural(len(folder.ablations), "run")
    texts = {
        words.plural(len(baselines), "baseline"): baselines,
        f"the three sequences fused in {words.plural(len(fused), 'way')}": fused,
        f"leaky folds on {leaky}": leaky,
        f"{words.plural(len(sweeps), 'sweep')} of settings ({runs})": sweeps,
        "pictures of where the networks look": folder.explain,
    }
    return [text for text, experiments in texts.items() if experiments]


def _majority(runs: tuple[Predictions, ...]) -> str:
    """Returns the patients called right by always naming the commoner disease, by sequence where these differ."""
    totals = [run.scores["num_patients"] for run in runs]
    right = [round(transfer.majority(run, "patient") * total) for run, total in zip(runs, totals, strict=True)]
    texts = [f"{count} of {total}" for count, total in zip(right, totals, strict=True)]
    if len(set(texts)) == 1:
        return texts[0]
    return ", ".join(f"{text} ({run.sequence_title})" for text, run in zip(texts, runs, strict=True))


def section(folder: Folder) -> dict[str, Any]:
    """Returns the values that summary.html.j2 prints."""
    tested = _tested(folder)
    return {
        "patients": _patients(folder),
        "method": _method(folder),
        "patients_apart": tested and not any(run.splits_patients for run in tested),
        "failed": folder.failed,
        "missing": folder.missing,
        "glance": [(run, transfer.sequence_style(run.sequence)) for run in tested],
        "several": len({run.title for run in tested}) > 1,
        "majority": _majority(tested),
        "beside": _beside(folder),
    }
